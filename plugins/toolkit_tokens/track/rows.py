"""Rows of `activations` and `attention` from what a pass holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from toolkit.saes import Sparse


@dataclass(frozen=True)
class Owner:
    """A sample of a text: the positions whose features it asks for, and its queries."""

    sample: str
    positions: tuple[int, ...]
    queries: tuple[int, ...]


@dataclass(frozen=True)
class TrackedText:
    """Equal token sequences: computed once, for all samples that have them."""

    ids: tuple[int, ...]
    owners: tuple[Owner, ...]

    @property
    def positions(self) -> list[int]:
        """Positions that any of the samples asks for."""
        return sorted({place for owner in self.owners for place in owner.positions})

    @property
    def queries(self) -> list[int]:
        """Queries that any of the samples asks for."""
        return sorted({place for owner in self.owners for place in owner.queries})


def activation_rows(space: str, texts: Sequence[TrackedText], sparse: Sparse) -> pa.Table:
    """One row per sample and position. The rows of `sparse` are the positions of the texts."""
    import numpy as np
    import pyarrow as pa

    counts = sparse.counts.cpu().numpy()
    before = np.concatenate([[0], np.cumsum(counts)])
    features = sparse.features.cpu().numpy().astype("uint32")
    values = sparse.values.float().cpu().numpy()
    names: list[str] = []
    places: list[int] = []
    rows: list[int] = []
    start = 0
    for text in texts:
        row_of = {place: start + number for number, place in enumerate(text.positions)}
        for owner in text.owners:
            names += [owner.sample] * len(owner.positions)
            places += owner.positions
            rows += [row_of[place] for place in owner.positions]
        start += len(row_of)
    chosen = np.array(rows, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts[chosen])])
    entries = np.repeat(before[chosen] - offsets[:-1], counts[chosen]) + np.arange(offsets[-1])
    schema = arrow_schema("activations")
    columns: dict[str, Any] = {
        "space": pa.repeat(space, len(rows)),
        "sample": pa.array(names, pa.string()),
        "position": pa.array(places, pa.int32()),
        "features": _lists(offsets, features[entries], schema.field("features").type),
        "values": _lists(offsets, values[entries], schema.field("values").type),
    }
    return pa.table(columns, schema=schema)


def attention_rows(
    model: str, layer: int, text: TrackedText, weights: Tensor, top: int | None, causal: bool
) -> pa.Table:
    """One row per sample, head and query. `weights`: (queries of the text, heads, tokens)."""
    import numpy as np
    import pyarrow as pa

    parts = []
    row_of = {place: number for number, place in enumerate(text.queries)}
    shown = weights.float().cpu().numpy()
    for owner in text.owners:
        chosen = shown[[row_of[place] for place in owner.queries]]
        queries = np.array(owner.queries, dtype=np.int32)
        count, heads, length = chosen.shape
        by_head = chosen.transpose(1, 0, 2).reshape(heads * count, length)
        seen = np.tile(queries + 1 if causal else np.full(count, length), heads)
        columns: dict[str, Any] = {
            "model": pa.repeat(model, heads * count),
            "sample": pa.repeat(owner.sample, heads * count),
            "layer": pa.array(np.full(heads * count, layer), pa.int32()),
            "head": pa.array(np.repeat(np.arange(heads), count), pa.int32()),
            "query": pa.array(np.tile(queries, heads), pa.int32()),
            **(_whole(by_head, seen) if top is None else _largest(by_head, seen, top)),
        }
        parts.append(pa.table(columns, schema=arrow_schema("attention")))
    return pa.concat_tables(parts) if parts else arrow_schema("attention").empty_table()


def _whole(weights: np.ndarray[Any, Any], seen: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Each row up to the last key that it sees."""
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("attention")
    kept = np.arange(weights.shape[1]) < seen[:, None]
    offsets = np.concatenate([[0], np.cumsum(seen)])
    values = weights[kept].astype(np.float16)
    return {
        "keys": pa.nulls(len(weights), schema.field("keys").type),
        "weights": _lists(offsets, values, schema.field("weights").type),
        "rest": pa.array(np.zeros(len(weights)), pa.float32()),
    }


def _largest(weights: np.ndarray[Any, Any], seen: np.ndarray[Any, Any], top: int) -> dict[str, Any]:
    """The largest weights of each row, in order of their keys, and what the others sum to."""
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("attention")
    hidden = np.arange(weights.shape[1]) >= seen[:, None]
    ranked = np.argsort(np.where(hidden, np.inf, -weights), axis=1, kind="stable")[:, :top]
    counts = np.minimum(seen, top)
    first = np.arange(ranked.shape[1]) < counts[:, None]
    keys = np.sort(np.where(first, ranked, weights.shape[1]), axis=1)
    rows = np.repeat(np.arange(len(weights)), counts)
    chosen = keys[first]
    values = weights[rows, chosen].astype(np.float16)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    kept = np.bincount(rows, values.astype(np.float64), minlength=len(weights))
    total = np.where(hidden, 0.0, weights).sum(axis=1, dtype=np.float64)
    rest = np.where(counts < seen, np.clip(total - kept, 0, None), 0.0)
    return {
        "keys": _lists(offsets, chosen.astype(np.uint32), schema.field("keys").type),
        "weights": _lists(offsets, values, schema.field("weights").type),
        "rest": pa.array(rest, pa.float32()),
    }


def _lists(offsets: Any, values: Any, kind: pa.ListType) -> pa.Array:
    """A column of lists: `offsets` say where each begins, and where the last ends."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), type=kind)
