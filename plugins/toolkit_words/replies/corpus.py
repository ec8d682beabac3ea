"""Replies as words, and one reply for each independent cluster."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from toolkit.errors import DataError
from toolkit.statistics.halves import in_half, joined_by_state
from toolkit.statistics.randomness import generator

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ReplyCorpus:
    """Samples with their words: `counts` has one row per sample and one column per word."""

    samples: list[str]
    words: list[str]
    counts: Any

    @property
    def present(self) -> Any:
        """1 where a sample has a word."""
        return (self.counts > 0).astype(np.int32)

    def take(self, samples: Sequence[str]) -> ReplyCorpus:
        """Some of the samples, in this order."""
        row_of = {sample: index for index, sample in enumerate(self.samples)}
        return ReplyCorpus(
            list(samples), self.words, self.counts[[row_of[sample] for sample in samples]]
        )


def read_words(rows: Sequence[Row], span: str | None, min_length: int) -> ReplyCorpus:
    """The words of the samples that have the span; of whole texts where `span` is None."""
    texts = {row["sample"]: text for row in rows if (text := _text(row, span)) is not None}
    if not texts:
        raise DataError(_none_there(rows, span))
    counted = {sample: Counter(split(text, min_length)) for sample, text in texts.items()}
    words = sorted({word for counter in counted.values() for word in counter})
    column = {word: index for index, word in enumerate(words)}
    cells = [
        (row, column[word], number)
        for row, counter in enumerate(counted.values())
        for word, number in counter.items()
    ]
    if not cells:
        raise DataError(
            f"words: none of the {len(texts)} replies has a word of at least {min_length} letters "
            "or digits. Lower min_length, or look at the replies."
        )
    where, which, numbers = (np.array(part) for part in zip(*cells, strict=True))
    counts = sparse.csr_array((numbers, (where, which)), shape=(len(counted), len(words)))
    return ReplyCorpus(list(counted), words, counts)


def split(text: str, min_length: int) -> list[str]:
    """Words in lower case: runs of letters and digits of any script, without those that are too
    short.
    """
    return [word for word in re.findall(r"[^\W_]+", text.lower()) if len(word) >= min_length]


def _text(row: Row, span: str | None) -> str | None:
    if span is None:
        return str(row["text"])
    parts = [part for part in row["spans"] if part["name"] == span]
    if not parts:
        return None
    return " ".join("".join(row["pieces"][part["start"] : part["end"]]) for part in parts)


def _none_there(rows: Sequence[Row], span: str | None) -> str:
    if not rows:
        return "words: there are no samples, so there are no words. Give the stage samples."
    known = sorted({part["name"] for row in rows for part in row["spans"]})
    return (
        f"words: none of the {len(rows)} samples has a span '{span}'; spans: "
        f"{', '.join(known) or '(none)'}. Replies are there with `with_reply: true` of source "
        "`games`; `span: null` reads whole texts."
    )


def one_each(seed: int, rows: Sequence[Row], half: str, measured: frozenset[str]) -> list[str]:
    """One sample of each cluster in a half, drawn by the seed. Samples that share a unit or prompt,
    directly or through others, are one cluster.

    So a prompt that was answered a hundred times counts once.
    """
    measured_rows = [row for row in rows if row["sample"] in measured]
    in_this_half, _ = in_half(seed, measured_rows, half)
    of_half = [row for row in measured_rows if row["sample"] in in_this_half]
    unit_of = {row["sample"]: str(row["unit"]) for row in of_half}
    by_cluster: dict[str, list[str]] = {}
    for row in joined_by_state(of_half, unit_of):
        by_cluster.setdefault(row["cluster"], []).append(row["sample"])
    drawn = []
    for samples in by_cluster.values():
        ordered = sorted(samples)
        index = int(generator(seed, "words", ordered[0]).integers(len(ordered)))
        drawn.append(ordered[index])
    return sorted(drawn)
