"""How sparse columns rise with an ordinal label: correlations, means by label, separation, thresholds and what exceeds them.

Needs NumPy and SciPy. Rows are samples; zeros are not stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr
from scipy.stats import rankdata

from ._auroc import column_ranks

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHARE = 0.95
"""Of the lowest label's samples lie at or below the threshold."""


@dataclass(frozen=True)
class Ordinal:
    """What is known of each column; NaN where it is undefined. `means`: a row a label, in order."""

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


def describe(matrix: Any, label: Floats, labels: Floats, threshold: Floats | None = None) -> Ordinal:
    """Every statistic of every column. `threshold`: taken from elsewhere, instead of from these samples' lowest label."""
    columns = matrix.tocsc()
    means = np.stack([_mean(matrix, label == one) for one in labels])
    spread = np.sqrt(_squares(columns) / len(label))
    own = quantile(matrix[np.flatnonzero(label == labels[0])].tocsc(), SHARE) if threshold is None else threshold
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = np.where(spread > 0, (means[-1] - means[0]) / spread, np.nan)
    return Ordinal(
        _pearson(columns, label),
        _spearman(columns, label),
        means,
        spread,
        separation,
        own,
        exceeding(matrix[np.flatnonzero(label == labels[-1])].tocsc(), own),
        exceeding(matrix[np.flatnonzero(label == labels[0])].tocsc(), own),
    )


def varying(matrix: Any) -> Ints:
    """The columns that are not constant."""
    return np.flatnonzero(_squares(matrix.tocsc()) > 0)


def _owners(columns: Any) -> Ints:
    return np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))


def _mean(matrix: Any, rows: Bools) -> Floats:
    if not rows.any():
        return np.full(matrix.shape[1], np.nan)
    own = matrix[np.flatnonzero(rows)]
    return np.asarray(np.bincount(own.indices, weights=own.data, minlength=matrix.shape[1]) / rows.sum())


def _squares(columns: Any) -> Floats:
    """The sum of squared deviations from the mean, by column."""
    rows, count = columns.shape
    owner, stored = _owners(columns), np.diff(columns.indptr)
    mean = np.bincount(owner, weights=columns.data, minlength=count) / rows
    deviations = np.bincount(owner, weights=(columns.data - mean[owner]) ** 2, minlength=count)
    found = deviations + (rows - stored) * mean**2
    return np.where(found > rows * (1e-12 * mean) ** 2, found, 0.0)


def _pearson(columns: Any, label: Floats) -> Floats:
    centred = label - label.mean()
    owner = _owners(columns)
    together = np.bincount(owner, weights=columns.data * centred[columns.indices], minlength=columns.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.clip(together / np.sqrt(_squares(columns) * (centred**2).sum()), -1, 1))


def _spearman(columns: Any, label: Floats) -> Floats:
    rows, count = columns.shape
    rank, silent = column_ranks(columns)
    own = rankdata(label) - (rows + 1) / 2.0
    owner, zeros = _owners(columns), rows - np.diff(columns.indptr)
    rank, silent = rank - (rows + 1) / 2.0, silent - (rows + 1) / 2.0
    of_stored = np.bincount(owner, weights=own[columns.indices], minlength=count)
    together = np.bincount(owner, weights=rank * own[columns.indices], minlength=count) - silent * of_stored
    squares = np.bincount(owner, weights=rank**2, minlength=count) + zeros * silent**2
    with np.errstate(divide="ignore", invalid="ignore"):
        found = together / np.sqrt(squares * (own**2).sum())
    return np.asarray(np.where(squares > 0, np.clip(found, -1, 1), np.nan))


def quantile(columns: Any, share: float) -> Floats:
    """The quantile of each column, zeros included, between neighbours as numpy.percentile has it."""
    rows, count = columns.shape
    place = share * (rows - 1)
    low, high = int(np.floor(place)), int(np.ceil(place))
    owner = _owners(columns)
    data = columns.data[np.lexsort((columns.data, owner))]
    below = np.bincount(owner, weights=columns.data < 0, minlength=count).astype(np.int64)
    silent = rows - np.diff(columns.indptr)

    def at(rank: int) -> Floats:
        inside = np.where(rank < below, rank, rank - silent)
        where = np.clip(columns.indptr[:-1] + inside, 0, max(len(data) - 1, 0))
        zero = (rank >= below) & (rank < below + silent)
        return np.where(zero, 0.0, data[where] if len(data) else 0.0)

    first, second = at(low), at(high)
    return np.asarray(first + (place - low) * (second - first))


def exceeding(columns: Any, threshold: Floats) -> Floats:
    """The share of each column's values above its threshold."""
    rows, count = columns.shape
    if not rows:
        return np.full(count, np.nan)
    owner = _owners(columns)
    stored = np.bincount(owner, weights=columns.data > threshold[owner], minlength=count)
    silent = np.where(threshold < 0, rows - np.diff(columns.indptr), 0)
    return np.asarray((stored + silent) / rows)


def slope_test(matrix: Any, label: Floats, cluster: Ints) -> Floats:
    """The p of each column's linear rise with the label: t with clusters minus 2 degrees of freedom, variance from cluster sums.

    A column without spread has p = 1.
    """
    rows, count = matrix.shape
    centred = label - label.mean()
    size = float((centred**2).sum())
    groups = int(cluster.max()) + 1
    mean = np.bincount(matrix.indices, weights=matrix.data, minlength=count) / rows
    weighted = matrix.multiply(centred[:, None]).tocsr()
    slope = np.bincount(weighted.indices, weights=weighted.data, minlength=count) / size
    sums = _by_cluster(weighted, cluster, groups)
    a = np.bincount(cluster, weights=centred, minlength=groups)
    b = np.bincount(cluster, weights=centred**2, minlength=groups)
    cluster_of = np.repeat(np.arange(groups), np.diff(sums.indptr))
    expected = mean[sums.indices] * a[cluster_of] + slope[sums.indices] * b[cluster_of]
    stored = np.bincount(sums.indices, weights=(sums.data - expected) ** 2 - expected**2, minlength=count)
    silent = mean**2 * (a**2).sum() + 2 * mean * slope * (a * b).sum() + slope**2 * (b**2).sum()
    variance = groups / (groups - 2) * np.maximum(stored + silent, 0.0) / size**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = slope / np.sqrt(variance)
    flat = _squares(matrix.tocsc()) <= 0
    certain = (variance <= 1e-24 * slope**2) & ~flat
    return np.where(flat, 1.0, np.where(certain, 0.0, 2.0 * stdtr(groups - 2, -np.abs(np.nan_to_num(t)))))


def _by_cluster(matrix: Any, cluster: Ints, groups: int) -> Any:
    from scipy import sparse

    member = sparse.csr_array((np.ones(len(cluster)), (cluster, np.arange(len(cluster)))), shape=(groups, len(cluster)))
    return (member @ matrix).tocsr()


def bounded(separation: Floats) -> Floats:
    """A separation as a correlation: s / sqrt(s² + 4), which lies between -1 and 1 and so cannot outweigh the rest of a score."""
    return np.asarray(separation / np.sqrt(separation**2 + 4.0))
