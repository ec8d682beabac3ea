"""Correlations of all features of one space with all of another, block by block, corrected over all pairs. Needs NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK_PAIRS = 2**24
"""Pairs that are held at a time."""
BINS = 2**16
"""In which |r| is counted, for the correction of pairs that are not kept."""


@dataclass(frozen=True)
class Columns:
    """The features of a space that vary over observations, each scaled so that a product of two is their correlation."""

    features: Ints
    unit: Floats  # (features, observations)


@dataclass(frozen=True)
class Pairs:
    """The strongest pairs: columns of the first and of the second space, and their r; which pair of spaces they are of."""

    spaces: Ints
    first: Ints
    second: Ints
    r: Floats


def means(matrix: Any, cluster: Ints) -> Any:
    """The mean row of each cluster: equal prompts, and decisions of one unit, are one observation."""
    from scipy import sparse

    count = int(cluster.max()) + 1
    weight = 1.0 / np.bincount(cluster)[cluster]
    member = sparse.csr_array((weight, (cluster, np.arange(len(cluster)))), shape=(count, len(cluster)))
    return (member @ matrix).tocsc()


def columns(observed: Any, features: Ints, method: str, at_least: int) -> Columns:
    """The features that are on in at least so many observations and vary, centred and scaled; with `spearman`, of their ranks."""
    counts = np.diff(observed.indptr)
    kept = np.flatnonzero(counts >= at_least)
    dense = observed[:, kept].toarray().T if len(kept) else np.zeros((0, observed.shape[0]))
    dense = rankdata(dense, axis=1) if method == "spearman" and len(dense) else dense
    dense = dense - dense.mean(axis=1, keepdims=True)
    length = np.sqrt((dense**2).sum(axis=1))
    varies = length > 1e-12 * np.sqrt(dense.shape[1]) * np.abs(dense).max(axis=1, initial=0.0) if len(dense) else length > 0
    return Columns(features[kept[varies]], dense[varies] / length[varies, None])


class Strongest:
    """Keeps the strongest of any number of pairs, and how many there were of each strength."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._counts = np.zeros(BINS + 1, dtype=np.int64)
        self._held: list[Pairs] = []
        self._floor = 0.0
        self.tested = 0

    def add(self, spaces: int, a: Columns, b: Columns) -> None:
        """Every pair of a feature of the one space with a feature of the other."""
        self.tested += len(a.features) * len(b.features)
        for start, r in _products(a.unit, b.unit):
            strength = np.abs(r).ravel()
            self._counts += np.bincount((strength * BINS).astype(np.int64), minlength=BINS + 1)[: BINS + 1]
            at = self._candidates(strength)
            first, second = np.divmod(at, len(b.features))
            kept = Pairs(np.full(len(at), spaces), first + start, second, r.ravel()[at])
            self._held.append(kept)
            if sum(len(one.r) for one in self._held) > 4 * self._keep:
                self._cut()

    def _candidates(self, strength: Floats) -> Ints:
        """Those of a block that may be among the strongest; equal ones at the edge all stay."""
        at = np.flatnonzero(strength >= self._floor)
        if len(at) <= 4 * self._keep:
            return at
        edge = np.partition(strength[at], len(at) - self._keep)[len(at) - self._keep]
        return np.asarray(at[strength[at] >= edge])

    def _cut(self) -> None:
        every = Pairs(
            *(np.concatenate([getattr(one, name) for one in self._held]) for name in ("spaces", "first", "second", "r"))
        )
        order = np.lexsort((every.second, every.first, every.spaces, -np.abs(every.r)))[: self._keep]
        kept = Pairs(every.spaces[order], every.first[order], every.second[order], every.r[order])
        self._held = [kept]
        self._floor = float(np.abs(kept.r[-1])) if len(kept.r) == self._keep else 0.0

    def strongest(self, observations: int, family: int) -> tuple[Pairs, Floats, Floats]:
        """The strongest pairs with p and q: Benjamini-Hochberg over `family`, pairs that are not kept counted by strength.

        All pairs have as many observations, so a stronger one has a smaller p, and the counts say how many p are below one.
        A bin counts at its weakest end, so no q is too small.
        """
        if not self._held:
            none = np.empty(0)
            return Pairs(none.astype(np.int64), none.astype(np.int64), none.astype(np.int64), none), none, none
        self._cut()
        found = self._held[0]
        p = p_of(found.r, observations)
        own = p * family / np.arange(1, len(p) + 1)
        edges = np.arange(BINS + 1) / BINS
        above = np.cumsum(self._counts[::-1])[::-1]
        beyond = np.where(above > len(p), p_of(edges, observations) * family / np.maximum(above, 1), 1.0)
        q = np.minimum(np.minimum.accumulate(own[::-1])[::-1], min(float(beyond.min()), 1.0))
        return found, p, np.maximum(q, p)


def _products(a: Floats, b: Floats) -> Iterator[tuple[int, Floats]]:
    step = max(1, BLOCK_PAIRS // max(len(b), 1))
    for start in range(0, len(a), step):
        yield start, np.clip(a[start : start + step] @ b.T, -1.0, 1.0)


def p_of(r: Floats, observations: int) -> Floats:
    """Of a correlation of so many observations: t with two fewer degrees of freedom."""
    with np.errstate(divide="ignore"):
        t = np.abs(r) * np.sqrt((observations - 2) / np.maximum(1.0 - r**2, 0.0))
    return np.asarray(2.0 * stdtr(observations - 2, -t))


def interval(r: Floats, observations: int) -> tuple[Floats, Floats]:
    """Fisher's 95 % interval."""
    reach = 1.959963984540054 / np.sqrt(max(observations - 3, 1))
    middle = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return np.tanh(middle - reach), np.tanh(middle + reach)


def components(values: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """Principal components of standardised columns: scores (rows, components), loadings, and each one's share of the variance.

    A component's largest loading is positive; columns that never vary have none.
    """
    spread = values.std(axis=0)
    scaled = np.where(spread > 0, (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0), 0.0)
    u, s, v = np.linalg.svd(scaled, full_matrices=False)
    count = min(count, int((s > 1e-10 * max(s.max(initial=0.0), 1.0)).sum()))
    sign = np.sign(v[np.arange(count), np.abs(v[:count]).argmax(axis=1)])
    share = s[:count] ** 2 / max(float((s**2).sum()), 1e-300)
    return u[:, :count] * s[:count] * sign, v[:count] * sign[:, None], share
