"""The LanceDB database under a store: the one module that imports lancedb, and what was learnt about it.

Tables are opened anew for each call, because an open one does not see what others write. A table that is not there, or whose
making was cut off, reads as empty and is made by the first append. Whatever LanceDB raises leaves here as `StoreError`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import StoreError
from toolkit.tables import TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_KEYS_IN_A_FILTER = 500
_JOIN_EVERY = 64
"""Versions after which small files are joined: each commit makes one, and each read opens them all."""
_AT_ONCE = timedelta(milliseconds=1)
"""The youngest old version that `tidy` removes; LanceDB warns of zero, and the caller holds both locks."""


def equals(column: str, value: str) -> str:
    """A filter for one value, quoted."""
    return f"{column} = {_quoted(value)}"


def among(column: str, values: Iterable[str]) -> Iterator[str]:
    """Filters that together find all of `values`; one with thousands of values is slow to plan."""
    quoted = [_quoted(value) for value in dict.fromkeys(values)]
    for start in range(0, len(quoted), _KEYS_IN_A_FILTER):
        yield f"{column} IN ({', '.join(quoted[start : start + _KEYS_IN_A_FILTER])})"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class Database:
    """Tables by name, of the schemas the host declares."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _connection(self) -> Any:
        os.environ.setdefault("LANCE_LOG", "error")  # else its warnings go to stderr
        import lancedb

        return lancedb.connect(str(self.folder), read_consistency_interval=timedelta(0))

    def append(self, name: str, rows: pa.Table) -> None:
        """Add rows, all or none."""
        with self._explained("write to", name):
            found = self._table(name)
            if found is None:
                self._connection.create_table(name, data=rows, schema=_schema(name))
                return
            if found.version % _JOIN_EVERY == 0:
                found.optimize()  # keeps the old versions' files: somebody may be reading them
            found.add(rows)

    def delete(self, name: str, where: str) -> None:
        """Remove rows, if there are any: asking is cheaper than a new version of the table."""
        with self._explained("write to", name):
            found = self._table(name)
            if found is not None and found.count_rows(where):
                found.delete(where)

    def rows(self, name: str, where: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that match, of the declared schema (without a limit LanceDB would give ten)."""
        schema = _schema(name)
        wanted = list(schema.names if columns is None else columns)
        with self._explained("read", name):
            found = self._table(name)
            if found is None:
                return schema.empty_table().select(wanted)
            query = found.search().select(wanted).limit(None)
            result: pa.Table = (query.where(where) if where else query).to_arrow()
        return result.select(wanted)

    def count_by_step(self, name: str) -> Counter[str]:
        """Step -> number of its rows, read in batches: a table can be larger than memory."""
        counts: Counter[str] = Counter()
        with self._explained("read", name):
            found = self._table(name)
            for batch in found.search().select(["step"]).limit(None).to_batches() if found is not None else ():
                counts.update({pair["values"]: pair["counts"] for pair in batch.column("step").value_counts().to_pylist()})
        return counts

    def tidy(self) -> None:
        """Join small files, drop old versions and what cut-off writes left. Only with nobody else at the tables."""
        for name in TABLES:
            with self._explained("clean", name):
                found = self._table(name)
                if found is not None:
                    found.optimize(cleanup_older_than=_AT_ONCE, delete_unverified=True)

    def usage(self) -> dict[str, tuple[int, int]]:
        """Files and bytes of each table that is there."""
        found = {name: _usage(self.folder / f"{name}.lance") for name in TABLES}
        return {name: use for name, use in found.items() if use[0]}

    def _table(self, name: str) -> Any:
        """The table, or None. LanceDB has no error class for "not found"."""
        try:
            return self._connection.open_table(name)
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(f"Could not {verb} table '{name}' in {self.folder}: {error}.") from error


def _schema(name: str) -> pa.Schema:
    return arrow_schema(name, step=not TABLES[name].ledger)


def _usage(folder: Path) -> tuple[int, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)
