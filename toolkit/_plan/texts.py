"""Order samples by their tokens, so that a step computes equal texts once, or by their units, so
that no step splits a unit; and count the distinct texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.costs import Workload

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 8
"""The factor by which a step may grow to keep samples with equal tokens together."""


def by_text(samples: pa.Table) -> pa.Table:
    """The samples ordered by length, tokens and name, so that equal texts, and texts of similar
    length, share a step.
    """
    names = samples.column("sample").to_pylist()
    texts = _texts(samples)
    order = sorted(
        range(len(names)), key=lambda index: (len(texts[index]), texts[index], names[index])
    )
    return samples.take(order) if order else samples


def text_ranges(samples: pa.Table, size: int) -> list[tuple[int, int]]:
    """Ranges of about `size` samples in the order of `by_text`. A range ends where the tokens
    change, unless it grows too large.
    """
    return list(_ranges(_texts(samples), max(1, size)))


def _ranges(texts: Sequence[bytes], size: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(texts):
        end = min(start + size, len(texts))
        while end < len(texts) and texts[end] == texts[end - 1] and end - start < LARGEST * size:
            end += 1
        yield start, end
        start = end


def by_unit(samples: pa.Table) -> pa.Table:
    """The samples ordered by unit and name."""
    return samples.sort_by([("unit", "ascending"), ("sample", "ascending")])


def unit_ranges(samples: pa.Table, size: int) -> list[tuple[int, int]]:
    """Ranges of at least `size` samples in the order of `by_unit`, if there are enough. No unit is
    in two of them.
    """
    units = samples.column("unit").to_pylist()
    ends = [
        index
        for index in range(1, len(units) + 1)
        if index == len(units) or units[index] != units[index - 1]
    ]
    ranges: list[tuple[int, int]] = []
    start = 0
    for end in ends:
        if end - start >= size or end == len(units):
            ranges.append((start, end))
            start = end
    return ranges


def workload(samples: pa.Table, model: Any, saes: Any) -> Workload:
    """The workload of these samples, with the facts of the model and SAEs that run on them."""
    import pyarrow.compute as pc

    distinct = {text for text in _texts(samples) if text}
    lengths = [len(text) // 4 for text in distinct]
    return Workload(
        samples=len(samples),
        distinct=len(distinct),
        tokens=sum(lengths),
        longest=max(lengths, default=0),
        model=facts(model),
        saes=facts(saes),
        characters=pc.max(pc.utf8_length(samples.column("text"))).as_py() or 0,
    )


def facts(loadable: Any) -> dict[str, Any]:
    """The facts that a model or SAEs state before they are loaded."""
    return dict(loadable.identity.facts) if loadable else {}


def _texts(samples: pa.Table) -> list[bytes]:
    """The tokens of each sample, as bytes that compare like the tokens: big-endian."""
    import numpy as np

    column = samples.column("token_ids").combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    ids = column.flatten().to_numpy(zero_copy_only=False).astype(">u4").tobytes()
    ends = np.cumsum(lengths) * 4
    return [
        ids[end - 4 * length : end]
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]
