"""Features of several SAEs at one site that do the same: each such set is one discovery, not several.

Imported when a step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

Floats = npt.NDArray[np.float64]

ALIKE = 0.95
"""Features of different SAEs whose activations correlate by this much over the samples compared are taken for one."""
BLOCK = 256
Entry = tuple[int, int]


def same_as(columns: Sequence[Any], order: Sequence[Floats]) -> list[tuple[Entry, Entry]]:
    """(a feature, the one that stands for it), each by the number of its SAE and of its column there.

    `order` has a column a feature: of features that are alike, the one whose column comes first by rows stands for the others.
    """
    owner = np.repeat(np.arange(len(columns)), [part.shape[1] for part in columns])
    within = np.concatenate([np.arange(part.shape[1]) for part in columns])
    label = connected_components(_alike(sparse.hstack(columns, format="csc"), owner), directed=False)[1]
    rank = np.empty(len(owner), dtype=np.int64)
    rank[np.lexsort((within, owner, *np.concatenate(order, axis=1)[::-1]))] = np.arange(len(owner))
    first: dict[int, int] = {}
    for at in np.argsort(rank):
        first.setdefault(int(label[at]), int(at))
    pairs = [(at, first[int(label[at])]) for at in range(len(owner))]
    return [((int(owner[a]), int(within[a])), (int(owner[b]), int(within[b]))) for a, b in pairs if a != b]


def _alike(matrix: Any, owner: npt.NDArray[np.int64]) -> Any:
    """A graph with an edge between columns of different owners that correlate."""
    rows, count = matrix.shape
    mean = np.asarray(matrix.mean(axis=0))
    spread = np.sqrt(np.maximum(np.asarray((matrix**2).sum(axis=0)) - rows * mean**2, 0.0))
    edges: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for start in range(0, count, BLOCK):
        products = (matrix[:, start : start + BLOCK].T @ matrix).tocoo()
        a, b = products.row + start, products.col
        with np.errstate(divide="ignore", invalid="ignore"):
            r = (products.data - rows * mean[a] * mean[b]) / (spread[a] * spread[b])
        close = (owner[a] != owner[b]) & (r >= ALIKE)
        edges.append((a[close], b[close]))
    a, b = (np.concatenate(part) for part in zip(*edges, strict=True))
    return sparse.coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
