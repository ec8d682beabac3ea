"""The area under the ROC curve, from ranks over sparse columns, with its interval and its test.
Imported when a step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import stdtr

from toolkit.statistics.arrays import Bools, Floats, Ints
from toolkit_stats.math.means import Moments, Spreads, Z, moments, moments_of, unpooled
from toolkit_stats.math.rank_sums import ways
from toolkit_stats.math.ranks import Ranked


@dataclass(frozen=True)
class Interval:
    """The chance that a row of the first group is higher than one of the second (a tie counts
    half), with its 95 % interval.

    `variance` and `df` are of the difference of the groups' placements.
    """

    auroc: Floats
    low: Floats
    high: Floats
    variance: Floats
    df: Floats


@dataclass(frozen=True)
class Area:
    """The same, and its test against one half."""

    auroc: Floats
    low: Floats
    high: Floats
    t: Floats
    df: Floats
    p: Floats


def interval(
    ranked: Ranked, in_first: Bools, clusters: tuple[Ints, Ints], spread: Spreads = "guarded"
) -> Interval:
    """AUROC with DeLong's variance, summed over clusters (Obuchowski). Where nothing differs,
    placements are spread evenly and have short tails; guarded, the degrees of freedom are therefore
    at most those of the smaller group.
    """
    (a, base), (b, _) = (
        _placements(ranked, side, labels)
        for side, labels in ((in_first, clusters[0]), (~in_first, clusters[1]))
    )
    variance, df = unpooled(a, b, spread)
    if spread == "guarded":
        df = np.minimum(df, min(a.clusters, b.clusters) - 1.0)
    auroc, reach = a.mean + base, Z * np.sqrt(variance)
    return Interval(
        auroc, np.maximum(auroc - reach, 0.0), np.minimum(auroc + reach, 1.0), variance, df
    )


def area(
    ranked: Ranked, in_first: Bools, clusters: tuple[Ints, Ints], spread: Spreads = "guarded"
) -> Area:
    """AUROC and Brunner and Munzel's test.

    Groups without any overlap leave no variance to divide by; their p is that of the single most
    extreme assignment of the labels.
    """
    known = interval(ranked, in_first, clusters, spread)
    counts = [int(codes.max()) + 1 for codes in clusters]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(known.variance > 0, (known.auroc - 0.5) / np.sqrt(known.variance), np.nan)
    apart = (known.variance == 0) & (np.abs(known.auroc - 0.5) > 0.5 - 1e-12)
    certain = np.where(apart, 2 / ways(sum(counts), counts[0]), 1.0)
    p = np.where(known.variance > 0, 2.0 * stdtr(known.df, -np.abs(t)), certain)
    return Area(known.auroc, known.low, known.high, t, known.df, p)


def _placements(
    ranked: Ranked, side: npt.NDArray[np.bool_], clusters: Ints
) -> tuple[Moments, Floats]:
    """Each row's share of the other side that is below it (a tie counts half): moments, with the
    share of a zero taken off, and that share.
    """
    members, others = side[ranked.row], ranked.rows - int(side.sum())
    before = np.concatenate(
        [[0.0], np.cumsum(~members)]
    )  # entries of the other side before each entry
    of_column = before[np.concatenate([[0], ranked.ends])]
    zeros = others - np.diff(of_column)
    run_ends = np.append(ranked.starts[1:], len(members))
    negatives = (
        before[np.append(ranked.starts, len(members))[_first_run(ranked) + ranked.negatives]]
        - of_column[:-1]
    )
    below = (before[ranked.starts] + before[run_ends]) / 2 - (of_column[:-1] - zeros)[
        ranked.run_column
    ]
    of_zero = negatives + zeros / 2
    number = np.arange(len(ranked.starts))
    if ranked.negatives.any():
        below -= zeros[ranked.run_column] * (
            number < (_first_run(ranked) + ranked.negatives)[ranked.run_column]
        )
    values = ranked.of_entries((below - of_zero[ranked.run_column]) / others)[members]
    rows, column = int(side.sum()), ranked.column[members]
    if rows == int(clusters.max()) + 1:
        return moments_of(column, values, rows, ranked.columns), of_zero / others
    where = ((np.cumsum(side) - 1)[ranked.row[members]], column)
    return moments(
        sparse.csr_array((values, where), shape=(rows, ranked.columns)), clusters
    ), of_zero / others


def _first_run(ranked: Ranked) -> Ints:
    """The number of each column's first run."""
    return np.searchsorted(ranked.run_column, np.arange(ranked.columns))
