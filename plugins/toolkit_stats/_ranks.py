"""Ranks over sparse columns, the ties of the zeros included. Imported when a step runs: it needs NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import chdtrc, ndtr, stdtr
from scipy.stats import rankdata

from ._statistics import Moments, Z, moments

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EXACT = 20_000
"""With no more ways than this to deal out the labels, a rank test counts them all."""


@dataclass(frozen=True)
class Ranked:
    """Midranks of all rows, by column. What is not stored is zero and has the rank `zero`; `above` is what stored ones have more.

    Entries stand by column and then by value; entries of equal value in a column are one run, and runs are numbered.
    """

    rows: int
    column: Ints
    row: Ints
    above: Floats
    zero: Floats
    ties: Floats  # the sum of t³ - t over values that t rows share
    run: Ints
    run_column: Ints
    positive: npt.NDArray[np.bool_]  # of each run
    negatives: Ints  # by column

    @property
    def columns(self) -> int:
        """How many columns."""
        return len(self.zero)


def ranked(matrix: Any) -> Ranked:
    """Sort a CSR matrix's columns, all at once: by value, and then (a conversion that keeps order) by column."""
    rows, columns = matrix.shape
    order = np.argsort(matrix.data, kind="stable")
    entries = len(order)
    dealt = sparse.csr_array((order, matrix.indices[order], np.arange(entries + 1)), shape=(entries, columns)).tocsc()
    at, stored = dealt.data, np.diff(dealt.indptr)
    column = np.repeat(np.arange(columns), stored)
    row = np.repeat(np.arange(rows), np.diff(matrix.indptr))[at]
    value = matrix.data[at]
    fresh = np.ones(entries, dtype=np.bool_)
    fresh[1:] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
    starts = np.flatnonzero(fresh)
    run, length = np.cumsum(fresh) - 1, np.diff(starts, append=entries)
    run_column, positive = column[starts], value[starts] > 0
    negatives = np.bincount(run_column, weights=length * ~positive, minlength=columns).astype(np.int64)
    zeros = rows - stored
    zero = negatives + (zeros + 1) / 2
    midrank = starts - dealt.indptr[run_column] + (length + 1) / 2 + zeros[run_column] * positive
    shared = length.astype(np.float64)
    ties = np.bincount(run_column, weights=shared**3 - shared, minlength=columns) + zeros.astype(np.float64) ** 3 - zeros
    return Ranked(rows, column, row, (midrank - zero[run_column])[run], zero, ties, run, run_column, positive, negatives)


def _sums(found: Ranked, group_of: Ints, groups: int) -> Floats:
    """Rank sums: groups by columns."""
    key = group_of[found.row] * found.columns + found.column
    above = np.bincount(key, weights=found.above, minlength=groups * found.columns).reshape(groups, found.columns)
    return above + np.bincount(group_of, minlength=groups)[:, None] * found.zero


# --- two groups ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sided:
    """A rank test of two groups, by column. `u` counts pairs in which the first is higher, ties by half."""

    u: Floats
    p: Floats


def mann_whitney(found: Ranked, first: npt.NDArray[np.bool_]) -> Sided:
    """Two-sided; exact where the ways to deal out the labels can be counted, else normal with ties and continuity corrected."""
    a, n = int(first.sum()), found.rows
    u = _sums(found, (~first).astype(np.int64), 2)[0] - a * (a + 1) / 2
    if comb(n, a) <= EXACT:
        return Sided(u, _exact(found, first, u))
    variance = a * (n - a) / 12 * ((n + 1) - found.ties / (n * (n - 1)))
    return Sided(u, _two_sided(np.abs(u - a * (n - a) / 2) - 0.5, variance))


def _two_sided(beyond: Floats, variance: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, np.minimum(2.0 * ndtr(-beyond / np.sqrt(variance)), 1.0), 1.0)


def _exact(found: Ranked, first: npt.NDArray[np.bool_], u: Floats, block: int = 1024) -> Floats:
    """The share of all ways to deal out the labels that are at least as far from the middle."""
    a, n = int(first.sum()), found.rows
    ways = np.zeros((comb(n, a), n))
    chosen = np.array(list(combinations(range(n), a)))
    np.put_along_axis(ways, chosen, 1.0, axis=1)
    above = sparse.csr_array((found.above, (found.row, found.column)), shape=(n, found.columns)).tocsc()
    p = np.empty(found.columns)
    for start in range(0, found.columns, block):
        end = min(start + block, found.columns)
        dealt = ways @ above[:, start:end].toarray() + a * found.zero[start:end] - a * (a + 1) / 2
        far = np.abs(u[start:end] - a * (n - a) / 2)
        p[start:end] = (np.abs(dealt - a * (n - a) / 2) >= far - 1e-9).mean(axis=0)
    return p


def van_elteren(parts: Sequence[tuple[Ranked, npt.NDArray[np.bool_]]]) -> Floats:
    """The p of rank sums taken within strata and added, each with the weight 1 / (rows + 1)."""
    away, spread = np.zeros(parts[0][0].columns), np.zeros(parts[0][0].columns)
    for found, first in parts:
        a, n = int(first.sum()), found.rows
        if 0 < a < n:
            away += (_sums(found, (~first).astype(np.int64), 2)[0] - a * (n + 1) / 2) / (n + 1)
            spread += a * (n - a) / 12 * ((n + 1) - found.ties / (n * (n - 1))) / (n + 1) ** 2
    return _two_sided(np.abs(away), np.where(spread > 1e-12, spread, 0.0))


# --- the area under the curve -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """The chance that a row of the first group is higher than one of the second, ties by half, and its test against one half."""

    auroc: Floats
    low: Floats
    high: Floats
    t: Floats
    df: Floats
    p: Floats


def area(found: Ranked, first: npt.NDArray[np.bool_], clusters: tuple[Ints, Ints]) -> Area:
    """AUROC with DeLong's variance, summed over clusters (Obuchowski); the test is Brunner and Munzel's.

    Groups without any overlap leave no variance to divide by; their p is that of the one most extreme way to deal out the labels.
    """
    (a, base), (b, _) = (_placements(found, side, labels) for side, labels in ((first, clusters[0]), (~first, clusters[1])))
    auroc, variance = a.mean + base, a.variance + b.variance
    with np.errstate(divide="ignore", invalid="ignore"):
        share = a.variance / variance
        df = 1.0 / (share**2 / (a.clusters - 1) + (1.0 - share) ** 2 / (b.clusters - 1))
        t = np.where(variance > 0, (auroc - 0.5) / np.sqrt(variance), np.nan)
    apart = (variance == 0) & (np.abs(auroc - 0.5) > 0.5 - 1e-12)
    p = np.where(variance > 0, 2.0 * stdtr(df, -np.abs(t)), np.where(apart, 2 / comb(a.clusters + b.clusters, a.clusters), 1.0))
    reach = Z * np.sqrt(variance)
    return Area(auroc, np.maximum(auroc - reach, 0.0), np.minimum(auroc + reach, 1.0), t, df, p)


def _placements(found: Ranked, side: npt.NDArray[np.bool_], clusters: Ints) -> tuple[Moments, Floats]:
    """Each row's share of the other side that is below it, ties by half: moments, with the share of a zero taken off, and that share."""
    own = side[found.row]
    others, runs = found.rows - int(side.sum()), len(found.run_column)
    level = np.bincount(found.run, weights=~own, minlength=runs)
    zeros = others - np.bincount(found.column, weights=~own, minlength=found.columns)
    before = np.concatenate([[0.0], np.cumsum(level)])
    first_run = np.searchsorted(found.run_column, np.arange(found.columns))
    below = before[:-1] - before[first_run][found.run_column] + zeros[found.run_column] * found.positive
    negatives = np.bincount(found.run_column, weights=level * ~found.positive, minlength=found.columns)
    of_zero = (negatives + zeros / 2) / others
    values = ((below + level / 2) / others - of_zero[found.run_column])[found.run[own]]
    where = ((np.cumsum(side) - 1)[found.row[own]], found.column[own])
    matrix = sparse.csr_array((values, where), shape=(int(side.sum()), found.columns))
    return moments(matrix, clusters), of_zero


# --- several groups, and numbers ----------------------------------------------------------------------------------------


def kruskal(found: Ranked, group_of: Ints) -> tuple[Floats, Floats]:
    """H, corrected for ties, and its p by chi-squared. Where all values are equal, 0 and 1."""
    sizes, n = np.bincount(group_of), found.rows
    between = (_sums(found, group_of, len(sizes)) ** 2 / sizes[:, None]).sum(axis=0)
    shared = 1.0 - found.ties / (n**3 - n)
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.where(shared > 1e-12, (12 / (n * (n + 1)) * between - 3 * (n + 1)) / shared, 0.0)
    return h, chdtrc(len(sizes) - 1, np.maximum(h, 0.0))


def spearman(found: Ranked, numbers: Floats) -> Floats:
    """Pearson's r of midranks. NaN where all values are equal."""
    n = found.rows
    theirs = rankdata(numbers) - (n + 1) / 2
    together = np.bincount(found.column, weights=found.above * theirs[found.row], minlength=found.columns)
    spread = (float(n) ** 3 - n - found.ties) / 12
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 1e-9, together / np.sqrt(spread * (theirs**2).sum()), np.nan)
    return np.clip(r, -1.0, 1.0)
