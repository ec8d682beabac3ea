"""Rows that several steps write identically are stored once; this module tracks which step's row
each step refers to.

The key of such a row is derived from its content (`spaces`), so another program that reads the
table sees each key once. A step that writes a row which a committed step has written already refers
to that one (`StepRow.shared`). A different row under the same key is stored as well, so that every
step reads back what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.tables import table
from toolkit_store.database import Database
from toolkit_store.filters import among

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[Any, ...]


class SharedRows:
    """The rows of a shared table that committed steps have written; they are never removed."""

    def __init__(self, database: Database, name: str) -> None:
        self._database, self._name = database, name
        self._columns = [*table(name).columns]
        self._key = self._columns.index(table(name).key[0])
        self._owners: dict[Row, str] = {}

    def divide(
        self, steps: Mapping[str, pa.Table], committed: Callable[[Iterable[str]], set[str]]
    ) -> tuple[dict[str, dict[str, str]], dict[str, pa.Table]]:
        """For each step, the step whose row it refers to, by key; and the rows to store."""
        import pyarrow as pa

        rows = {key: self._rows(part) for key, part in steps.items()}
        self._read_owners([row for some in rows.values() for row in some], committed)
        owners = dict(self._owners)
        shared: dict[str, dict[str, str]] = {}
        new: dict[str, pa.Table] = {}
        for key, some in rows.items():
            first = [row not in owners for row in some]
            owners |= {row: key for row, is_new in zip(some, first, strict=True) if is_new}
            shared[key] = {str(row[self._key]): owners[row] for row in some}
            new[key] = steps[key].filter(pa.array(first, pa.bool_()))
        return shared, new

    def _read_owners(
        self, rows: Sequence[Row], committed: Callable[[Iterable[str]], set[str]]
    ) -> None:
        """Read which committed steps wrote the rows whose owner is not known yet."""
        missing = {str(row[self._key]) for row in rows if row not in self._owners}
        column = self._columns[self._key]
        for where in among(column, sorted(missing)):
            result = self._database.rows(self._name, where)
            known = committed(set(result["step"].to_pylist()))
            steps = result["step"].to_pylist()
            for row, step in zip(self._rows(result), steps, strict=True):
                if step in known:
                    self._owners.setdefault(row, step)

    def _rows(self, rows: pa.Table) -> list[Row]:
        return list(zip(*(rows[name].to_pylist() for name in self._columns), strict=True))
