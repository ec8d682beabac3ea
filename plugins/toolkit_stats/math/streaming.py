"""Moments of groups from rows that are read once, in any order: sums by group, and sums of open
clusters. Needs NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

from toolkit.statistics.arrays import Floats, Ints
from toolkit_stats.math.means import ROUNDING, Moments, shape_of

POWERS = 4
"""Sums of clusters are kept up to this power: the kurtosis needs the fourth."""


class Stream:
    """One group. `clusters` numbers each sample's cluster; a cluster's sum is kept until its last
    sample has come.

    Sums are of differences to the first row seen, in float64: a stream's offset is often a thousand
    times its spread.
    """

    def __init__(self, clusters: Ints, shape: tuple[int, ...]) -> None:
        self._left = np.bincount(clusters)
        self._sizes = self._left.astype(np.float64)
        self._open: dict[int, Floats] = {}
        self._shift: Floats | None = None
        self._total, self._squares, self._fired = (
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape, dtype=np.int64),
        )
        self._powers = {
            (weight, power): np.zeros(shape)
            for power in range(1, POWERS + 1)
            for weight in range(POWERS + 1 - power)
        }
        self.most_open = 0

    def add(self, row: Floats, clusters: Sequence[int]) -> None:
        """One text's row, for the samples that have this text; `clusters` are theirs."""
        if self._shift is None:
            self._shift = row.copy()
        moved = row - self._shift
        count = len(clusters)
        self._total += count * moved
        self._squares += count * moved**2
        self._fired += count * (row != 0)
        for cluster in clusters:
            self._left[cluster] -= 1
            open_sum = self._open.get(cluster)
            self._open[cluster] = moved.copy() if open_sum is None else open_sum + moved
        self.most_open = max(self.most_open, len(self._open))
        for cluster in {cluster for cluster in clusters if not self._left[cluster]}:
            done = self._open.pop(cluster)
            size = self._sizes[cluster]
            for weight, power in self._powers:
                self._powers[weight, power] += size**weight * done**power

    def moments(self) -> Moments:
        """The moments of the group, after the last sample."""
        assert self._shift is not None
        assert not self._open
        samples, count = self._sizes.sum(), len(self._sizes)
        centre = self._total / samples
        mean = centre + self._shift
        between, cubes, fourths = (self._central(power, centre) for power in (2, 3, 4))
        squares = self._squares - samples * centre**2
        floor = (ROUNDING * mean) ** 2
        between = np.where(between > (self._sizes**2).sum() * floor, between, 0.0)
        skewness, kurtosis = shape_of(cubes, fourths, between, count, self._fired, int(samples))
        return Moments(
            samples=int(samples),
            clusters=count,
            mean=mean,
            fired=self._fired,
            squares=np.where(squares > samples * floor, squares, 0.0),
            variance=count / (count - 1) * between / samples**2,
            skewness=skewness,
            kurtosis=kurtosis,
        )

    def _central(self, power: int, centre: Floats) -> Floats:
        """The sum over clusters of (sum - size * centre) to this power."""
        total: Floats = (-centre) ** power * (self._sizes**power).sum()
        for weight in range(power):
            term = self._powers[weight, power - weight]
            total = total + comb(power, weight) * (-centre) ** weight * term
        return total
