"""Log-odds of words with an informative Dirichlet prior, and an exact test of each.

The effect is that of Monroe, Colaresi and Quinn (2008). For a word, `y_i` is how often it occurs in
corpus i, `n_i` how many words that corpus has, `a` the word's prior count and `A` the sum of all
prior counts, which are distributed like the words of both corpora together:

delta = log((y_i + a) / (n_i + A - y_i - a)) - log((y_j + a) / (n_j + A - y_j - a)) z     = delta /
sqrt(1 / (y_i + a) + 1 / (y_j + a))

z treats each word as an independent draw and is overconfident where counts are small, so it only
ranks. Evidence comes from clusters: of N clusters K have the word, the feature is high in m, and y
have both. If word and feature have nothing to do with each other, y is hypergeometric, whatever the
margins are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.statistics.arrays import Floats, Ints


@dataclass(frozen=True)
class PairCounts:
    """Counts of each pair of feature and word: clusters with both, and the margins."""

    both: Ints
    """(features, words): clusters where the feature is high that have the word."""
    high: Ints
    """(features,): clusters where the feature is high."""
    words: Ints
    """(words,): clusters that have the word."""
    clusters: int

    def score(self) -> Floats:
        """(features, words): how many standard deviations `both` lies from its expectation; 0 where
        it cannot vary.
        """
        n = float(self.clusters)
        m, k = self.high.astype(float), self.words.astype(float)
        spread = np.outer(np.sqrt(m * (n - m)), np.sqrt(k * (n - k)))
        spread /= n * max(n - 1, 1.0) ** 0.5
        deviation = self.both - np.outer(m / n, k)
        scores: Floats = np.divide(
            deviation, spread, out=np.zeros_like(deviation), where=spread > 0
        )
        return scores


def count(high: Any, present: Any) -> PairCounts:
    """The counts from two sparse matrices of 0 and 1: clusters by features, and clusters by
    words.
    """
    both = (high.T @ present).toarray()
    return PairCounts(
        both,
        np.asarray(high.sum(axis=0)).ravel().astype(np.int64),
        np.asarray(present.sum(axis=0)).ravel().astype(np.int64),
        int(present.shape[0]),
    )


def log_odds(
    both: npt.ArrayLike,
    words: npt.ArrayLike,
    first_total: npt.ArrayLike,
    total: float,
    prior: float,
) -> tuple[Floats, Floats]:
    """delta and z of each word: `both` of its `words` occurrences are in the first corpus, which
    has `first_total` of all `total` words.
    """
    y_i = np.asarray(both, np.float64)
    y_j = np.asarray(words, np.float64) - y_i
    n_i = np.asarray(first_total, np.float64)
    n_j = total - n_i
    a = prior * np.asarray(words, np.float64) / total
    delta = np.log((y_i + a) / (n_i + prior - y_i - a))
    delta = delta - np.log((y_j + a) / (n_j + prior - y_j - a))
    return delta, delta / np.sqrt(1 / (y_i + a) + 1 / (y_j + a))


def exact_tails(both: Ints, high: Ints, words: Ints, clusters: int) -> tuple[Floats, Floats]:
    """P(Y >= y) and P(Y <= y) of the hypergeometric distribution, each pair by itself."""
    base = clusters + 1
    code = (both.astype(np.int64) * base + high) * base + words
    codes, back = np.unique(code, return_inverse=True)
    y, m, k = codes // base**2, codes // base % base, codes % base
    upper = _upper_tail(y, m, k, clusters)
    lower = _upper_tail(m - y, m, clusters - k, clusters)  # the fewest clusters with both
    return upper[back], lower[back]


def two_sided(upper: Floats, lower: Floats) -> Floats:
    """Twice the smaller tail."""
    doubled: Floats = np.minimum(2 * np.minimum(upper, lower), 1.0)
    return doubled


def _upper_tail(y: Ints, m: Ints, k: Ints, n: int) -> Floats:
    """Sum the terms from y upwards, each computed from the one before; past the mode they only
    decrease.
    """
    from scipy.special import gammaln

    def choose(a: npt.ArrayLike, b: npt.ArrayLike) -> Any:
        a, b = np.asarray(a, float), np.asarray(b, float)
        return gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)

    least = np.maximum(0, m + k - n)
    start = np.maximum(y, least)
    term = np.exp(choose(k, start) + choose(n - k, m - start) - choose(n, m))
    total, values = term.copy(), start.astype(float)
    mode = (m + 1.0) * (k + 1.0) / (n + 2.0)
    end = np.minimum(m, k)
    live = np.flatnonzero(values < end)
    while len(live):
        live_values = values[live]
        ratio = (
            (k[live] - live_values)
            * (m[live] - live_values)
            / ((live_values + 1) * (n - k[live] - m[live] + live_values + 1))
        )
        term[live] *= ratio
        values[live] += 1
        total[live] += term[live]
        more = (values[live] < mode[live]) | (term[live] > 1e-17 * total[live])
        live = live[(values[live] < end[live]) & more]
    return np.where(y <= least, 1.0, np.minimum(total, 1.0))
