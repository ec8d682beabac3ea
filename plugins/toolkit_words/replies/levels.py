"""In which samples a feature is high: where it fires, or above its median if it fires in more than
half of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from toolkit.statistics.arrays import Floats

DENSE = 0.5
"""A feature that fires in a larger share of samples is cut at its median."""


def cuts(matrix: Any) -> Floats:
    """The value above which each feature is high: 0, or the median of one that fires in more than
    half of the samples.
    """
    columns = matrix.tocsc()
    fired = np.diff(columns.indptr)
    results = np.zeros(matrix.shape[1])
    for column in np.flatnonzero(fired > DENSE * matrix.shape[0]):
        results[column] = np.median(columns[:, [column]].toarray())
    return results


def high(matrix: Any, cut: Floats) -> Any:
    """1 where a feature is above its cut: samples by features, sparse."""
    coo = matrix.tocoo()
    above = coo.data > cut[coo.col]
    entries = (np.ones(int(above.sum()), np.int32), (coo.row[above], coo.col[above]))
    result = sparse.csr_array(entries, shape=matrix.shape)
    below = np.flatnonzero(cut < 0)  # zeros are high there
    if len(below):
        columns = result.tolil()
        for column in below:
            columns[:, [column]] = (matrix[:, [column]].toarray() > cut[column]).astype(np.int32)
        result = columns.tocsr()
    return result
