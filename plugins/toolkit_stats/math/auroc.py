"""AUROC and accuracy with intervals over clusters, within folds; and the AUROC of every sparse
column at once. Needs NumPy, SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtrit
from scipy.stats import rankdata

from toolkit.statistics.arrays import Bools, Floats, Ints
from toolkit_stats.math.ranks import ranked

TAIL = 0.025
"""The tail probability of a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def auroc(score: Floats, positive: Bools, fold: Ints, cluster: Ints) -> Estimate:
    """How often a positive outscores a negative of its own fold (ties count half), over all such
    pairs.

    Scores of different folds come from different fits and are never compared. The interval treats
    clusters as independent: its width comes from each cluster's influence on the ratio of won pairs
    to pairs, on the logit scale.
    """
    won, pairs = np.zeros(len(score)), np.zeros(len(score))
    for number in np.unique(fold):
        in_fold = np.flatnonzero(fold == number)
        won[in_fold], pairs[in_fold] = _pairs(score[in_fold], positive[in_fold])
    value = float(won[positive].sum() / pairs[positive].sum())
    pull = (won - value * pairs) / pairs[positive].sum()
    fewest = min(len(np.unique(cluster[positive])), len(np.unique(cluster[~positive])))
    return _estimate(value, pull, cluster, fewest)


def _pairs(score: Floats, positive: Bools) -> tuple[Floats, Floats]:
    """For each sample: pairs with samples of the other group in which the positive one scores
    higher, and all its pairs.
    """
    rank = rankdata(score)
    counts = np.empty(len(score))
    for side in (positive, ~positive):
        counts[side] = rankdata(score[side])
    below = rank - counts  # samples of the other group with lower scores, equal ones half
    others = np.where(positive, (~positive).sum(), positive.sum()).astype(np.float64)
    return np.where(positive, below, others - below), others


def accuracy(right: Bools, cluster: Ints) -> Estimate:
    """The share that is right, clusters independent."""
    value = float(right.mean())
    return _estimate(value, (right - value) / len(right), cluster, len(np.unique(cluster)))


def _estimate(value: float, pull: Floats, cluster: Ints, fewest: int) -> Estimate:
    """The estimate with its interval. Where nothing varies the linear interval has no width; the
    bound is then the exact one for this many clusters.
    """
    sums = np.bincount(cluster, weights=pull)
    count = len(np.unique(cluster))
    bound = TAIL ** (1.0 / fewest)
    if value >= 1.0 or value <= 0.0:
        return Estimate(value, bound if value >= 1.0 else 0.0, 1.0 if value >= 1.0 else 1.0 - bound)
    error = float(np.sqrt(count / (count - 1) * (sums**2).sum()))
    reach = -float(stdtrit(count - 1, TAIL)) * error / (value * (1.0 - value))
    return Estimate(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def column_aurocs(matrix: Any, positive: Bools) -> Floats:
    """The AUROC of each column of a sparse matrix."""
    ranks, positives = ranked(matrix.tocsc()), float(positive.sum())
    above = np.bincount(
        ranks.column, weights=ranks.above * positive[ranks.row], minlength=ranks.columns
    )
    area: Floats = (above + positives * ranks.zero - positives * (positives + 1) / 2.0) / (
        positives * (ranks.rows - positives)
    )
    return area
