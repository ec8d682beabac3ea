"""TF-IDF as the study published it: no test, no correction, and a median split that fails for
sparse features.

Samples are split at the median of a feature, those at the median counted as high. Words whose
relative frequencies differ by more than 0.01 are listed, at most 20 each way; tf is the frequency
in the high half, idf the log of (features / features that list the word), and a word counts that at
least two features list. Where the median is 0 every sample is high and there is nothing to compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

MIN_DIFFERENCE, LISTED = 0.01, 20
BLOCK = 2048
"""Features per product."""


@dataclass(frozen=True)
class ListedWords:
    """The listed words, one entry for each pair of feature (column) and word."""

    column: npt.NDArray[np.int64]
    word: npt.NDArray[np.int64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high_samples: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    split: int
    """Features that the median splits."""


def published(matrix: Any, counts: Any) -> ListedWords:
    """From activations (samples by features) and counts of words (samples by words)."""
    samples, features = matrix.shape
    dense = np.flatnonzero(np.diff(matrix.tocsc().indptr) > samples // 2)
    parts = [
        _listed(matrix[:, dense[start : start + BLOCK]], counts, dense[start : start + BLOCK])
        for start in range(0, len(dense), BLOCK)
    ]
    if not parts:
        none, numbers = np.empty(0, np.int64), np.empty(0)
        return ListedWords(none, none, numbers, numbers, none, numbers, 0)
    column, word, high, low, size = (np.concatenate(part) for part in zip(*parts, strict=True))
    listing = np.bincount(word, minlength=counts.shape[1])
    score = high * np.log(features / np.maximum(listing[word], 1))
    repeated = listing[word] >= 2
    column, word, high, low, size, score = (
        part[repeated] for part in (column, word, high, low, size, score)
    )
    return ListedWords(column, word, high, low, size, score, len(dense))


def _listed(matrix: Any, counts: Any, columns: Any) -> tuple[Any, ...]:
    values = matrix.toarray()
    high = (values >= np.median(values, axis=0)).astype(np.int32)
    both = np.asarray((sparse.csr_array(high.T) @ counts).toarray(), float)
    every = np.asarray(counts.sum(axis=0)).ravel()
    low = every - both
    with np.errstate(invalid="ignore"):
        shares = both / both.sum(axis=1, keepdims=True)
        others = low / low.sum(axis=1, keepdims=True)
    difference = np.nan_to_num(shares - others)
    order = np.argsort(difference, axis=1, kind="stable")
    ends = np.concatenate([order[:, :LISTED], order[:, LISTED:][:, -LISTED:]], axis=1)
    feature, entry = np.nonzero(np.abs(np.take_along_axis(difference, ends, 1)) > MIN_DIFFERENCE)
    word = ends[feature, entry]
    return (
        np.asarray(columns)[feature],
        word,
        shares[feature, word],
        others[feature, word],
        high.sum(axis=0)[feature].astype(np.int64),
    )
