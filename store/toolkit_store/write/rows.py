"""Fit rows to the declared table, check them for repeated keys, sort and hash them.

A table is declared by the host (`toolkit.tables`) as a map from column to type name. What parts
hand over may differ in ways that carry no data (large strings, null flags inside lists, column
order); those are brought to the declared type. All else that differs is the part's mistake and
refused with the table and the column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, choices, nearest
from toolkit.tables import DATA_TABLES, arrow_schema, table
from toolkit_store.write.repeats import Keys

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 64 << 20


def check_name(name: str) -> None:
    """Refuse a table that steps cannot write to."""
    if name in DATA_TABLES and table(name).derived:
        raise DataError(
            f"A step cannot write to table '{name}': the store derives it from other tables."
        )
    if name not in DATA_TABLES:
        near = nearest(name, DATA_TABLES)
        raise DataError(
            f"A step cannot write to table '{name}': it is not declared.{near} Tables: "
            f"{choices(DATA_TABLES)}."
        )


def fitted(name: str, rows: pa.Table, step: str) -> pa.Table:
    """Convert `rows` to the store's schema, with the column `step`."""
    import pyarrow as pa

    unknown = [column for column in rows.column_names if column not in table(name).columns]
    if unknown:
        allowed = choices(table(name).columns)
        raise DataError(
            f"Table '{name}' has no column "
            f"'{unknown[0]}'.{nearest(unknown[0], table(name).columns)} "
            f"Columns: {allowed}."
        )
    schema = arrow_schema(name, step=True)
    if rows.schema.equals(arrow_schema(name)):
        columns = [_without_nulls(name, rows.column(field.name), field) for field in rows.schema]
    else:
        columns = [_fitted_column(name, rows, field) for field in list(schema)[:-1]]
    columns.append(pa.repeat(pa.scalar(step, pa.string()), rows.num_rows))
    return pa.Table.from_arrays(columns, schema=schema)


def _fitted_column(name: str, rows: pa.Table, field: pa.Field) -> Any:
    import pyarrow as pa

    where = f"Table '{name}', column '{field.name}'"
    if rows.column_names.count(field.name) > 1:
        raise DataError(f"{where}: the column occurs more than once.")
    if field.name not in rows.column_names:
        if not field.nullable:
            raise DataError(
                f"{where}: the column is missing. Only columns whose type ends in '?' can be left "
                "out."
            )
        return pa.nulls(rows.num_rows, field.type)
    column = rows.column(field.name)
    given_type, declared_type = _spelled(column.type), _spelled(field.type)
    if given_type != declared_type and not (given_type == "null" and field.nullable):
        raise DataError(f"{where}: the type is {given_type}, it must be {declared_type}.")
    return _without_nulls(name, column, field).cast(field.type)


def _without_nulls(name: str, column: Any, field: pa.Field) -> Any:
    """The column; nulls where none are allowed are refused."""
    if _has_nulls(column, field.nullable):
        raise DataError(
            f"Table '{name}', column '{field.name}': there are nulls. Null is allowed only where "
            "the declared type ends in '?'."
        )
    return column


def _spelled(kind: pa.DataType) -> str:
    """A type as `toolkit.tables` writes it, so that large and null-flagged variants read the
    same.
    """
    import pyarrow.types as is_

    if is_.is_list(kind) or is_.is_large_list(kind):
        return f"list<{_spelled(kind.value_type)}>"
    if is_.is_struct(kind):
        return f"struct<{','.join(f'{part.name}:{_spelled(part.type)}' for part in kind)}>"
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return "string"
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(
        str(kind), str(kind)
    )


def _has_nulls(column: Any, allowed: bool) -> bool:
    """Whether there are nulls in a column that allows none; lists and structs never allow any."""
    import pyarrow.compute as pc
    import pyarrow.types as is_

    if column.null_count and not allowed:
        return True
    if is_.is_list(column.type) or is_.is_large_list(column.type):
        return _has_nulls(pc.list_flatten(column), False)
    if is_.is_struct(column.type):
        return any(
            _has_nulls(pc.struct_field(column, [index]), False)
            for index in range(column.type.num_fields)
        )
    return False


def batches(name: str, chunks: Iterable[pa.Table] | pa.Table, step: str) -> Iterator[pa.Table]:
    """The chunks, fitted, and joined so that each is worth a file; a repeated key is refused before
    it is written.
    """
    keys = Keys(name)
    for batch in joined(fitted(name, chunk, step) for chunk in _each(chunks)):
        keys.add(batch.select(list(table(name).key)))
        yield batch


def _each(chunks: Iterable[pa.Table] | pa.Table) -> Iterable[pa.Table]:
    import pyarrow as pa

    return [chunks] if isinstance(chunks, pa.Table) else chunks


def joined(chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The chunks, joined so that each is worth a file."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    size = 0
    for chunk in chunks:
        waiting += [chunk] if chunk.num_rows else []
        size += chunk.nbytes
        if size >= _BATCH_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def ordered(name: str, rows: pa.Table) -> pa.Table:
    """`rows` by the table's key; rows of two steps with one key are in the order of their steps; of
    facts, only one is kept.
    """
    rows_in_order = rows.sort_by([(column, "ascending") for column in (*table(name).key, "step")])
    return _once(rows_in_order, table(name).key) if table(name).facts else rows_in_order


def _once(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """The first row of each key."""
    import pyarrow as pa

    keys = list(zip(*(rows.column(column).to_pylist() for column in key), strict=True))
    return rows.filter(
        pa.array(
            [number == 0 or keys[number - 1] != row_key for number, row_key in enumerate(keys)],
            pa.bool_(),
        )
    )


_DIGEST_BYTES = 1 << 24
"""Bytes of rows that a digest turns into Python objects at a time."""


def _rows_at_once(rows: pa.Table) -> int:
    fitting = rows.num_rows * _DIGEST_BYTES // max(rows.nbytes, 1)
    return max(1, min(8192, int(fitting)))


def digest(rows: pa.Table | Iterable[pa.Table]) -> str:
    """SHA-256 of the rows as JSON lines: the same for equal rows, independent of files and
    buffers.
    """
    import pyarrow as pa

    hasher = hashlib.sha256()
    for chunk in [rows] if isinstance(rows, pa.Table) else rows:
        for batch in chunk.to_batches(max_chunksize=_rows_at_once(chunk)):
            for row in batch.to_pylist():
                hasher.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return hasher.hexdigest()
