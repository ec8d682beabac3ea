"""Tests whether features fire inside spans, against rotations of each text, and with attention to
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.arrays import Floats, Ints

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class KeptTexts:
    """The kept positions of all texts, concatenated; those of text t begin at `start[t]`."""

    names: list[str]
    start: Ints
    position: Ints

    @property
    def sizes(self) -> Ints:
        """How many positions of each text were kept."""
        return np.diff(self.start)


@dataclass(frozen=True)
class SpanEntries:
    """Activations of chosen features: index among the kept positions, column, and value."""

    features: Ints
    index: Ints
    column: Ints
    value: Floats


def read_entries(
    rows: pa.Table, samples: Sequence[str], features: Sequence[int]
) -> tuple[KeptTexts, SpanEntries]:
    """The rows of a space in these samples, in their order, and the entries of these features."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_requested = pc.index_in(rows["sample"], value_set=pa.array(samples, pa.string()))
    rows, number = (
        rows.filter(is_requested.is_valid()),
        is_requested.drop_null().to_numpy().astype(np.int64),
    )
    order = np.lexsort((rows["position"].to_numpy(), number))
    rows, number = rows.take(pa.array(order)), number[order]
    start = np.searchsorted(number, np.arange(len(samples) + 1))
    texts = KeptTexts(list(samples), start, rows["position"].to_numpy().astype(np.int64))
    lists = rows["features"].combine_chunks()
    row_of_entry = np.repeat(np.arange(len(rows)), np.diff(lists.offsets.to_numpy()))
    feature = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    value = rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(float)
    chosen = np.array(sorted(features), np.int64)
    column = np.searchsorted(chosen, feature)
    kept = (column < len(chosen)) & (value > 0)
    kept[kept] = chosen[column[kept]] == feature[kept]
    return texts, SpanEntries(chosen, row_of_entry[kept], column[kept], value[kept])


def inside(
    texts: KeptTexts, spans: Mapping[str, Sequence[tuple[int, int]]]
) -> npt.NDArray[np.bool_]:
    """Whether each kept position lies in one of its text's ranges."""
    is_inside = np.zeros(len(texts.position), bool)
    for text, name in enumerate(texts.names):
        positions_of_text = slice(texts.start[text], texts.start[text + 1])
        for first, last in spans.get(name, ()):
            is_inside[positions_of_text] |= (texts.position[positions_of_text] >= first) & (
                texts.position[positions_of_text] < last
            )
    return is_inside


@dataclass(frozen=True)
class SpanShares:
    """For each feature the share of its activation inside a span, and the shares under
    rotations.
    """

    share: Floats
    shuffled: Floats
    p: Floats
    texts: Ints
    """Texts in which the feature fires."""


def shares(
    texts: KeptTexts, entries: SpanEntries, within: Any, rng: np.random.Generator, count: int
) -> SpanShares:
    """A rotation moves all activations of a text by the same number of kept positions, cyclically,
    which preserves correlations between neighbours.
    """
    width = len(entries.features)
    sizes = texts.sizes
    text = np.searchsorted(texts.start, entries.index, side="right") - 1
    local = entries.index - texts.start[text]
    totals = np.bincount(entries.column, entries.value, width)

    def share(positions: Ints) -> Floats:
        inside_sums = np.bincount(entries.column, entries.value * within[positions], width)
        fractions: Floats = np.divide(inside_sums, totals, out=np.zeros(width), where=totals > 0)
        return fractions

    observed = share(entries.index)
    total, as_large = np.zeros(width), np.zeros(width)
    for _ in range(count):
        by = rng.integers(0, np.maximum(sizes, 1))
        moved = share(texts.start[text] + (local + by[text]) % sizes[text])
        total += moved
        as_large += moved >= observed - 1e-12
    pairs = np.unique(np.stack([entries.column, text]), axis=1)
    return SpanShares(
        observed,
        total / count,
        (1 + as_large) / (1 + count),
        np.bincount(pairs[0], minlength=width),
    )


def attention_to(
    attention: pa.Table, layer: int, spans: Mapping[str, Sequence[tuple[int, int]]]
) -> dict[tuple[str, int], float]:
    """By sample and query, the share of a layer's attention that goes to the span, over heads.

    A row has the weights of one head and query: of the positions in `keys`, or of all from 0 where
    `keys` is null.
    """
    import pyarrow.compute as pc

    rows = attention.filter(pc.equal(attention["layer"], layer))
    sums: dict[tuple[str, int], list[float]] = {}
    for row in rows.select(["sample", "query", "keys", "weights"]).to_pylist():
        ranges = spans.get(row["sample"])
        if ranges is None:
            continue
        weights = np.array(row["weights"], float)
        keys = np.arange(len(weights)) if row["keys"] is None else np.array(row["keys"])
        in_span = np.zeros(len(weights), bool)
        for first, last in ranges:
            in_span |= (keys >= first) & (keys < last)
        sums.setdefault((row["sample"], row["query"]), []).append(float(weights[in_span].sum()))
    return {key: sum(masses) / len(masses) for key, masses in sums.items()}
