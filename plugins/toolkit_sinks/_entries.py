"""The rows of one space as arrays, for the archives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.activations.dense_layouts import SparseRows

if TYPE_CHECKING:
    import pyarrow as pa


class Entries:
    """The rows of one space, in order of sample and position. Row i belongs to sample
    `names[sample[i]]`, at `positions[i]`.
    """

    def __init__(self, rows: pa.Table) -> None:
        import numpy as np
        import pyarrow.compute as pc

        rows = rows.sort_by([("sample", "ascending"), ("position", "ascending")]).combine_chunks()
        named = rows["sample"].combine_chunks().dictionary_encode()
        self.names: list[str] = named.dictionary.to_pylist()
        self.sample = named.indices.to_numpy(zero_copy_only=False)
        self.positions = rows["position"].to_numpy()
        counts = pc.list_value_length(rows["features"]).to_numpy(zero_copy_only=False)
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.rows = SparseRows(ends, _flat(rows["features"]), _flat(rows["values"]))
        self.row = np.repeat(np.arange(len(rows)), counts)

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, row: int) -> str:
        """The sample of a row."""
        return self.names[int(self.sample[row])]

    def ranges(self) -> Any:
        """The first row of each sample, and the end of the last sample's rows."""
        import numpy as np

        return np.searchsorted(self.sample, np.arange(len(self.names) + 1))


def _flat(column: pa.ChunkedArray) -> Any:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
