"""Where features fire: inside spans, against rotations of each text; and with what attention."""

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
    """The kept positions of all texts, one after the other; text t has those from `start[t]`."""

    names: list[str]
    start: Ints
    position: Ints

    @property
    def sizes(self) -> Ints:
        """How many positions of each text were kept."""
        return np.diff(self.start)


@dataclass(frozen=True)
class SpanEntries:
    """Activations of chosen features: where (a place of `Texts`), of which column, how strong."""

    features: Ints
    place: Ints
    column: Ints
    value: Floats


def read_entries(
    rows: pa.Table, samples: Sequence[str], features: Sequence[int]
) -> tuple[KeptTexts, SpanEntries]:
    """The rows of a space in these samples, in their order, and the entries of these features."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = pc.index_in(rows["sample"], value_set=pa.array(samples, pa.string()))
    rows, number = rows.filter(asked.is_valid()), asked.drop_null().to_numpy().astype(np.int64)
    order = np.lexsort((rows["position"].to_numpy(), number))
    rows, number = rows.take(pa.array(order)), number[order]
    start = np.searchsorted(number, np.arange(len(samples) + 1))
    texts = KeptTexts(list(samples), start, rows["position"].to_numpy().astype(np.int64))
    lists = rows["features"].combine_chunks()
    place = np.repeat(np.arange(len(rows)), np.diff(lists.offsets.to_numpy()))
    feature = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    value = rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(float)
    wanted = np.array(sorted(features), np.int64)
    column = np.searchsorted(wanted, feature)
    kept = (column < len(wanted)) & (value > 0)
    kept[kept] = wanted[column[kept]] == feature[kept]
    return texts, SpanEntries(wanted, place[kept], column[kept], value[kept])


def inside(
    texts: KeptTexts, spans: Mapping[str, Sequence[tuple[int, int]]]
) -> npt.NDArray[np.bool_]:
    """Whether each kept position lies in one of its text's ranges."""
    found = np.zeros(len(texts.position), bool)
    for text, name in enumerate(texts.names):
        own = slice(texts.start[text], texts.start[text + 1])
        for first, last in spans.get(name, ()):
            found[own] |= (texts.position[own] >= first) & (texts.position[own] < last)
    return found


@dataclass(frozen=True)
class SpanShares:
    """Of each feature: the share of its activation inside a span, and what rotations give."""

    share: Floats
    shuffled: Floats
    p: Floats
    texts: Ints
    """Texts in which the feature fires."""


def shares(
    texts: KeptTexts, entries: SpanEntries, within: Any, rng: np.random.Generator, count: int
) -> SpanShares:
    """A rotation moves all activations of a text by the same number of kept positions, round the
    end: what neighbours share stays together.
    """
    width = len(entries.features)
    sizes = texts.sizes
    text = np.searchsorted(texts.start, entries.place, side="right") - 1
    local = entries.place - texts.start[text]
    whole = np.bincount(entries.column, entries.value, width)

    def share(place: Ints) -> Floats:
        there = np.bincount(entries.column, entries.value * within[place], width)
        found: Floats = np.divide(there, whole, out=np.zeros(width), where=whole > 0)
        return found

    observed = share(entries.place)
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
        there = np.zeros(len(weights), bool)
        for first, last in ranges:
            there |= (keys >= first) & (keys < last)
        sums.setdefault((row["sample"], row["query"]), []).append(float(weights[there].sum()))
    return {key: sum(own) / len(own) for key, own in sums.items()}
