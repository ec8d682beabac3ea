"""Measures how well descriptions of features agree, for all features of a space at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, stats

from toolkit.features.agreement import polarity
from toolkit.statistics.arrays import Floats

Bags = Mapping[int, frozenset[str]]
"""By feature, the stems of a description."""
BLOCK = 2048
FEWEST = 5
"""The fewest features for a correlation."""


@dataclass(frozen=True)
class Agreements:
    """The agreement of the two descriptions of each feature, and over all features."""

    features: list[int]
    score: Floats
    baseline: Floats
    """The mean agreement of a feature's first description with the others' second."""
    p: Floats
    """The share of features whose second description agrees with the first at least as well."""
    mean: float
    shuffled: float
    """The mean under shuffles of which feature has which second description."""
    mean_p: float


def agreements(
    first: Bags, second: Bags, rng: np.random.Generator, count: int
) -> Agreements | None:
    """The agreements of the features that have both descriptions; None with fewer than two."""
    features = sorted(
        feature for feature in first if feature in second and first[feature] and second[feature]
    )
    if len(features) < 2:
        return None
    a, b = _unit_rows(
        [first[feature] for feature in features], [second[feature] for feature in features]
    )
    score = _rowwise(a, b)
    total, as_good = np.zeros(len(features)), np.zeros(len(features))
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        every = (a[rows] @ b.T).toarray()
        total[rows] = every.sum(axis=1)
        as_good[rows] = (every >= score[rows, None] - 1e-12).sum(axis=1)
    means = np.array([_rowwise(a, b[rng.permutation(len(features))]).mean() for _ in range(count)])
    return Agreements(
        features,
        score,
        (total - score) / (len(features) - 1),
        as_good / len(features),
        float(score.mean()),
        float(means.mean()),
        float((1 + (means >= score.mean() - 1e-12).sum()) / (1 + count)),
    )


def _unit_rows(first: Sequence[frozenset[str]], second: Sequence[frozenset[str]]) -> Any:
    """One row of length 1 per set, with a column per stem."""
    all_stems = sorted({stem for stems in (*first, *second) for stem in stems})
    column = {stem: index for index, stem in enumerate(all_stems)}
    made = []
    for sets in (first, second):
        where = [(row, column[stem]) for row, stems in enumerate(sets) for stem in sorted(stems)]
        rows, columns = np.array(where).T
        size = np.array([len(stems) for stems in sets], float)
        shape = (len(sets), len(all_stems))
        made.append(sparse.csr_array((1 / np.sqrt(size[rows]), (rows, columns)), shape=shape))
    return made


def _rowwise(a: Any, b: Any) -> Floats:
    return np.asarray(a.multiply(b).sum(axis=1), float).ravel()


@dataclass(frozen=True)
class RankCorrelation:
    """A rank correlation over features or samples, compared with shuffles."""

    r: float
    shuffled: float
    p: float
    n: int


def polarity_against_effects(
    bags: Bags,
    effects: Mapping[int, float],
    words: tuple[frozenset[str], frozenset[str]],
    rng: np.random.Generator,
    count: int,
) -> RankCorrelation | None:
    """Whether features whose description names an outcome raise it, and those that name others
    lower it. `words`: the stems that stand for the outcome, and for the others.
    """
    features = sorted(
        feature for feature in bags if feature in effects and bags[feature] & (words[0] | words[1])
    )
    side = np.array([polarity(bags[feature], *words) for feature in features])
    return rank_correlation(side, np.array([effects[feature] for feature in features]), rng, count)


def rank_correlation(
    x: Floats, y: Floats, rng: np.random.Generator, count: int
) -> RankCorrelation | None:
    """Spearman's r with a two-sided p from shuffles; None where it is undefined."""
    (correlation,) = rank_correlations(x[:, None], y, rng, count)
    return correlation


def rank_correlations(
    columns: Floats, y: Floats, rng: np.random.Generator, count: int
) -> list[RankCorrelation | None]:
    """The same for each column; the shuffles of y are the same for all of them."""
    results: list[RankCorrelation | None] = [None] * columns.shape[1]
    if len(y) < FEWEST or len(np.unique(y)) < 2:
        return results
    varying = np.flatnonzero(columns.min(axis=0) < columns.max(axis=0))
    a, (b,) = _centred_ranks(columns[:, varying].T), _centred_ranks(y[None, :])
    shuffled = np.stack([b[rng.permutation(len(b))] for _ in range(count)])
    for start in range(0, len(varying), BLOCK):
        rows = slice(start, start + BLOCK)
        observed, others = a[rows] @ b, np.abs(a[rows] @ shuffled.T)
        as_large = (others >= np.abs(observed)[:, None] - 1e-12).sum(axis=1)
        for offset, column in enumerate(varying[rows].tolist()):
            results[column] = RankCorrelation(
                float(observed[offset]),
                float(others[offset].mean()),
                float((1 + as_large[offset]) / (1 + count)),
                len(y),
            )
    return results


def _centred_ranks(rows: Floats) -> Floats:
    """The ranks within each row, with mean 0 and length 1."""
    ranks = stats.rankdata(rows, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    lengths: Floats = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / lengths)
