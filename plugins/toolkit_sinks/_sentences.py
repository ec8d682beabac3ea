"""The texts that accompany the rows of an archive: those of the samples, whole and up to each
token, their labels and their numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from toolkit.work import Inputs

    from ._entries import Entries

LABEL = "concept_strength_label"
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TextByTokens:
    """A sample's text, and the number of characters and of words up to each token's end."""

    text: str
    ends: Any
    words: Any

    def fragment(self, position: int) -> str:
        """The text up to and including a token, stripped of blanks."""
        return self.text[: self.ends[position]].strip()


class Sentences:
    """The samples of a run. A text is split when its first row is met; fragments are built row by
    row and not kept.
    """

    def __init__(self, inputs: Inputs, index: str | None = None) -> None:
        self._meta = (
            inputs.read("sample_meta").to_pylist() if "sample_meta" in inputs.tables() else []
        )
        self._samples: dict[str, dict[str, Any]] = {
            row["sample"]: row for row in inputs.read("samples").to_pylist()
        }
        self._labels = {
            row["sample"]: row["number"]
            for row in self._meta
            if row["key"] == LABEL and row["number"] is not None
        }
        self._numbers = (
            self._numbered(index)
            if index
            else {name: i for i, name in enumerate(sorted(self._samples))}
        )
        self._readings: dict[str, TextByTokens] = {}

    def names(self) -> list[str]:
        """All samples, in order."""
        return sorted(self._samples)

    def sample(self, name: str) -> Mapping[str, Any]:
        """A row of `samples`."""
        if name not in self._samples:
            raise DataError(
                f"sample '{name}' has activations, but table 'samples' of the run lacks it: its "
                "tokens are unknown."
            )
        return self._samples[name]

    def tokens(self, name: str) -> int:
        """How many tokens a sample has."""
        return len(self.sample(name)["pieces"])

    def reading(self, name: str) -> TextByTokens:
        """The text of a sample, by tokens."""
        if name not in self._readings:
            sample = self.sample(name)
            self._readings[name] = _reading(sample["text"], sample["pieces"])
        return self._readings[name]

    def label(self, name: str) -> float:
        """Its label; NaN without one."""
        return float(self._labels.get(name, math.nan))

    def number(self, name: str) -> int:
        """Its number among the sentences."""
        return self._numbers[name]

    def check(self, entries: Entries) -> None:
        """Refuse rows at tokens that their sample does not have."""
        ranges = entries.ranges()
        for index, name in enumerate(entries.names):
            last_position = int(entries.positions[ranges[index + 1] - 1])
            if last_position >= self.tokens(name):
                raise DataError(
                    f"sample '{name}' has activations at position {last_position}, but "
                    f"{self.tokens(name)} tokens in table 'samples', which this layout puts "
                    "with them. Use `layout: space`, or let the samples' source give `pieces`."
                )

    def _numbered(self, index: str) -> dict[str, int]:
        results = {row["sample"]: row["number"] for row in self._meta if row["key"] == index}
        for name in self._samples:
            number = results.get(name)
            if number is None or not float(number).is_integer():
                keys = sorted({row["key"] for row in self._meta})
                hint = "" if index in keys else nearest(index, keys)
                raise DataError(
                    f"index: sample '{name}' has no whole number under the metadata key "
                    f"'{index}'.{hint} Keys: {', '.join(keys) or 'none'}. Sources of texts keep a "
                    f"row's number with `row: {index}`."
                )
        return {name: int(results[name]) for name in self._samples}


# --- a text by its tokens -------------------------------------------------------------------------


def _reading(text: str, pieces: Sequence[str]) -> TextByTokens:
    import numpy as np

    ends = np.array(list(_ends(text, pieces)), dtype=np.int64)
    word_starts = np.array([word.start() for word in _WORD.finditer(text)], dtype=np.int64)
    return TextByTokens(text, ends, np.searchsorted(word_starts, ends))


def _ends(text: str, pieces: Sequence[str]) -> Iterator[int]:
    """Where each token's piece ends in the text; tokens that share a character all end after it."""
    begin = end = 0
    for piece, run in groupby(pieces):
        count, start = len(list(run)), _begin(text, piece, begin, end)
        if start is None:
            yield from [end] * count
            continue
        copies = _copies(text, piece, start, count)
        yield from (
            max(end, start + len(piece) * math.ceil((index + 1) * copies / count))
            for index in range(count)
        )
        begin, end = start + len(piece) * (copies - 1), max(end, start + len(piece) * copies)


def _begin(text: str, piece: str, begin: int, end: int) -> int | None:
    """Where a piece begins: at the end of the previous one, inside it (only multi-byte characters
    are shared), or after a gap.
    """
    if not piece or text.startswith(piece, end):
        return end if piece else None
    start = text.find(piece, end if piece[0].isascii() else begin)
    return None if start < 0 else start


def _copies(text: str, piece: str, begin: int, limit: int) -> int:
    """How many times the piece repeats from `begin` on."""
    count = 0
    while count < limit and text.startswith(piece, begin + count * len(piece)):
        count += 1
    return count
