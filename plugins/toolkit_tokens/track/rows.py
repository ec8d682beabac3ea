"""Rows of `activations` and `attention` from the results of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.tables import arrow_schema, list_column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from toolkit.saes import Sparse


@dataclass(frozen=True)
class Owner:
    """A sample with this text: the positions whose features it needs, and its queries."""

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
        """Positions that any of the samples needs."""
        return sorted({position for owner in self.owners for position in owner.positions})

    @property
    def queries(self) -> list[int]:
        """Queries that any of the samples needs."""
        return sorted({position for owner in self.owners for position in owner.queries})


def activation_rows(space: str, texts: Sequence[TrackedText], sparse: Sparse) -> pa.Table:
    """One row per sample and position. The rows of `sparse` are the positions of the texts."""
    import numpy as np
    import pyarrow as pa

    counts = sparse.counts.cpu().numpy()
    starts = np.concatenate([[0], np.cumsum(counts)])
    features = sparse.features.cpu().numpy().astype("uint32")
    values = sparse.values.float().cpu().numpy()
    names: list[str] = []
    positions: list[int] = []
    rows: list[int] = []
    start = 0
    for text in texts:
        row_of = {position: start + number for number, position in enumerate(text.positions)}
        for owner in text.owners:
            names += [owner.sample] * len(owner.positions)
            positions += owner.positions
            rows += [row_of[position] for position in owner.positions]
        start += len(row_of)
    chosen = np.array(rows, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts[chosen])])
    entries = np.repeat(starts[chosen] - offsets[:-1], counts[chosen]) + np.arange(offsets[-1])
    schema = arrow_schema("activations")
    columns: dict[str, Any] = {
        "space": pa.repeat(space, len(rows)),
        "sample": pa.array(names, pa.string()),
        "position": pa.array(positions, pa.int32()),
        "features": list_column(offsets, features[entries], schema.field("features").type),
        "values": list_column(offsets, values[entries], schema.field("values").type),
    }
    return pa.table(columns, schema=schema)


def attention_rows(
    model: str, layer: int, text: TrackedText, weights: Tensor, top: int | None, causal: bool
) -> pa.Table:
    """One row per sample, head and query. `weights`: (queries of the text, heads, tokens)."""
    import numpy as np
    import pyarrow as pa

    parts = []
    row_of = {position: number for number, position in enumerate(text.queries)}
    query_weights = weights.float().cpu().numpy()
    for owner in text.owners:
        chosen = query_weights[[row_of[position] for position in owner.queries]]
        queries = np.array(owner.queries, dtype=np.int32)
        count, heads, length = chosen.shape
        by_head = chosen.transpose(1, 0, 2).reshape(heads * count, length)
        visible = np.tile(queries + 1 if causal else np.full(count, length), heads)
        columns: dict[str, Any] = {
            "model": pa.repeat(model, heads * count),
            "sample": pa.repeat(owner.sample, heads * count),
            "layer": pa.array(np.full(heads * count, layer), pa.int32()),
            "head": pa.array(np.repeat(np.arange(heads), count), pa.int32()),
            "query": pa.array(np.tile(queries, heads), pa.int32()),
            **(
                _all_weights(by_head, visible)
                if top is None
                else _largest_weights(by_head, visible, top)
            ),
        }
        parts.append(pa.table(columns, schema=arrow_schema("attention")))
    return pa.concat_tables(parts) if parts else arrow_schema("attention").empty_table()


def _all_weights(weights: np.ndarray[Any, Any], visible: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Each row up to the last key that it sees."""
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("attention")
    is_visible = np.arange(weights.shape[1]) < visible[:, None]
    offsets = np.concatenate([[0], np.cumsum(visible)])
    values = weights[is_visible].astype(np.float16)
    return {
        "keys": pa.nulls(len(weights), schema.field("keys").type),
        "weights": list_column(offsets, values, schema.field("weights").type),
        "rest": pa.array(np.zeros(len(weights)), pa.float32()),
    }


def _largest_weights(
    weights: np.ndarray[Any, Any], visible: np.ndarray[Any, Any], top: int
) -> dict[str, Any]:
    """The largest weights of each row, in order of their keys, and the sum of the others."""
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("attention")
    hidden = np.arange(weights.shape[1]) >= visible[:, None]
    ranked = np.argsort(np.where(hidden, np.inf, -weights), axis=1, kind="stable")[:, :top]
    counts = np.minimum(visible, top)
    is_listed = np.arange(ranked.shape[1]) < counts[:, None]
    keys = np.sort(np.where(is_listed, ranked, weights.shape[1]), axis=1)
    rows = np.repeat(np.arange(len(weights)), counts)
    chosen = keys[is_listed]
    values = weights[rows, chosen].astype(np.float16)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    listed_mass = np.bincount(rows, values.astype(np.float64), minlength=len(weights))
    total = np.where(hidden, 0.0, weights).sum(axis=1, dtype=np.float64)
    other_mass = np.where(counts < visible, np.clip(total - listed_mass, 0, None), 0.0)
    return {
        "keys": list_column(offsets, chosen.astype(np.uint32), schema.field("keys").type),
        "weights": list_column(offsets, values, schema.field("weights").type),
        "rest": pa.array(other_mass, pa.float32()),
    }
