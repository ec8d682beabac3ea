"""Tests whether features fire inside spans, against rotations of each text, and with attention to
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.statistics.arrays import Floats, Ints

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
    firing = (column < len(chosen)) & (value > 0)
    firing[firing] = chosen[column[firing]] == feature[firing]
    return texts, SpanEntries(chosen, row_of_entry[firing], column[firing], value[firing])


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
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(list(spans), pa.string())
    mask = pc.and_(
        pc.equal(attention["layer"], layer), pc.is_in(attention["sample"], value_set=names)
    )
    rows = attention.filter(mask)
    sample = pc.index_in(rows["sample"], value_set=names).to_numpy().astype(np.int64)
    row_of_weight, key, weight = _flat_weights(rows)
    in_span = np.zeros(len(weight), bool)
    for first, last in _range_columns([spans[name] for name in spans]):
        owner = sample[row_of_weight]
        in_span |= (key >= first[owner]) & (key < last[owner])
    mass = np.bincount(row_of_weight[in_span], weight[in_span], minlength=len(rows))
    pairs, group = np.unique(
        np.stack([sample, rows["query"].to_numpy().astype(np.int64)]), axis=1, return_inverse=True
    )
    means = np.bincount(group.ravel(), mass) / np.bincount(group.ravel())
    sampled = [names[index].as_py() for index in pairs[0].tolist()]
    return dict(zip(zip(sampled, pairs[1].tolist(), strict=True), means.tolist(), strict=True))


def _flat_weights(rows: pa.Table) -> tuple[Ints, Ints, Floats]:
    """All weights of these rows: the row of each, the position that it is of, and the weight."""
    lists = rows["weights"].combine_chunks()
    sizes = np.diff(lists.offsets.to_numpy().astype(np.int64))
    row = np.repeat(np.arange(len(rows)), sizes)
    key = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    keys = rows["keys"].combine_chunks()
    has_keys = keys.is_valid().to_numpy(zero_copy_only=False)
    key[has_keys[row]] = keys.flatten().to_numpy(zero_copy_only=False)
    weights = lists.flatten().to_numpy(zero_copy_only=False).astype(float)
    return row, key, weights


def _range_columns(
    ranges: Sequence[Sequence[tuple[int, int]]],
) -> Iterator[tuple[Ints, Ints]]:
    """The first range of every sample, then the second, as starts and ends; empty where it has
    none.
    """
    for number in range(max(map(len, ranges), default=0)):
        chosen = [those[number] if number < len(those) else (0, 0) for those in ranges]
        starts, ends = np.array(chosen, np.int64).T
        yield starts, ends
