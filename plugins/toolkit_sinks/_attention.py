"""The attention of samples as matrices, built from rows of queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolkit.files.archives import whole

if TYPE_CHECKING:
    from toolkit.work import Inputs


class AttentionOfSamples:
    """The rows of table `attention`, by sample and layer; empty where no stage kept any."""

    def __init__(self, inputs: Inputs) -> None:
        self._rows: Any = None
        self._ranges: dict[tuple[str, int], tuple[int, int]] = {}
        if "attention" not in inputs.tables():
            return
        order = [(name, "ascending") for name in ("sample", "layer", "head", "query")]
        self._rows = inputs.read("attention").sort_by(order).combine_chunks()
        if not self._rows.num_rows:
            return
        names, layers = (self._rows[name].to_pylist() for name in ("sample", "layer"))
        starts = [
            row
            for row in range(len(names))
            if row == 0 or (names[row], layers[row]) != (names[row - 1], layers[row - 1])
        ]
        for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
            self._ranges[names[start], layers[start]] = (start, end)

    @property
    def layers(self) -> list[int]:
        """Layers whose attention was kept."""
        return sorted({layer for _, layer in self._ranges})

    def pairs(self) -> list[tuple[str, int]]:
        """Samples and layers whose attention was kept."""
        return list(self._ranges)

    def matrix(self, sample: str, layer: int, tokens: int) -> Any:
        """(heads, queries, keys), float16: 0 at keys that a query does not see, NaN where a weight
        or a query was not kept; None without any rows.
        """
        import numpy as np

        start, end = self._ranges.get((sample, layer), (0, 0))
        if start == end:
            return None
        rows = self._rows.slice(start, end - start)
        heads, queries = (rows[name].to_numpy() for name in ("head", "query"))
        dense = np.full((int(heads.max()) + 1, tokens, tokens), np.nan, dtype=np.float16)
        keys, weights = rows["keys"].to_pylist(), rows["weights"].combine_chunks()
        values = weights.flatten().to_numpy(zero_copy_only=False)
        offsets = weights.offsets.to_numpy() - weights.offsets[0].as_py()
        for row, (head, query) in enumerate(zip(heads, queries, strict=True)):
            row_values = values[offsets[row] : offsets[row + 1]]
            if keys[row] is None:
                dense[head, query] = 0
                dense[head, query, : len(row_values)] = row_values
            else:
                dense[head, query, keys[row]] = row_values
        return dense

    def members(self, sample: str, layer: int, tokens: int) -> Iterator[Any]:
        """Array `attention` of an archive, where it was kept."""
        matrix = self.matrix(sample, layer, tokens)
        if matrix is not None:
            yield whole("attention", matrix)
