"""Features of several SAEs at one site that do the same: each such set counts as one discovery.

Imported when a step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from toolkit.statistics.arrays import Floats, Ints

ALIKE = 0.95
"""Features of different SAEs whose activations correlate at least this much over the compared
samples count as one.
"""
BLOCK = 256
Entry = tuple[int, int]
Twin = tuple[int, str, int]
"""A feature, and the space and feature of the one that stands for it."""


def twins(
    facts: Sequence[Mapping[str, Any]],
    features: Sequence[Ints],
    order: Sequence[Floats],
    columns: Callable[[int], Any],
) -> list[list[Twin]]:
    """By space, the given features that duplicate a feature of another SAE at the same site.

    `order` is as in `same_as`; `columns` reads the activations of a space's given features, where a
    site needs them.
    """
    results: list[list[Twin]] = [[] for _ in facts]
    for site in _sites(facts):
        firing = [index for index in site if len(features[index])]
        if len(firing) < 2:
            continue
        alike = same_as([columns(index) for index in firing], [order[index] for index in firing])
        for (number, feature), (of_place, of_feature) in alike:
            index, of = firing[number], firing[of_place]
            results[index].append(
                (
                    int(features[index][feature]),
                    str(facts[of]["space"]),
                    int(features[of][of_feature]),
                )
            )
    return results


def _sites(facts: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Groups of spaces of several SAEs that read the same hookpoint of a model."""
    sites: dict[tuple[str, str, str], list[int]] = {}
    for index, fact in enumerate(facts):
        sites.setdefault((fact["model"], fact["revision"], fact["hookpoint"]), []).append(index)
    return [site for site in sites.values() if len(site) > 1]


def same_as(columns: Sequence[Any], order: Sequence[Floats]) -> list[tuple[Entry, Entry]]:
    """(a feature, the one that stands for it), each by the number of its SAE and of its column
    there.

    `order` has one column per feature: of features that are alike, the one whose column comes first
    by rows stands for the others.
    """
    owner = np.repeat(np.arange(len(columns)), [part.shape[1] for part in columns])
    within = np.concatenate([np.arange(part.shape[1]) for part in columns])
    label = _sets(*_alike(sparse.hstack(columns, format="csc"), owner), owner)
    group_of: dict[int, int] = {}
    for index in np.lexsort((within, owner, *np.concatenate(order, axis=1)[::-1])).tolist():
        group_of.setdefault(label[index], index)
    pairs = [(index, group_of[label[index]]) for index in range(len(owner))]
    return [
        ((int(owner[a]), int(within[a])), (int(owner[b]), int(within[b])))
        for a, b in pairs
        if a != b
    ]


def _sets(a: Ints, b: Ints, r: Floats, owner: Ints) -> list[int]:
    """The set of each feature: pairs join from the most alike on, but no set ever holds two
    features of one SAE.

    An SAE keeps its features apart, so two of them are two discoveries, however much a feature of
    another SAE is like both.
    """
    above, saes = list(range(len(owner))), [1 << int(a_root) for a_root in owner]

    def root(index: int) -> int:
        while above[index] != index:
            above[index] = index = above[above[index]]
        return index

    for index in np.lexsort((b, a, -r)).tolist():
        a_root, b_root = root(int(a[index])), root(int(b[index]))
        if a_root != b_root and not saes[a_root] & saes[b_root]:
            above[b_root] = a_root
            saes[a_root] |= saes[b_root]
    return [root(index) for index in range(len(owner))]


def _alike(matrix: Any, owner: Ints) -> tuple[Ints, Ints, Floats]:
    """Pairs of correlated columns of different owners, each once, and their r, rounded to nine
    decimals.
    """
    rows, count = matrix.shape
    mean = np.asarray(matrix.mean(axis=0))
    spread = np.sqrt(np.maximum(np.asarray((matrix**2).sum(axis=0)) - rows * mean**2, 0.0))
    edges: list[tuple[Ints, Ints, Floats]] = []
    for start in range(0, count, BLOCK):
        products = (matrix[:, start : start + BLOCK].T @ matrix).tocoo()
        a, b = products.row + start, products.col
        with np.errstate(divide="ignore", invalid="ignore"):
            r = (products.data - rows * mean[a] * mean[b]) / (spread[a] * spread[b])
        close = (owner[a] < owner[b]) & (r >= ALIKE)
        edges.append((a[close], b[close], np.round(r[close], 9)))
    a, b, r = (np.concatenate(part) for part in zip(*edges, strict=True))
    return a, b, r
