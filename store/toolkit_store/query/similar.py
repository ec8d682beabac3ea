"""Features with the nearest decoder direction, from the rows of a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit_store.index.projections import DecoderRows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


_AT_ONCE = 4096


def nearest_rows(give: DecoderRows, width: int, feature: int, k: int) -> pl.DataFrame:
    """The `k` features with the largest cosine to this one: feature, cosine."""
    import numpy as np
    import polars as pl

    direction = _unit_rows(give(feature, feature + 1))[0]
    parts = [
        _unit_rows(give(first, min(first + _AT_ONCE, width))) @ direction
        for first in range(0, width, _AT_ONCE)
    ]
    frame = pl.DataFrame(
        {"feature": np.arange(width, dtype=np.uint32), "cosine": np.concatenate(parts)}
    )
    return (
        frame.filter(pl.col("feature") != feature)
        .sort(["cosine", "feature"], descending=[True, False])
        .head(k)
    )


def slices(rows: np.ndarray) -> DecoderRows:
    """An array as a decoder."""

    def give(first: int, last: int) -> np.ndarray:
        part: np.ndarray = rows[first:last]
        return part

    return give


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; those of length zero stay as they are."""
    import numpy as np

    wide = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: np.ndarray = wide / np.where(lengths == 0, 1, lengths)
    return unit
