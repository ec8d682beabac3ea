"""Linear classifiers on a stream: the difference of two groups' means, and a ridge probe whose
penalty is chosen on an inner split. Needs NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from toolkit.statistics.arrays import Bools, Floats, Ints
from toolkit_stats.math.auroc import auroc

STRENGTHS = (10.0, 1.0, 0.1, 0.01)
"""Ridge penalties tried, in units of the mean eigenvalue; the first of equally good ones is taken.
"""


def difference_of_means(x: Floats, row: Ints, positive: Bools) -> Floats:
    """The direction from one group's mean to the other's. `row` gives the row of `x` of each
    sample.
    """
    weights = np.zeros(len(x))
    np.add.at(weights, row, np.where(positive, 1.0 / positive.sum(), -1.0 / (~positive).sum()))
    direction: Floats = weights @ x
    return direction


def ridge(x: Floats, row: Ints, positive: Bools, strengths: Sequence[float]) -> list[Floats]:
    """Directions of least squares on labels of +1 and -1, both groups of equal weight, one for each
    penalty.

    Samples with equal rows and labels are one row with their weight, and the smaller side of the
    matrix is solved.
    """
    pairs, where = np.unique(np.column_stack([row, positive]), axis=0, return_inverse=True)
    share = np.bincount(
        where.ravel(), weights=np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())
    )
    rows, target = x[pairs[:, 0]], np.where(pairs[:, 1] == 1, 1.0, -1.0)
    mean = share @ rows
    spread = np.sqrt(share @ (rows - mean) ** 2)
    scale = np.where(spread > 1e-12 * np.abs(mean), 1.0 / np.where(spread > 0, spread, 1.0), 0.0)
    root = np.sqrt(share)[:, None]
    a, b = root * (rows - mean) * scale, root[:, 0] * target
    wide = a.shape[1] > a.shape[0]
    gram = a @ a.T if wide else a.T @ a
    unit = np.trace(gram) / len(gram) or 1.0
    results = []
    for strength in strengths:
        solved = cho_factor(gram + strength * unit * np.eye(len(gram)))
        results.append((a.T @ cho_solve(solved, b) if wide else cho_solve(solved, a.T @ b)) * scale)
    return results


def probe(x: Floats, row: Ints, positive: Bools, inner: Bools, cluster: Ints) -> Floats:
    """The ridge direction of the penalty that does best on the `inner` samples, fitted on the
    others and then on all.

    Both parts have samples of both groups.
    """
    best, highest = STRENGTHS[0], -1.0
    tried = ridge(x, row[~inner], positive[~inner], STRENGTHS)
    ones = np.zeros(int(inner.sum()), dtype=np.int64)
    for strength, direction in zip(STRENGTHS, tried, strict=True):
        value = auroc(x[row[inner]] @ direction, positive[inner], ones, cluster[inner]).value
        best, highest = (strength, value) if value > highest + 1e-12 else (best, highest)
    return ridge(x, row, positive, (best,))[0]
