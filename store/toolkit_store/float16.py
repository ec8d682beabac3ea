"""Values stored as float16, in a store that was made with that type; in memory they are float32."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from toolkit.errors import DataError
from toolkit.tables import TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_LARGEST_HALF = 65504.0


def has_values(name: str) -> bool:
    """Whether a table has a column of values that can be kept as float16."""
    return TABLES[name].columns.get("values") == "list<float32>"


def as_halves(rows: pa.Table) -> pa.Table:
    """Rows with their values as float16; a value that is too large is refused."""
    largest = _largest(rows["values"])
    if _LARGEST_HALF < largest < float("inf"):
        raise DataError(
            f"A value of {largest:g} is too large for float16, the type in which this store "
            "keeps values. Give --store another store, created with float32."
        )
    return rows.cast(_halved(rows.schema))


def as_declared(name: str, rows: pa.Table) -> pa.Table:
    """Rows with the types that the host declares."""
    return rows.cast(stored_schema(name).empty_table().select(rows.column_names).schema)


@cache
def stored_schema(name: str) -> pa.Schema:
    """The schema of a table in the store, with its column `step` if it has one."""
    return arrow_schema(name, step=not TABLES[name].ledger)


def _halved(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    half = pa.list_(pa.field("item", pa.float16(), nullable=False))
    return pa.schema(
        [
            pa.field(field.name, half, nullable=False) if field.name == "values" else field
            for field in schema
        ]
    )


def _largest(lists: pa.ChunkedArray) -> float:
    import pyarrow.compute as pc

    largest = pc.max(pc.abs(pc.list_flatten(lists))).as_py()
    return 0.0 if largest is None else float(largest)
