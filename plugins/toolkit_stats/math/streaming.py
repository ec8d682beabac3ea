"""Moments of two groups from rows that come by once, in any order: sums by group, and the sums of
clusters still open. Needs NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from toolkit_stats.math.means import ROUNDING, Moments, skewness_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
        self._between, self._weighted = np.zeros(shape), np.zeros(shape)
        self._cubes, self._weighted_squares = np.zeros(shape), np.zeros(shape)
        self._square_weighted = np.zeros(shape)
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
            held = self._open.get(cluster)
            self._open[cluster] = moved.copy() if held is None else held + moved
        self.most_open = max(self.most_open, len(self._open))
        for cluster in {cluster for cluster in clusters if not self._left[cluster]}:
            done = self._open.pop(cluster)
            size = self._sizes[cluster]
            self._between += done**2
            self._weighted += size * done
            self._cubes += done**3
            self._weighted_squares += size * done**2
            self._square_weighted += size**2 * done

    def moments(self) -> Moments:
        """What a test needs to know of the group, once every sample has come."""
        assert self._shift is not None
        assert not self._open
        samples, count = self._sizes.sum(), len(self._sizes)
        centre = self._total / samples
        mean = centre + self._shift
        between = self._between - 2 * centre * self._weighted + centre**2 * (self._sizes**2).sum()
        squares = self._squares - samples * centre**2
        cubes = (
            self._cubes
            - 3 * centre * self._weighted_squares
            + 3 * centre**2 * self._square_weighted
            - centre**3 * (self._sizes**3).sum()
        )
        floor = (ROUNDING * mean) ** 2
        between = np.where(between > (self._sizes**2).sum() * floor, between, 0.0)
        return Moments(
            samples=int(samples),
            clusters=count,
            mean=mean,
            fired=self._fired,
            squares=np.where(squares > samples * floor, squares, 0.0),
            variance=count / (count - 1) * between / samples**2,
            skewness=skewness_of(cubes, between, count, self._fired, int(samples)),
        )
