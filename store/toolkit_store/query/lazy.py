"""A table of a run as a lazy frame: a SELECT reads only what it needs, when its result is computed.

Only the selected columns are read, a batch of rows at a time, and no more rows than needed. Of a
WHERE, comparisons of a column with a text or a whole number that all have to hold (`sample = 's1'
AND space IN ('a', 'b')`) are handed to LanceDB, which finds samples by their index. polars applies
the whole WHERE to the rows, so conditions that are not passed on only cost reading time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.tables import TABLES, arrow_schema
from toolkit_store.database import Database
from toolkit_store.filters import among, equals
from toolkit_store.index.postings import lookup_range
from toolkit_store.query.committed_rows import matching

if TYPE_CHECKING:
    import polars as pl

_WHOLE = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
"""Types of columns that are compared with a whole number, and which numbers they hold."""
_MOST_VALUES = 500
"""The most values of an IN that is handed to LanceDB."""


def lazy_table(database: Database, name: str, steps: Sequence[str]) -> pl.LazyFrame:
    """The rows that these steps wrote to a table; of a table that describes things, each distinct
    row once.
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    schema = pl.DataFrame(arrow_schema(name).empty_table()).schema

    def batches(
        columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        more = [] if predicate is None else list(_implied_filters(predicate, TABLES[name].columns))
        for where in _of_steps(name, steps):
            for batch in database.batches(
                name, " AND ".join([where, *more]), columns or list(schema)
            ):
                frame = pl.DataFrame(batch)
                frame = frame if predicate is None else frame.filter(predicate)
                yield frame if left is None else frame.head(left)
                left = None if left is None else left - len(frame)
                if left is not None and left <= 0:
                    return

    lazy: pl.LazyFrame = register_io_source(batches, schema=schema)
    return lazy.unique(TABLES[name].key, keep="first") if TABLES[name].facts else lazy


def _of_steps(name: str, steps: Sequence[str]) -> Iterator[str]:
    """Filters for the rows of these steps; those of `postings` have an index."""
    if name != "postings":
        yield from among("step", steps)
        return
    for step in steps:
        first, last = lookup_range(step)
        yield f"place >= {first} AND place <= {last} AND {equals('step', step)}"


def _implied_filters(predicate: pl.Expr, columns: Any) -> Iterator[str]:
    """Filters for LanceDB that the predicate implies. The predicate is taken apart and rebuilt, to
    check that it was understood.
    """
    parts = predicate.meta.pop()
    if len(parts) != 2:
        return
    for left, right in (parts, parts[::-1]):
        if (left & right).meta.eq(predicate):
            yield from _implied_filters(left, columns)
            yield from _implied_filters(right, columns)
            return
        if left.meta.is_column() and right.meta.is_literal():
            same = ((left == right), (right == left))
            if any(expression.meta.eq(predicate) for expression in same) or left.is_in(
                right
            ).meta.eq(predicate):
                yield from _one_of(left.meta.output_name(), columns, right)
                return


def _one_of(column: str, columns: Any, literal: pl.Expr) -> Iterator[str]:
    """The filter that a column equals the literal, or one of its values, if these are texts or
    numbers that the column can hold.
    """
    import polars as pl

    result = pl.select(literal.alias("value"))["value"]
    values = (result.explode() if result.dtype == pl.List else result).to_list()
    if not 0 < len(values) <= _MOST_VALUES:
        return
    kind = columns[column].rstrip("?")
    texts = kind == "string" and all(isinstance(value, str) for value in values)
    first, last = _WHOLE.get(kind, (0, -1))
    if texts or all(type(value) is int and first <= value <= last for value in values):
        yield matching({column: values})
