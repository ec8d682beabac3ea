"""Read a table that may be larger than memory one part at a time: rows are divided by a column,
then sorted part by part. The divided rows are in one scratch file, in pieces that each have one
value of the column; the file is memory-mapped, so that only one part is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit_store.write.rows import joined

if TYPE_CHECKING:
    import pyarrow as pa

Pieces = dict[str, list[int]]
"""By value of the column, which record batches of the scratch file have it."""


def divide(
    chunks: Iterable[pa.Table], schema: pa.Schema, column: str, path: Path
) -> tuple[Pieces, int]:
    """Write the rows to a scratch file by value of the column; the pieces, and how many rows there
    were.
    """
    import pyarrow as pa

    pieces: Pieces = {}
    rows = number = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for chunk in joined(chunks):
            rows += chunk.num_rows
            for value, part in _by_value(chunk, column):
                for batch in part.combine_chunks().to_batches():
                    writer.write_batch(batch)
                    pieces.setdefault(value, []).append(number)
                    number += 1
    return pieces, rows


def _by_value(rows: pa.Table, column: str) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow.compute as pc

    values = pc.unique(rows[column]).to_pylist()
    for value in values:
        yield value, rows if len(values) == 1 else rows.filter(pc.equal(rows[column], value))


def parts(pieces: Pieces, path: Path) -> Iterator[pa.Table]:
    """The rows of each value, by value; they are mapped from the scratch file."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for value in sorted(pieces):
            yield pa.Table.from_batches([reader.get_batch(number) for number in pieces[value]])
