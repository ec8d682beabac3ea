"""Turn rows of `activations` into postings: the same entries, sorted by feature instead of by
sample. Rows are read twice, in batches. The first pass numbers the samples; in the second, each
entry becomes a 64-bit key (feature, sample, position, from the highest bits down) and a value,
written to one scratch file per space. Then each space is sorted on its own, so that memory does not
grow with the number of spaces; one with many entries is first divided into files by ranges of
features, which are sorted one after the other. An entry that two stages have kept is kept once,
with the larger value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BLOCK = 65_536
"""The most entries in a block of postings, and the most features in a block of `feature_index`."""
LAYOUT = "1"
"""Version of the derived layout; postings of another version are derived again."""

_FEATURE_BITS, _BLOCK_BITS = 24, 16
LAST_BLOCK = (1 << _BLOCK_BITS) - 1
"""The highest number that a block of a feature may have."""


def number_key(cover: Iterable[str]) -> str:
    """The key of the step that numbers the samples of these activation steps."""
    text = json.dumps(["toolkit postings", LAYOUT, sorted(cover)])
    return f"index:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def space_key(number_key: str, space: str) -> str:
    """The key of the step that derives the postings of one space."""
    return f"{number_key}:{space}"


def lookup_number(step: str, feature: int, block: int = 0) -> int:
    """The number by which a block of postings is looked up: from the high bits down a hash of the
    step, feature and block.

    Two steps may share a hash and wide spaces may wrap around, so a lookup also compares step and
    feature.
    """
    slot = int(hashlib.sha256(step.encode()).hexdigest()[:8], 16) >> 9
    return (
        (slot << (_FEATURE_BITS + _BLOCK_BITS))
        | (feature % (1 << _FEATURE_BITS) << _BLOCK_BITS)
        | block
    )


def lookup_range(step: str) -> tuple[int, int]:
    """The lowest and the highest number that the blocks of a step may have."""
    return lookup_number(step, 0), lookup_number(step, (1 << _FEATURE_BITS) - 1, LAST_BLOCK)


@dataclass
class Summary:
    """The rows of `feature_index` for a space, collected while its postings are made."""

    features: list[np.ndarray] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    fired: list[np.ndarray] = field(default_factory=list)
    maxima: list[np.ndarray] = field(default_factory=list)

    def rows(self, space: str, looked_at: int, samples: int) -> pa.Table:
        """The rows of `feature_index`: at least one, also for a space in which nothing fired."""
        import numpy as np
        import pyarrow as pa

        columns = {
            name: np.concatenate(getattr(self, name)) if self.features else np.empty(0)
            for name in ("features", "counts", "fired", "maxima")
        }
        blocks = range(max(-(-len(columns["features"]) // BLOCK), 1))
        lists = {
            name: [column[block * BLOCK :][:BLOCK] for block in blocks]
            for name, column in columns.items()
        }
        fixed = {
            "space": [space] * len(blocks),
            "block": list(blocks),
            "looked_at": [looked_at] * len(blocks),
        }
        return pa.table(
            {**fixed, "samples": [samples] * len(blocks), **lists},
            schema=arrow_schema("feature_index"),
        )


def posting_rows(
    step: str,
    space: str,
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    bits: tuple[int, int],
    summary: Summary,
) -> Iterator[pa.Table]:
    """The rows of `postings` of a space; adds to `summary` on the way."""
    for chunk in chunks:
        if len(chunk[0]):
            yield _blocks(step, space, *chunk, bits, summary)
        del chunk  # frees it before the next one is sorted


def _blocks(
    step: str,
    space: str,
    keys: np.ndarray,
    values: np.ndarray,
    bits: tuple[int, int],
    summary: Summary,
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    sample_bits, position_bits = bits
    features = (keys >> np.uint64(sample_bits + position_bits)).astype(np.uint32)
    index = keys >> np.uint64(position_bits)
    samples = (index & np.uint64((1 << sample_bits) - 1)).astype(np.uint32)
    positions = (keys & np.uint64((1 << position_bits) - 1)).astype(np.int32)
    begins = np.concatenate(([True], index[1:] != index[:-1]))  # of a sample
    firsts = np.flatnonzero(np.concatenate(([True], features[1:] != features[:-1])))
    starts, blocks = _cut(firsts, len(keys))
    ends = np.append(starts, len(keys))
    summary.features.append(features[firsts])
    summary.counts.append(np.diff(np.append(firsts, len(keys))).astype(np.uint64))
    summary.fired.append(np.add.reduceat(begins, firsts, dtype=np.uint32))
    summary.maxima.append(np.maximum.reduceat(values, firsts))
    base = np.int64(lookup_range(step)[0])
    wrapped = features[starts].astype(np.int64) & np.int64((1 << _FEATURE_BITS) - 1)
    columns: dict[str, Any] = {
        "space": pa.repeat(pa.scalar(space), len(starts)),
        "feature": features[starts],
        "block": blocks,
        "place": base | (wrapped << _BLOCK_BITS) | blocks.astype(np.int64),
        "count": np.diff(ends).astype(np.uint32),
        "fired": np.add.reduceat(begins, starts, dtype=np.uint32),
        "max": np.maximum.reduceat(values, starts),
    }
    schema = arrow_schema("postings")
    for name, flat in (("samples", samples), ("positions", positions), ("values", values)):
        columns[name] = pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), pa.array(flat), type=schema.field(name).type
        )
    return pa.table(columns, schema=schema)


def _cut(firsts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where blocks start, and the number of each within its feature."""
    import numpy as np

    lengths = np.diff(np.append(firsts, size))
    counts = -(-lengths // BLOCK)
    blocks = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(firsts, counts) + blocks * BLOCK, blocks.astype(np.uint32)
