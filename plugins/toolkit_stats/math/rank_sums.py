"""Tests of rank sums over sparse columns: two groups, two groups in strata, and several groups.
Imported when a step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import chdtrc, gammaln, ndtr

from toolkit.statistics.arrays import Bools, Floats, Ints
from toolkit_stats.math.ranks import Ranked, rank_sum

EXACT = 20_000
"""With at most this many arrangements of the labels, a rank test enumerates them."""

MANY = 30
"""The expected number of firing rows in the smallest group from which chi-squared holds in the
tail.
"""

SMALL = 0.05
"""A p below this is recomputed where a column has zeros: the normal approximation is wrong in the
tail.
"""

WIDE = 14.0
"""Standard deviations of the number of firing rows in a group that such a p sums over."""

GRID = 4096
"""Steps from the middle of the grid on which the distributions of strata are convolved."""

TINY = 1e-18
"""Numbers of firing rows with a smaller probability than this are ignored."""


@dataclass(frozen=True)
class Sided:
    """A rank test of two groups, by column. `u` counts pairs in which the first is higher; a tie
    counts half.
    """

    u: Floats
    p: Floats


def mann_whitney(ranked: Ranked, in_first: npt.NDArray[np.bool_]) -> Sided:
    """Two-sided; exact where the assignments of the labels can be enumerated, else normal with ties
    and continuity corrected. Small p of columns with zeros are replaced (`_mixed`).
    """
    a, n = int(in_first.sum()), ranked.rows
    u = rank_sum(ranked, in_first) - a * (a + 1) / 2
    if ways(n, a) <= EXACT + 0.5:
        return Sided(u, _exact(ranked, in_first, u))
    variance = a * (n - a) / 12 * ((n + 1) - ranked.ties / (n * (n - 1)))
    distance = np.abs(u - a * (n - a) / 2)
    p = _two_sided(distance - 0.5, variance)
    small = np.flatnonzero((p < SMALL) & (_stored(ranked) < n))
    p[small] = _mixed(ranked, a, distance, small)
    return Sided(u, p)


def _stored(ranked: Ranked) -> Ints:
    """How many rows of each column are stored, that is fire."""
    return np.diff(ranked.ends, prepend=0)


def _mixed(ranked: Ranked, a: int, distance: Floats, columns: Ints) -> Floats:
    """The p-values of rank sums at `distance` from their mean, for the given columns.

    A column that fires in k of n rows has few distinct rank sums, and in the tail the normal
    distribution is wrong by orders of magnitude. How many of the k fall into the first group is
    hypergeometric, exactly; given that number, their ranks are a random choice of this many of k,
    and only this part is approximated as normal.
    """
    n, stored = ranked.rows, _stored(ranked)
    every = np.maximum(stored, 1)
    mean = np.bincount(ranked.column, weights=ranked.above, minlength=ranked.columns) / every
    square = np.bincount(ranked.column, weights=ranked.above**2, minlength=ranked.columns) / every
    k, low, counts = _hits(stored[columns], a, n)
    index = np.repeat(np.arange(len(columns)), counts)
    hits = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[index]
    of_k, mean, square, distance = (
        k[index],
        mean[columns][index],
        square[columns][index],
        distance[columns][index],
    )
    chance = np.exp(_log_choose(of_k, hits) + _log_choose(n - of_k, a - hits) - _log_choose(n, a))
    shift = (hits - a * of_k / n) * mean
    spread = hits * (of_k - hits) / np.maximum(of_k - 1, 1) * np.maximum(square - mean**2, 0.0)
    tails = _tail(distance - 0.5 - shift, spread) + _tail(distance - 0.5 + shift, spread)
    return np.minimum(np.bincount(index, weights=chance * tails, minlength=len(columns)), 1.0)


def _hits(k: Ints, a: int, n: int) -> tuple[Ints, Ints, Ints]:
    """How many of k stored rows may fall into the first group: k, the least number, and how many
    numbers are summed over. What lies `WIDE` standard deviations from the mean is left out.
    """
    mean = k * a / n
    reach = WIDE * np.sqrt(mean * (1 - a / n) * (n - k) / (n - 1)) + WIDE
    low = np.maximum(np.maximum(k - (n - a), 0), np.floor(mean - reach)).astype(np.int64)
    high = np.minimum(np.minimum(k, a), np.ceil(mean + reach)).astype(np.int64)
    return k, low, high - low + 1


def _log_choose(n: Any, k: Any) -> Floats:
    logs: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return logs


def _tail(beyond: Floats, variance: Floats) -> Floats:
    """The probability that a normal variable with mean 0 is at least this large; without variance,
    whether 0 is at least this large.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = ndtr(-beyond / np.sqrt(variance))
    return np.where(variance > 1e-9, normal, (beyond <= 1e-9).astype(np.float64))


def ways(n: int, a: int) -> float:
    """The approximate number of ways to choose `a` of `n`; exact numbers of thousands of digits
    take long.
    """
    return float(np.exp(min(gammaln(n + 1) - gammaln(a + 1) - gammaln(n - a + 1), 700.0)))


def _two_sided(beyond: Floats, variance: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, np.minimum(2.0 * ndtr(-beyond / np.sqrt(variance)), 1.0), 1.0)


def _exact(ranked: Ranked, in_first: npt.NDArray[np.bool_], u: Floats, block: int = 1024) -> Floats:
    """The share of all arrangements of the labels that are at least as far from the mean."""
    a, n = int(in_first.sum()), ranked.rows
    chosen = np.array(list(combinations(range(n), a)))
    ways = np.zeros((len(chosen), n))
    np.put_along_axis(ways, chosen, 1.0, axis=1)
    above = sparse.csr_array(
        (ranked.above, (ranked.row, ranked.column)), shape=(n, ranked.columns)
    ).tocsc()
    p = np.empty(ranked.columns)
    for start in range(0, ranked.columns, block):
        end = min(start + block, ranked.columns)
        dealt = ways @ above[:, start:end].toarray() + a * ranked.zero[start:end] - a * (a + 1) / 2
        distance = np.abs(u[start:end] - a * (n - a) / 2)
        p[start:end] = (np.abs(dealt - a * (n - a) / 2) >= distance - 1e-9).mean(axis=0)
    return p


Strata = Sequence[tuple[Ranked, Bools]]


def van_elteren(parts: Strata) -> Floats:
    """The p of rank sums taken within strata and added, each with the weight 1 / (rows + 1). Small
    p of columns with zeros are replaced (`_mixed_within`).
    """
    columns = parts[0][0].columns
    away, spread, zeros = np.zeros(columns), np.zeros(columns), np.zeros(columns, dtype=np.bool_)
    parts = [
        (stratum, in_first) for stratum, in_first in parts if 0 < in_first.sum() < stratum.rows
    ]
    for stratum, in_first in parts:
        a, n = int(in_first.sum()), stratum.rows
        away += (rank_sum(stratum, in_first) - a * (n + 1) / 2) / (n + 1)
        spread += a * (n - a) / 12 * ((n + 1) - stratum.ties / (n * (n - 1))) / (n + 1) ** 2
        zeros |= _stored(stratum) < n
    p = _two_sided(np.abs(away), np.where(spread > 1e-12, spread, 0.0))
    for column in np.flatnonzero((p < SMALL) & zeros):
        p[column] = _mixed_within(parts, int(column), abs(float(away[column])))
    return p


def _mixed_within(parts: Strata, column: int, distance: float) -> float:
    """The p of a sum over strata that lies `far` from its mean, for one column.

    In each stratum the rank sum has the distribution that `_mixed` uses. The distributions of the
    strata, on a common grid, are convolved. Probability between two grid points is moved outwards,
    so that p is never too small.
    """
    mixtures = [_of_stratum(stratum, column, int(in_first.sum())) for stratum, in_first in parts]
    widest = [
        np.abs(mixture.shift).max() + WIDE * np.sqrt(mixture.spread.max()) for mixture in mixtures
    ]
    reach = 1.05 * float(sum(widest))
    step = reach / GRID
    edges: Floats = (np.arange(-GRID, GRID + 1, dtype=np.float64) - 0.5) * step
    transformed = np.ones(GRID + 1, dtype=np.complex128)
    for mixture in mixtures:
        transformed *= np.fft.rfft(np.fft.ifftshift(_on_grid(mixture, edges, step)))
    total = np.fft.fftshift(np.fft.irfft(transformed, 2 * GRID))
    outside = np.abs(np.arange(-GRID, GRID)) * step >= distance - 1e-9 * reach
    return float(np.clip(total[outside].sum(), np.finfo(np.float64).eps, 1.0))


@dataclass(frozen=True, eq=False)
class Mixture:
    """Normal distributions with these chances, means and variances (0: a point)."""

    chance: Floats
    shift: Floats
    spread: Floats


def _of_stratum(stratum: Ranked, column: int, a: int) -> Mixture:
    """The weighted rank sum of one stratum, by how many of the rows that fire fall into the first
    group.
    """
    n = stratum.rows
    end = int(stratum.ends[column])
    above = stratum.above[int(stratum.ends[column - 1]) if column else 0 : end]
    k, low, counts = _hits(np.array([len(above)]), a, n)
    hits = np.arange(counts[0]) + low[0]
    mean = float(above.mean()) if len(above) else 0.0
    variance = float(above.var()) if len(above) else 0.0
    chance = np.exp(_log_choose(k, hits) + _log_choose(n - k, a - hits) - _log_choose(n, a))
    return Mixture(
        chance,
        (hits - a * k / n) * mean / (n + 1),
        hits * (k - hits) / np.maximum(k - 1, 1) * variance / (n + 1) ** 2,
    )


def _on_grid(mixture: Mixture, edges: Floats, step: float) -> Floats:
    """The probability of each grid point; distributions narrower than a step are points, rounded
    away from zero.
    """
    points = mixture.spread < step**2
    outwards = np.sign(mixture.shift) * np.ceil(np.abs(mixture.shift) / step - 1e-9)
    chances = np.bincount(
        outwards[points].astype(np.int64) + GRID,
        weights=mixture.chance[points],
        minlength=len(edges) - 1,
    )[: len(edges) - 1].astype(np.float64)
    wide = ~points & (mixture.chance > TINY)
    sd = np.sqrt(mixture.spread[wide])[:, None]
    cdf = ndtr((edges[None, :] - mixture.shift[wide][:, None]) / sd)
    chances += mixture.chance[wide] @ np.diff(cdf, axis=1)
    return chances


def kruskal(ranked: Ranked, group_of: Ints) -> tuple[Floats, Floats]:
    """H, corrected for ties, and its p. Where all values are equal, 0 and 1.

    Chi-squared is right where every group has many of the rows that fire and of those that do not.
    Elsewhere p is at least the smallest of Mann and Whitney's tests of each group against the
    others, times the number of groups.
    """
    sizes, n = np.bincount(group_of), ranked.rows
    between = sum(
        (rank_sum(ranked, group_of == group) ** 2 / size for group, size in enumerate(sizes)),
        np.zeros(1),
    )
    shared = 1.0 - ranked.ties / (n**3 - n)
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.where(shared > 1e-12, (12 / (n * (n + 1)) * between - 3 * (n + 1)) / shared, 0.0)
    p = chdtrc(len(sizes) - 1, np.maximum(h, 0.0))
    stored = _stored(ranked)
    expected = np.minimum(stored, n - stored) * sizes.min() / n
    few = (p < SMALL) & (stored < n) & (expected < MANY)
    if few.any():
        p_values = [mann_whitney(ranked, group_of == group).p for group in range(len(sizes))]
        p = np.where(few, np.maximum(p, np.minimum(len(sizes) * np.min(p_values, axis=0), 1.0)), p)
    return h, p


def rank_spread(ranks: Floats, group_of: Ints) -> float:
    """The p of Kruskal and Wallis's test of one column of midranks, by chi-squared."""
    n, sizes = len(ranks), np.bincount(group_of)
    means = np.bincount(group_of, weights=ranks) / sizes
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if not total:
        return 1.0
    h = (n - 1) * float((sizes * (means - ranks.mean()) ** 2).sum()) / total
    return float(chdtrc(len(sizes) - 1, h))
