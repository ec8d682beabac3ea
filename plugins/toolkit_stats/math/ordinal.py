"""How sparse columns rise with an ordinal label: correlations, means by label, separation,
thresholds and exceedance rates.

Needs NumPy and SciPy. Rows are samples; zeros are not stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.statistics.arrays import Bools, Floats, Ints
from toolkit_stats.math.means import merged, moments_of, pearson, slope
from toolkit_stats.math.ranks import ranked, spearman

SHARE = 0.95
"""The share of the lowest label's samples at or below the threshold."""


@dataclass(frozen=True)
class Ordinal:
    """The statistics of each column; NaN where undefined. `means` has one row per label, in
    order.
    """

    pearson: Floats
    spearman: Floats
    means: Floats
    spread: Floats
    separation: Floats
    threshold: Floats
    tpr: Floats
    fpr: Floats

    @property
    def rising(self) -> Bools:
        """Whether no label's mean is below that of the one before; undefined means do not rise."""
        with np.errstate(invalid="ignore"):
            return np.asarray((np.diff(self.means, axis=0) >= 0).all(axis=0))

    def score(self) -> Floats:
        """As published: 0.4 r + 0.3 separation + 0.3 (TPR - FPR)."""
        return 0.4 * self.pearson + 0.3 * self.separation + 0.3 * (self.tpr - self.fpr)


def describe(
    matrix: Any, label: Floats, labels: Floats, threshold: Floats | None = None
) -> Ordinal:
    """Every statistic of every column. `threshold`: taken from elsewhere, instead of from these
    samples' lowest label.
    """
    means = np.stack([_mean(matrix, label == level) for level in labels])
    spread = np.sqrt(_squares(matrix) / len(label))
    observed = (
        quantile(matrix[np.flatnonzero(label == labels[0])].tocsc(), SHARE)
        if threshold is None
        else threshold
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = np.where(spread > 0, (means[-1] - means[0]) / spread, np.nan)
    return Ordinal(
        pearson(matrix, label),
        spearman(ranked(matrix.tocsc()), label),
        means,
        spread,
        separation,
        observed,
        exceeding(matrix[np.flatnonzero(label == labels[-1])].tocsc(), observed),
        exceeding(matrix[np.flatnonzero(label == labels[0])].tocsc(), observed),
    )


def varying(matrix: Any) -> Ints:
    """The columns that are not constant."""
    return np.flatnonzero(_squares(matrix) > 0)


def _owners(columns: Any) -> Ints:
    return np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))


def _mean(matrix: Any, rows: Bools) -> Floats:
    if not rows.any():
        return np.full(matrix.shape[1], np.nan)
    selected = matrix[np.flatnonzero(rows)]
    return np.asarray(
        np.bincount(selected.indices, weights=selected.data, minlength=matrix.shape[1]) / rows.sum()
    )


def _squares(matrix: Any) -> Floats:
    """The sum of squared deviations from the mean, by column."""
    return moments_of(matrix.indices.astype(np.intp), matrix.data, *matrix.shape).squares


def quantile(columns: Any, share: float) -> Floats:
    """The quantile of each column, zeros included, interpolated as numpy.percentile does."""
    rows, count = columns.shape
    position = share * (rows - 1)
    low, high = int(np.floor(position)), int(np.ceil(position))
    owner = _owners(columns)
    data = columns.data[np.lexsort((columns.data, owner))]
    below = np.bincount(owner, weights=columns.data < 0, minlength=count).astype(np.int64)
    silent = rows - np.diff(columns.indptr)

    def values_at(rank: int) -> Floats:
        inside = np.where(rank < below, rank, rank - silent)
        where = np.clip(columns.indptr[:-1] + inside, 0, max(len(data) - 1, 0))
        zero = (rank >= below) & (rank < below + silent)
        return np.where(zero, 0.0, data[where] if len(data) else 0.0)

    lower, upper = values_at(low), values_at(high)
    return np.asarray(lower + (position - low) * (upper - lower))


def exceeding(columns: Any, threshold: Floats) -> Floats:
    """The share of each column's values above its threshold."""
    rows, count = columns.shape
    if not rows:
        return np.full(count, np.nan)
    owner = _owners(columns)
    stored = np.bincount(owner, weights=columns.data > threshold[owner], minlength=count)
    silent = np.where(threshold < 0, rows - np.diff(columns.indptr), 0)
    return np.asarray((stored + silent) / rows)


def trend_test(matrix: Any, label: Floats, cluster: Ints) -> Floats:
    """The p of each column's rise with the label: Pearson's t over the means of clusters, as in
    compare.correlation.

    A sandwich variance over clusters is too small in the far tail, on which a correction over many
    features depends. A column without spread has p = 1; one that lies on a line has the p of the
    most extreme assignment of the labels.
    """
    observed, of_cluster = (
        merged(matrix, cluster),
        np.bincount(cluster, weights=label) / np.bincount(cluster),
    )
    return slope(pearson(observed, of_cluster), of_cluster).p


def bounded(separation: Floats) -> Floats:
    """A separation as a correlation: s / sqrt(s² + 4), which lies between -1 and 1 and so cannot
    outweigh the rest of a score.
    """
    return np.asarray(separation / np.sqrt(separation**2 + 4.0))
