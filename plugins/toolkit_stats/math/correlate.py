"""Correlations of all features of one space with all of another, block by block, corrected over all
pairs. Needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.special import gammaln, stdtr
from scipy.stats import rankdata

from toolkit.statistics.arrays import Floats, Ints
from toolkit_stats.math.means import slope

BLOCK_PAIRS = 2**24
"""Pairs in memory at a time."""
BINS = 2**16
"""The bins in which |r| is counted, for the correction over pairs that are not kept."""
PERFECT = 1 - 1e-12
"""From this |r| on, 1 - |r| is rounding error, and a t test would give p = 0."""


@dataclass(frozen=True)
class Columns:
    """The features of a space that vary over observations, each scaled so that a product of two is
    their correlation.
    """

    features: Ints
    unit: Floats  # (features, observations)


@dataclass(frozen=True)
class Pairs:
    """The strongest pairs: columns of the first and of the second space, and their r; which pair of
    spaces they are of.

    `least`: the smallest p that a perfect correlation can have, else 0.
    """

    spaces: Ints
    first: Ints
    second: Ints
    r: Floats
    least: Floats


def means(matrix: Any, cluster: Ints) -> Any:
    """The mean row of each cluster: equal prompts, or decisions of one unit, count as one."""
    from scipy import sparse

    count = int(cluster.max()) + 1
    weight = 1.0 / np.bincount(cluster)[cluster]
    member = sparse.csr_array(
        (weight, (cluster, np.arange(len(cluster)))), shape=(count, len(cluster))
    )
    return (member @ matrix).tocsc()


def columns(observed: Any, features: Ints, method: str, at_least: int) -> Columns:
    """The features that fire in at least `min_count` observations and vary, centred and scaled;
    with `spearman`, their ranks.
    """
    counts = np.diff(observed.indptr)
    frequent = np.flatnonzero(counts >= at_least)
    dense = observed[:, frequent].toarray().T if len(frequent) else np.zeros((0, observed.shape[0]))
    dense = rankdata(dense, axis=1) if method == "spearman" and len(dense) else dense
    dense = dense - dense.mean(axis=1, keepdims=True)
    length = np.sqrt((dense**2).sum(axis=1))
    varies = (
        length > 1e-12 * np.sqrt(dense.shape[1]) * np.abs(dense).max(axis=1, initial=0.0)
        if len(dense)
        else length > 0
    )
    return Columns(features[frequent[varies]], dense[varies] / length[varies, None])


class Strongest:
    """Keeps the strongest of any number of pairs, and a histogram of all."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._counts = np.zeros(BINS + 1, dtype=np.int64)
        self._strongest_so_far: list[Pairs] = []
        self._floor = 0.0
        self.tested = 0

    def add(self, spaces: int, a: Columns, b: Columns) -> None:
        """Every pair of a feature of the one space with a feature of the other."""
        self.tested += len(a.features) * len(b.features)
        for start, r in _products(a.unit, b.unit):
            strength = np.abs(r).ravel()
            bins = (strength * BINS).astype(np.int64)
            self._counts += np.bincount(bins, minlength=BINS + 1)
            # The p of a perfect pair is not that of its bin, so perfect pairs are not counted in
            # their bin.
            self._counts -= np.bincount(bins[strength >= PERFECT], minlength=BINS + 1)
            index = self._candidates(strength)
            a_index, b_index = np.divmod(index, len(b.features))
            perfect, least = strength[index] >= PERFECT, np.zeros(len(index))
            least[perfect] = of_orders(a.unit[(a_index + start)[perfect]])
            block = Pairs(
                np.full(len(index), spaces), a_index + start, b_index, r.ravel()[index], least
            )
            self._strongest_so_far.append(block)
            if sum(len(pairs.r) for pairs in self._strongest_so_far) > 4 * self._keep:
                self._cut()

    def _candidates(self, strength: Floats) -> Ints:
        """The pairs of a block that may be among the strongest; ties at the edge are all kept."""
        indices = np.flatnonzero(strength >= self._floor)
        if len(indices) <= 4 * self._keep:
            return indices
        edge = np.partition(strength[indices], len(indices) - self._keep)[len(indices) - self._keep]
        return np.asarray(indices[strength[indices] >= edge])

    def _cut(self) -> None:
        names = [field.name for field in fields(Pairs)]
        every = Pairs(
            *(
                np.concatenate([getattr(pairs, name) for pairs in self._strongest_so_far])
                for name in names
            )
        )
        order = np.lexsort((every.second, every.first, every.spaces, -np.abs(every.r)))[
            : self._keep
        ]
        strongest = Pairs(*(getattr(every, name)[order] for name in names))
        self._strongest_so_far = [strongest]
        self._floor = float(np.abs(strongest.r[-1])) if len(strongest.r) == self._keep else 0.0

    def strongest(self, observations: int, family: int) -> tuple[Pairs, Floats, Floats]:
        """The strongest pairs with p and q: Benjamini-Hochberg over `family`, pairs that are not
        kept counted by strength.

        All pairs have as many observations, so a stronger one has a smaller p, and the counts say
        how many p are below one. A bin counts at its weakest end, so no q is too small.
        """
        if not self._strongest_so_far:
            none = np.empty(0)
            return (
                Pairs(
                    none.astype(np.int64), none.astype(np.int64), none.astype(np.int64), none, none
                ),
                none,
                none,
            )
        self._cut()
        pairs = self._strongest_so_far[0]
        p = np.maximum(p_of(pairs.r, observations), pairs.least)
        edges = np.arange(BINS + 1) / BINS
        above = np.cumsum(self._counts[::-1])[::-1]
        beyond = np.where(
            above > len(p), p_of(edges, observations) * family / np.maximum(above, 1), 1.0
        )
        order = np.argsort(p, kind="stable")  # a perfect pair may have a larger p than the next one
        q_values = np.minimum.accumulate((p[order] * family / np.arange(1, len(p) + 1))[::-1])[::-1]
        q = np.empty(len(p))
        q[order] = np.minimum(q_values, min(float(beyond.min()), 1.0))
        return pairs, p, np.maximum(q, p)


def _products(a: Floats, b: Floats) -> Iterator[tuple[int, Floats]]:
    step = max(1, BLOCK_PAIRS // max(len(b), 1))
    for start in range(0, len(a), step):
        yield start, np.clip(a[start : start + step] @ b.T, -1.0, 1.0)


def p_of(r: Floats, observations: int) -> Floats:
    """The p of a correlation of this many observations: t with two fewer degrees of freedom."""
    with np.errstate(divide="ignore"):
        t = np.abs(r) * np.sqrt((observations - 2) / np.maximum(1.0 - r**2, 0.0))
    return np.asarray(2.0 * stdtr(observations - 2, -t))


def of_orders(values: Floats) -> Floats:
    """For each row, 2 over the number of distinct orders of its values: the p of the most extreme
    two, which is what a perfect correlation with so few different values shows.
    """
    count = values.shape[1]
    ordered = np.sort(values, axis=1)
    fresh = np.diff(ordered, axis=1) != 0
    row, column = np.nonzero(np.column_stack([np.ones(len(values), dtype=np.bool_), fresh]))
    last = np.append(row[1:] != row[:-1], np.ones(min(len(row), 1), dtype=np.bool_))
    length = np.where(last, count, np.append(column[1:], 0)) - column
    alike = np.bincount(row, weights=gammaln(length + 1), minlength=len(values))
    return np.asarray(np.minimum(2.0 * np.exp(alike - gammaln(count + 1)), 1.0))


def interval(r: Floats, observations: int, method: str) -> tuple[Floats, Floats]:
    """Fisher's 95 % interval, wider for ranks (Bonett and Wright), as in compare.correlation."""
    fitted = slope(
        r, np.arange(observations, dtype=np.float64), 1 + r**2 / 2 if method == "spearman" else 1.0
    )
    # Three observations give no interval, not even of a perfect correlation.
    return np.nan_to_num(fitted.low, nan=-1.0), np.nan_to_num(fitted.high, nan=1.0)


def components(values: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """Principal components of standardised columns: scores (rows, components), loadings, and each
    one's share of the variance.

    A component's largest loading is positive; columns that never vary have none.
    """
    spread = values.std(axis=0)
    scaled = np.where(
        spread > 0, (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0), 0.0
    )
    u, s, v = np.linalg.svd(scaled, full_matrices=False)
    count = min(count, int((s > 1e-10 * max(s.max(initial=0.0), 1.0)).sum()))
    sign = np.sign(v[np.arange(count), np.abs(v[:count]).argmax(axis=1)])
    share = s[:count] ** 2 / max(float((s**2).sum()), 1e-300)
    return u[:, :count] * s[:count] * sign, v[:count] * sign[:, None], share
