"""The numbers of the samples' metadata, such as the balance, with which words are associated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.errors import DataError, choices, nearest
from toolkit_words.replies.log_odds import log_odds


def strongest(
    meta: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    samples: Sequence[str],
    present: Any,
    words: Any,
    prior: float,
) -> list[tuple[str, float] | None]:
    """For each word of `words`, the number most associated with it, and its z: the same log-odds as
    a feature's, where a number above its median is high. `present`: samples by all words.
    """
    sizes = np.asarray(present.sum(axis=1), float).ravel()
    chosen = present[:, words].astype(np.int64)
    counts = np.asarray(chosen.sum(axis=0)).ravel()
    strongest_of: list[tuple[str, float] | None] = [None] * len(words)
    for name in names:
        values = _values(meta, name, samples)
        high = values > np.median(values)
        if not high.any():
            continue
        both = np.asarray(chosen[high].sum(axis=0)).ravel()
        high_words = np.full(len(words), sizes[high].sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            _, z = log_odds(both, counts, high_words, float(sizes.sum()), prior)
        for index, value in enumerate(z.tolist()):
            best = strongest_of[index]
            if np.isfinite(value) and (best is None or abs(value) > abs(best[1])):
                strongest_of[index] = name, value
    return strongest_of


def _values(meta: Sequence[Mapping[str, Any]], name: str, samples: Sequence[str]) -> Any:
    of = {row["sample"]: row["number"] for row in meta if row["key"] == name}
    missing = next((sample for sample in samples if of.get(sample) is None), None)
    if missing is not None:
        known = sorted({row["key"] for row in meta if row["number"] is not None})
        raise DataError(
            f"covariates: sample '{missing}' has no number '{name}'.{nearest(name, known)} Numbers "
            f"of the samples: {choices(known) or '(none)'}."
        )
    return np.array([of[sample] for sample in samples], float)
