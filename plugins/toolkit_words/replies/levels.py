"""In which samples a feature is high: where it fires, or above its median where it nearly always
fires.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from toolkit.arrays import Floats

DENSE = 0.5
"""A feature that fires in a larger share of samples is cut at its median."""


def cuts(matrix: Any) -> Floats:
    """The value above which each feature is high: 0, or the median of one that fires in more than
    half of the samples.
    """
    columns = matrix.tocsc()
    fired = np.diff(columns.indptr)
    found = np.zeros(matrix.shape[1])
    for at in np.flatnonzero(fired > DENSE * matrix.shape[0]):
        found[at] = np.median(columns[:, [at]].toarray())
    return found


def high(matrix: Any, cut: Floats) -> Any:
    """1 where a feature is above its cut: samples by features, sparse."""
    coo = matrix.tocoo()
    above = coo.data > cut[coo.col]
    given = (np.ones(int(above.sum()), np.int32), (coo.row[above], coo.col[above]))
    found = sparse.csr_array(given, shape=matrix.shape)
    below = np.flatnonzero(cut < 0)  # zeros are high there
    if len(below):
        columns = found.tolil()
        for at in below:
            columns[:, [at]] = (matrix[:, [at]].toarray() > cut[at]).astype(np.int32)
        found = columns.tocsr()
    return found
