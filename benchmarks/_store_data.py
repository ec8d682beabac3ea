"""The activations that the store is measured with: rows as steps write them, and one row an entry
for other systems.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from toolkit.tables import arrow_schema

LAYERS, SAMPLES, ACTIVE, WIDTH = 31, 6_400, 50, 16_384
STEP_SAMPLES = 400


def space(layer: int) -> str:
    """A name as long as a real one."""
    return f"benchmark-layer-{layer:02}"


def sample(number: int) -> str:
    return f"sample-{number:07}"


def drawn(first: int, count: int, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths, features and values of the rows of some samples at a layer: about 50 distinct
    features each.
    """
    rng = np.random.default_rng([first, layer])
    share = 1 / np.arange(1, WIDTH + 1) ** 0.8
    cumulated = np.cumsum(share) / share.sum()
    ranks = np.searchsorted(cumulated, rng.random((count, ACTIVE + 10)))
    keys = np.unique(np.arange(count)[:, None] * WIDTH + np.minimum(ranks, WIDTH - 1))
    rows = keys // WIDTH
    keep = np.arange(len(keys)) - np.searchsorted(rows, rows) < ACTIVE + 2
    scrambled = np.random.default_rng(layer).permutation(WIDTH).astype(np.uint32)
    features, rows = scrambled[keys[keep] % WIDTH], rows[keep]
    order = np.lexsort((features, rows))
    return (
        np.bincount(rows, minlength=count),
        features[order],
        rng.lognormal(size=len(features)).astype(np.float32),
    )


def table(first: int, count: int) -> pa.Table:
    """The rows of `activations` of a step: some samples, all layers."""
    parts = [_layer_table(first, count, layer) for layer in range(LAYERS)]
    return pa.concat_tables(parts)


def _layer_table(first: int, count: int, layer: int) -> pa.Table:
    lengths, features, values = drawn(first, count, layer)
    schema = arrow_schema("activations")
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    columns = {
        "space": pa.repeat(space(layer), count),
        "sample": [sample(number) for number in range(first, first + count)],
        "position": np.arange(first, first + count, dtype=np.int32) * 7 % 300,
        "features": pa.ListArray.from_arrays(
            offsets, pa.array(features), type=schema.field("features").type
        ),
        "values": pa.ListArray.from_arrays(
            offsets, pa.array(values), type=schema.field("values").type
        ),
    }
    return pa.table(columns, schema=schema)


def steps(samples: int) -> Iterator[tuple[str, pa.Table]]:
    """Key and rows of each step."""
    for first in range(0, samples, STEP_SAMPLES):
        yield f"step-{first:07}", table(first, min(STEP_SAMPLES, samples - first))


def long(layer: int, samples: int) -> pl.DataFrame:
    """The entries of a layer, one a row, for the other systems."""
    parts = []
    for first in range(0, samples, STEP_SAMPLES):
        count = min(STEP_SAMPLES, samples - first)
        lengths, features, values = drawn(first, count, layer)
        numbers = np.repeat(np.arange(first, first + count, dtype=np.uint32), lengths)
        parts.append(pl.DataFrame({"feature": features, "sample": numbers, "value": values}))
    frame = pl.concat(parts).with_columns(
        layer=pl.lit(layer, pl.UInt8), position=(pl.col("sample") * 7 % 300).cast(pl.Int32)
    )
    return frame.select("layer", "feature", "sample", "position", "value")
