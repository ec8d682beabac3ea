"""Where a feature fires: its values by sample, and the group of each compared sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.tables import written

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_stats.compare.contrasts import ContrastTable


def group_labels(meta: pa.Table, contrast: ContrastTable) -> dict[str, str]:
    """Each compared sample's group: its value of the key that the comparison is by."""
    import pyarrow.compute as pc

    names = set(contrast.comparison.group_names)
    rows = meta.filter(pc.equal(meta["key"], contrast.comparison.by)).to_pylist()
    labels = {}
    for row in rows:
        label = row["string"] if row["string"] is not None else written(row["number"])
        if not names or label in names or "rest" in names:
            labels[row["sample"]] = label
    return labels


def of_space(activations: pa.Table, space: str) -> pa.Table:
    """The rows of one space."""
    import pyarrow.compute as pc

    return activations.filter(pc.equal(activations["space"], space))


def hits(rows: pa.Table, feature: int) -> Iterator[tuple[str, float]]:
    """(sample, value) of every row of a space in which the feature fires."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = rows["features"].combine_chunks()
    indices = pa.array(np.flatnonzero(lists.flatten().to_numpy(zero_copy_only=False) == feature))
    samples = rows["sample"].take(pc.list_parent_indices(lists).take(indices))
    values = rows["values"].combine_chunks().flatten().take(indices)
    yield from zip(samples.to_pylist(), values.to_pylist(), strict=True)
