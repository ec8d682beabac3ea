"""Stores the raw stream at the SAEs' hookpoints on request, so that readers of the stream need not
run the model again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.models import Model
from toolkit.models.streams import Pass, Text
from toolkit.saes import raw_space_row
from toolkit.samples.selectors import SelectorText, selected
from toolkit.tables import arrow_schema, list_column
from toolkit.work import Rows
from toolkit_saes.extract.columns import PassColumns

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

NUMBERS = 1 << 24
"""Numbers per table of rows: 64 MB."""

Positions = Mapping[str, Sequence[int]]


def recorded_positions(
    params: Any, samples: Sequence[Mapping[str, Any]], bos_id: int | None
) -> Positions | None:
    """By sample, the positions whose stream is recorded; None if no stream is."""
    if params.stream is None:
        return None
    results = {}
    for row in samples:
        read = SelectorText.of(row)
        stored, looked_at = selected(params.stream, read, bos_id), selected(params.at, read, bos_id)
        beyond = set(stored) - set(looked_at)
        if beyond:
            raise DataError(
                f"stream: sample '{row['sample']}': position {min(beyond)} is not among those that "
                "`at` looks at. Widen `at` (a list of selectors is their union), or keep the "
                "stream only where it looks."
            )
        results[row["sample"]] = stored
    return results


class StreamRecorder:
    """Collects rows of table `streams` from each pass, every hookpoint and text once."""

    def __init__(self, model: Model, positions: Positions | None) -> None:
        self._model, self._positions = model, positions
        self._waiting: list[pa.Table] = []
        self._taken: dict[str, set[str]] = {}

    def take(self, batch: Pass) -> None:
        """Keep the requested rows of a pass. A later pass for other SAEs may show the same stream
        again.
        """
        if self._positions is None:
            return
        all_of_it = PassColumns(batch.texts, self._recorded)
        for hookpoint, rows in batch.rows.items():
            taken = self._taken.setdefault(hookpoint, set())
            fresh = {text.samples[0] for text in batch.texts} - taken
            columns = (
                all_of_it
                if len(fresh) == len(batch.texts)
                else PassColumns(batch.texts, self._fresh(fresh))
            )
            taken |= fresh
            self._waiting += self._tables(hookpoint, rows, columns)

    def rows(self) -> Rows:
        """The tables of rows collected since the last call."""
        for table in self._waiting:
            yield "streams", table
        self._waiting = []

    def _recorded(self, text: Text, number: int) -> Sequence[int]:
        assert self._positions is not None
        return self._positions[text.samples[number]]

    def _fresh(self, names: set[str]) -> Callable[[Text, int], Sequence[int]]:
        """The recorded positions for texts whose first samples have these names; none for the
        others.
        """
        return lambda text, number: self._recorded(text, number) if text.samples[0] in names else ()

    def _tables(self, hookpoint: str, rows: Tensor, columns: PassColumns) -> Iterator[pa.Table]:
        import torch

        width = rows.shape[-1]
        size = max(1, NUMBERS // width)
        space = raw_space_row(self._model.identity, hookpoint, width)["space"]
        source = torch.from_numpy(columns.source)
        for start in range(0, len(source), size):
            part = slice(start, start + size)
            values = rows[source[part].to(rows.device)].float().cpu().numpy()
            yield _table(space, hookpoint, values, columns.sample[part], columns.position[part])


def _table(
    space: str, hookpoint: str, values: Any, samples: pa.Array, positions: pa.Array
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    count, width = values.shape
    schema = arrow_schema("streams")
    columns = {
        "space": pa.repeat(space, count),
        "sample": samples,
        "position": positions,
        "hookpoint": pa.repeat(hookpoint, count),
        "values": list_column(
            np.arange(count + 1) * width, values.reshape(-1), schema.field("values").type
        ),
    }
    return pa.table(columns, schema=schema)
