"""Ranks over sparse columns, the ties of the zeros included. Imported when a step runs: it needs
NumPy and SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.stats import rankdata

from toolkit.statistics.arrays import Floats, Ints


@dataclass(frozen=True, eq=False)
class Ranked:
    """Midranks of all rows, by column. Values that are not stored are zero and have the rank
    `zero`; `above` is the excess of stored ones over it.

    Entries are sorted by column and then by value. Entries of equal value in a column are a run;
    `starts` says where each begins.
    """

    rows: int
    ends: Ints  # where each column's entries end
    column: Ints
    row: Ints
    above: Floats
    zero: Floats
    ties: Floats  # the sum of t³ - t over values that t rows share
    starts: Ints
    run_column: Ints
    negatives: Ints  # runs below zero, by column: the first ones

    @property
    def columns(self) -> int:
        """The number of columns."""
        return len(self.zero)

    def of_entries(self, of_runs: Floats) -> Floats:
        """Expands a number per run to its entries."""
        return (
            np.repeat(of_runs, np.diff(self.starts, append=len(self.row)))
            if len(of_runs) < len(self.row)
            else of_runs
        )


def ranked(matrix: Any) -> Ranked:
    """Sort a CSC matrix's columns, all at once: by value, and then (a conversion that keeps order)
    by column.
    """
    rows, columns = matrix.shape
    order, stored = np.argsort(matrix.data), np.diff(matrix.indptr)
    ends, entries = matrix.indptr[1:].astype(np.int64), len(order)
    column = np.repeat(np.arange(columns), stored)
    entry = np.arange(entries + 1, dtype=matrix.indices.dtype)
    dealt = sparse.csr_array((order, column[order], entry), shape=(entries, columns)).tocsc()
    row, value = matrix.indices[dealt.data].astype(np.int64), matrix.data[dealt.data]
    fresh = np.ones(entries, dtype=np.bool_)
    np.not_equal(value[1:], value[:-1], out=fresh[1:])
    fresh[dealt.indptr[:-1][stored > 0]] = True
    starts = np.flatnonzero(fresh)
    length, run_column = np.diff(starts, append=entries).astype(np.float64), column[starts]
    below = value[starts] < 0
    negatives = np.bincount(run_column[below], minlength=columns)
    zeros = (rows - stored).astype(np.float64)
    # A stored value ranks above the zeros unless it is negative; a zero ranks above the negative
    # entries, at the mean rank of all zeros.
    beneath = np.bincount(run_column[below], weights=length[below], minlength=columns)
    base = ends - stored + beneath - zeros / 2 + 0.5
    above = starts + (length + 1) / 2 - base[run_column] - zeros[run_column] * below
    shared = length**3 - length
    ties = (
        (np.bincount(run_column, weights=shared, minlength=columns) if shared.any() else 0.0)
        + zeros**3
        - zeros
    )
    result = Ranked(
        rows,
        ends,
        column,
        row,
        above,
        beneath + (zeros + 1) / 2,
        ties,
        starts,
        run_column,
        negatives,
    )
    return replace(result, above=result.of_entries(above))


def rank_sum(ranked: Ranked, side: npt.NDArray[np.bool_]) -> Floats:
    """The sum of the ranks of some rows, by column."""
    above = np.bincount(
        ranked.column, weights=ranked.above * side[ranked.row], minlength=ranked.columns
    )
    return above + int(side.sum()) * ranked.zero


# --- several groups, and numbers ------------------------------------------------------------------


def spearman(ranked: Ranked, numbers: Floats) -> Floats:
    """Pearson's r of midranks. NaN where all values are equal."""
    n = ranked.rows
    theirs = rankdata(numbers) - (n + 1) / 2
    together = np.bincount(
        ranked.column, weights=ranked.above * theirs[ranked.row], minlength=ranked.columns
    )
    spread = (float(n) ** 3 - n - ranked.ties) / 12
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 1e-9, together / np.sqrt(spread * (theirs**2).sum()), np.nan)
    return np.clip(r, -1.0, 1.0)
