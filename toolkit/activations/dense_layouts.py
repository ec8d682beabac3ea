"""Two layouts of dense archives that published pipelines use: fragments by features, one archive
per space; and tokens by features, one archive per sample and layer.

A fragment is the text of a sample up to and including one of its tokens. The sink `npz` and
`toolkit store export` write both layouts with these functions.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.files.archives import Member, dense, texts, whole

_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._ -]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9_-]")


@dataclass(frozen=True)
class SparseRows:
    """Sparse rows as flat arrays: row i has the entries from `ends[i]` up to `ends[i + 1]`."""

    ends: Any
    features: Any
    values: Any

    def __len__(self) -> int:
        return len(self.ends) - 1

    def fill(self, first: int, last: int, block: Any, block_rows: Any = None) -> None:
        """Write rows `first` to `last` into a block: consecutively, or at `block_rows`."""
        import numpy as np

        part = slice(self.ends[first], self.ends[last])
        counts = np.diff(self.ends[first : last + 1])
        rows = np.arange(last - first) if block_rows is None else block_rows
        block[np.repeat(rows, counts), self.features[part]] = self.values[part]

    def take(self, first: int, last: int) -> SparseRows:
        """The rows `first` to `last`."""
        ends = self.ends[first : last + 1]
        part = slice(ends[0], ends[-1])
        return SparseRows(ends - ends[0], self.features[part], self.values[part])


@dataclass(frozen=True)
class Fragments:
    """The columns of a fragment archive other than its rows. Arrays have one value per row."""

    text: Callable[[int], str]
    """The fragment of a row."""
    longest: int
    """Characters of the longest fragment."""
    sentence: Callable[[int], str]
    """The whole text of which a row's fragment is the beginning."""
    longest_sentence: int
    labels: Any
    """The sentence's label; NaN without one."""
    numbers: Any
    """The sentence's number."""
    positions: Any
    """The position of the fragment's last token."""
    is_final: Any
    """Whether that is the sentence's last token."""
    words: Any
    """How many words the fragment has."""
    layer: int
    average_l0: float


def fragment_members(rows: SparseRows, width: int, fragments: Fragments) -> Iterator[Member]:
    """The arrays of a fragment archive."""
    import numpy as np

    yield dense("activations", len(rows), width, rows.fill)
    yield texts("fragments", len(rows), fragments.longest, fragments.text)
    yield texts("original_sentences", len(rows), fragments.longest_sentence, fragments.sentence)
    yield whole("concept_strength_labels", np.asarray(fragments.labels, np.float64))
    yield whole("sentence_indices", np.asarray(fragments.numbers, np.int64))
    yield whole("token_positions", np.asarray(fragments.positions, np.int64))
    yield whole("is_final_token", np.asarray(fragments.is_final, np.bool_))
    yield whole("fragment_lengths", np.asarray(fragments.words, np.int64))
    yield whole("layer", np.int64(fragments.layer))
    yield whole("average_l0", np.float64(fragments.average_l0))
    yield whole("num_features", np.int64(width))


def token_members(rows: SparseRows, width: int, positions: Any, tokens: int) -> Iterator[Member]:
    """The arrays of a token archive: row i is the token at `positions[i]`, which ascend. The
    rows of tokens without activations are NaN.
    """
    import numpy as np

    def fill(first: int, last: int, block: Any) -> None:
        start, end = np.searchsorted(positions, [first, last])
        rows_here = positions[start:end] - first
        block[:] = np.nan
        block[rows_here] = 0
        rows.fill(int(start), int(end), block, rows_here)

    yield dense("features", tokens, width, fill)
    yield whole("positions", np.asarray(positions, np.int64))


def folder_names(samples: Sequence[str]) -> dict[str, str]:
    """The folder of each sample: its id if that is a safe folder name and unique ignoring case;
    else a name made from a hash of the id.
    """
    seen = Counter(name.lower() for name in samples)
    return {
        name: name
        if _FOLDER.fullmatch(name) and seen[name.lower()] == 1
        else f"sample-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        for name in samples
    }


def scenario(
    folder: str, sample: Mapping[str, Any], aliases: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """How the metadata of token archives describes a sample, a row of table `samples`. `aliases`:
    further names under which the positions of a span are given.
    """
    positions: dict[str, list[int]] = {}
    for span in sample["spans"]:
        for name in {span["name"], (aliases or {}).get(span["name"], span["name"])}:
            positions.setdefault(name, []).extend(range(span["start"], span["end"]))
    return {
        "scenario": folder,
        "sample": dict(sample),
        "tokens": sample["pieces"],
        "token_ids": sample["token_ids"],
        "seq_len": len(sample["pieces"]),
        "key_positions": positions,
    }
