"""A permutation test over clusters, a block of columns at a time. Imported when a step runs: it
needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.statistics.arrays import Bools, Floats

BLOCK, AT_ONCE = 1024, 512
"""Columns and shuffles processed together: their sums stay in the processor's caches."""
TIED = 1e-9
"""Values of the statistic with a smaller relative difference are equal up to rounding."""


def shuffles(
    in_first: Bools,
    count: int,
    strata: npt.NDArray[np.int64] | None,
    draw: Callable[[int], np.random.Generator],
) -> Bools:
    """Permutations of the labels, one per row: `count` random ones, or all of them where there are
    no more.
    """
    ways = comb(len(in_first), int(in_first.sum()))
    if strata is None and ways <= count + 1:
        every = np.zeros((ways, len(in_first)), dtype=np.bool_)
        np.put_along_axis(
            every,
            np.array(list(combinations(range(len(in_first)), int(in_first.sum())))),
            True,
            axis=1,
        )
        others: Bools = every[(every != in_first).any(axis=1)]
        return others
    members = (
        [np.arange(len(in_first))]
        if strata is None
        else [np.flatnonzero(strata == stratum) for stratum in range(strata.max() + 1)]
    )
    dealt = np.empty((count, len(in_first)), dtype=np.bool_)
    for number in range(count):
        rng = draw(number)
        for indices in members:
            dealt[number, indices] = in_first[rng.permutation(indices)]
    return dealt


def permuted(matrix: Any, in_first: Bools, dealt: Bools) -> tuple[Floats, Floats]:
    """Welch's t of rows that are exchangeable, and p: the share of labellings, this one included,
    with a t as far from zero.
    """
    columns = matrix.tocsc()
    t, p = np.empty(matrix.shape[1]), np.empty(matrix.shape[1])
    for start in range(0, len(p), BLOCK):
        block = columns[:, start : start + BLOCK]
        columns_of_block = slice(start, start + block.shape[1])
        t[columns_of_block], p[columns_of_block] = _block(block.T.tocsr(), in_first, dealt)
    return t, p


def _block(block: Any, in_first: Bools, dealt: Bools) -> tuple[Floats, Floats]:
    squared = block.copy()
    squared.data = squared.data**2
    totals = np.asarray(block.sum(axis=1)), np.asarray(squared.sum(axis=1))
    t = _t(block, squared, totals, in_first[None])[:, 0]
    least = np.abs(t) * (1.0 - TIED)
    hits = np.zeros(len(t))
    for index in range(0, len(dealt), AT_ONCE):
        statistics = np.abs(_t(block, squared, totals, dealt[index : index + AT_ONCE]))
        hits += (statistics >= least[:, None]).sum(axis=1)
    return t, np.where(np.isnan(t), 1.0, (1 + hits) / (1 + len(dealt)))


def _t(block: Any, squared: Any, totals: tuple[Floats, Floats], dealt: Bools) -> Floats:
    """t by column and labelling. Where neither group varies, infinite if the means differ, else
    undefined.
    """
    labels = np.ascontiguousarray(dealt.T, dtype=np.float64)
    a, b = int(dealt[0].sum()), dealt.shape[1] - int(dealt[0].sum())
    sums, squares = block @ labels, squared @ labels
    others, other_squares = totals[0][:, None] - sums, totals[1][:, None] - squares
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = _variance(sums, squares, a) + _variance(others, other_squares, b)
        statistics: Floats = (sums / a - others / b) / np.sqrt(variance)
    return statistics


def _variance(sums: Floats, squares: Floats, count: int) -> Floats:
    """The variance of the mean; rounding error of a constant is zero."""
    spread = squares - sums**2 / count
    return np.where(spread > 1e-12 * squares, spread, 0.0) / (count * (count - 1))
