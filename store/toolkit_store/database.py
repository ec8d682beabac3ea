"""The LanceDB database of a store.

A table that does not exist, or whose creation was interrupted, reads as empty; the first append
creates it. Every error of LanceDB is raised as `StoreError`. Rows are read through its asynchronous
interface, which takes half the time of the synchronous one. Integer literals are 64 bits wide in a
filter, and a scalar index on another type is then silently not used: `place` is an int64 for that
reason. This module does not verify files; `toolkit_store.store` does before they are joined.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from toolkit.errors import StoreError
from toolkit.tables import TABLES
from toolkit_store.background import background
from toolkit_store.columns import check_columns
from toolkit_store.file_sizes import (
    folder_usage,
    is_large,
    is_mostly_large,
    small_files,
    would_join,
)
from toolkit_store.float16 import as_declared, as_halves, has_values, stored_schema
from toolkit_store.lance import (
    LanceFault,
    caches,
    lance_faults,
    lancedb,
    repeated,
    without_blobs,
)

if TYPE_CHECKING:
    import pyarrow as pa

INDEXES: Mapping[str, str] = MappingProxyType({"activations": "sample", "postings": "place"})
"""Table -> the column that has a B-tree."""
BITMAPS_FROM = 100_000
"""Rows from which a table gets a bitmap index of its steps: every commit checks whether the table
has rows of a step, and reading the column takes 45 ms per million rows. From then on it has the
indexes of `LARGE` too.
"""
LARGE: Mapping[str, str] = MappingProxyType(
    {"activations": "space", "features": "space", "samples": "sample"}
)
"""Large table -> another column with an index, without which a query for one space or sample scans
the whole table.
"""
_B_TREES = ("sample", "place")
"""The columns whose index is a B-tree: nearly every row has a distinct value."""

_LOOK_EVERY = 16
"""Versions after which an append checks whether to join small files."""
_JOIN_FROM = 32
"""Small files that are joined: each commit makes one, and each read opens them all. LanceDB joins
files up to a million rows, which bounds what an append may have to rewrite.
"""
_MINIMUM_AGE = timedelta(milliseconds=1)
"""The youngest old version that `drop_old` removes; LanceDB warns of zero, and the caller holds
both locks.
"""
_A_DAY = timedelta(days=1)
_OF_THIS_MACHINE = ("file:", "file-object-store:", "memory:", "shared-memory:")
_RETRIES = MappingProxyType({"client_max_retries": "3", "client_retry_timeout": "30"})
"""Connection retries. LanceDB's default tries a dead address for three minutes."""
_RESTORE = (
    " `toolkit store check` names files that are not what was written; put them back from a copy "
    "of the store, or run into a new store: --store."
)
_CACHE_BYTES, _METADATA_BYTES = 256 << 20, 64 << 20
"""The most bytes of indexes, and of descriptions of files, that are kept for queries."""
_QUERIES_OF_A_WRITER = 4 << 20
"""The most bytes of descriptions of files that a process which writes keeps for its own queries:
each commit makes new files, whose descriptions would fill a larger cache in the course of a run.
"""
_WRITING_BYTES, _WRITTEN_BYTES = 16 << 20, 1 << 20
"""The most bytes of indexes, and of descriptions of files, that are kept for writing: a commit adds
100 KB of descriptions that are rarely needed again.
"""
_BATCH_ROWS, _LONG_BATCH_ROWS = 8192, 256
_LONG = ("postings", "feature_index", "projections")
"""Tables whose rows may be a megabyte long."""

Given = ParamSpec("Given")
Result = TypeVar("Result")
Method = Callable[Concatenate["Database", str, Given], Result]
"""A method of `Database` whose first argument names a table."""


def _repeating(verb: str) -> Callable[[Method[Given, Result]], Method[Given, Result]]:
    """Repeat a method that may be carried out twice, while faults of an object store pass; raise
    others as `StoreError`, which says that the database could not `verb` the table.
    """

    def decorated(method: Method[Given, Result]) -> Method[Given, Result]:
        @wraps(method)
        def call(self: Database, name: str, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
            with self._explained(verb, name):
                return repeated(lambda: method(self, name, *args, **kwargs))

        return call

    return decorated


class Database:
    """The tables of a store, with the schemas that the host declares; with `half`, values are
    stored as float16.
    """

    def __init__(self, where: Path | str, *, half: bool = False) -> None:
        self.uri, self.half = str(where), half
        self.read_only = False
        """Whether this process only reads: it then keeps more for its queries."""
        self._folder = where if isinstance(where, Path) else None
        self.damaged: Callable[[str], Iterator[tuple[str, str]]] = lambda name: iter(())
        """The files of a table that differ from what was written: a failure names the first one."""
        self._tables: dict[str, Any] = {}
        self._readers: dict[str, Any] = {}

    @cached_property
    def _session(self) -> Any:
        """The caches of the connection for writing."""
        return caches(_WRITING_BYTES, _WRITTEN_BYTES)

    def _options(self, session: Any) -> dict[str, Any]:
        """Connection options."""
        limits = (
            {}
            if self.uri.startswith(_OF_THIS_MACHINE) or self._folder
            else {"storage_options": dict(_RETRIES)}
        )
        return {"uri": self.uri, "session": session, **limits}

    @cached_property
    def connection(self) -> Any:
        """The connection for writing and rare reads: each call sees what others have written."""
        options = self._options(self._session)
        return lancedb().connect(**options, read_consistency_interval=timedelta(0))

    @cached_property
    def _reader(self) -> Any:
        """The connection for queries. Its tables stay at the version they were opened at until
        `_open` refreshes them.
        """
        metadata = _METADATA_BYTES if self.read_only else _QUERIES_OF_A_WRITER
        options = self._options(caches(_CACHE_BYTES, metadata))
        return background.run(lancedb().connect_async(**options))

    # --- writing ---

    def append(self, name: str, rows: pa.Table) -> None:
        """Add rows, all or none."""
        rows = self._as_kept(name, rows)
        with self._explained("write to", name):
            table = repeated(partial(self._table, name))
            if table is None:
                self._tables[name] = self.connection.create_table(
                    name, data=rows, schema=rows.schema
                )
                return
            table.add(rows)

    @_repeating("read")
    def crowded(self, name: str) -> bool:
        """Whether enough small files have gathered for `join`."""
        table = self._table(name)
        if table is None or table.version % _LOOK_EVERY:
            return False
        return small_files(table) >= _JOIN_FROM and not is_mostly_large(table)

    @_repeating("clean")
    def join(self, name: str) -> None:
        """Join small files. Files of old versions stay, since they may be in use."""
        table = self._table(name)
        table.optimize()
        if "step" in self._lacks(name, table):
            self._index(table, "step")

    @_repeating("write to")
    def delete(self, name: str, where: str) -> None:
        """Delete rows, if there are any: checking is cheaper than a new version of the table."""
        table = self._table(name)
        if table is not None and table.count_rows(where):
            table.delete(where)

    @_repeating("clean")
    def compact(self, name: str) -> None:
        """Join small files and bring the indexes up to date."""
        table = self._table(name)
        if table is not None:
            table.optimize()
            for column in self._lacks(name, table):
                self._index(table, column)

    @_repeating("clean")
    def reindex(self, name: str) -> None:
        """`compact` after postings were added: if that made large files, only the indexes are
        brought up to date.

        The indexes are rebuilt, which reads a number and a key per row; LanceDB updates none
        without joining files.
        """
        table = self._table(name)
        if table is not None and is_large(name, table):
            for column in self._to_index(name, table):
                self._index(table, column)
            return
        self.compact(name)

    @_repeating("clean")
    def drop_old(self, name: str, *, reindexing: bool) -> None:
        """Remove old versions and what cut-off writes left; with `reindexing`, several files of
        large postings are left out, since LanceDB would join them.

        In a folder, the caller has excluded other users of the table; elsewhere that is impossible,
        so versions stay for a day.
        """
        table = self._table(name)
        if table is not None and not (reindexing and would_join(name, table)):
            in_folder = self._folder is not None
            table.optimize(
                cleanup_older_than=_MINIMUM_AGE if in_folder else _A_DAY,
                delete_unverified=in_folder,
            )

    def _lacks(self, name: str, table: Any) -> list[str]:
        there = {column for index in table.list_indices() for column in index.columns}
        return [column for column in self._to_index(name, table) if column not in there]

    def _to_index(self, name: str, table: Any) -> list[str]:
        """The columns to index."""
        rows = table.count_rows()
        columns = [INDEXES[name]] if name in INDEXES and rows else []
        if TABLES[name].ledger or rows < BITMAPS_FROM:
            return columns
        return [*columns, "step", *([LARGE[name]] if name in LARGE else [])]

    def _index(self, table: Any, column: str) -> None:
        from lancedb.index import Bitmap, BTree

        table.create_index(
            column, config=BTree() if column in _B_TREES else Bitmap(), name=f"by_{column}"
        )

    # --- reading ---

    @_repeating("read")
    def rows(
        self, name: str, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The matching rows in the declared schema (without a limit LanceDB returns ten)."""
        selected = self._selected_columns(name, columns)
        reader = self._reader
        result: pa.Table | None = background.run(self._read_rows(reader, name, where, selected))
        if result is None:
            return stored_schema(name).empty_table().select(selected)
        return self._as_declared(name, result.select(selected))

    async def _read_rows(
        self, reader: Any, name: str, where: str | None, columns: list[str]
    ) -> pa.Table | None:
        table = await self._open(reader, name)
        if table is None:
            return None
        query = without_blobs(table.query()).select(columns)
        rows: pa.Table = await (query.where(where) if where else query).to_arrow()
        return rows

    async def _open(self, reader: Any, name: str) -> Any:
        """The table at its last version, or None. In a folder, listing its versions takes a tenth
        of the time of LanceDB's own check.
        """
        versions = self._versions(name)
        if name not in self._readers:
            try:
                self._readers[name] = versions, await reader.open_table(name)
            except ValueError as error:
                if "was not found" in str(error):
                    return None
                raise
        elif versions is None or self._readers[name][0] != versions:
            await self._readers[name][1].checkout_latest()
            self._readers[name] = versions, self._readers[name][1]
        return self._readers[name][1]

    def _versions(self, name: str) -> frozenset[str] | None:
        if self._folder is None:
            return None
        try:
            return frozenset(os.listdir(self._folder / f"{name}.lance" / "_versions"))
        except FileNotFoundError:
            return frozenset()

    def batches(
        self, name: str, where: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The matching rows in batches of a few thousand, fewer if rows are long: a table can be
        larger than memory.
        """
        import pyarrow as pa

        selected = self._selected_columns(name, columns)
        with self._explained("read", name):
            query = repeated(partial(self._query, name, where, selected))
            for batch in (
                query.to_batches(batch_size=_LONG_BATCH_ROWS if name in _LONG else _BATCH_ROWS)
                if query is not None
                else ()
            ):
                yield self._as_declared(name, pa.Table.from_batches([batch]).select(selected))

    @_repeating("read")
    def plan(self, name: str, where: str, columns: Sequence[str]) -> str:
        """LanceDB's query plan for these rows."""
        query = self._query(name, where, columns)
        return "" if query is None else str(query.explain_plan())

    @_repeating("read")
    def version(self, name: str) -> int:
        """A number that changes with each write to the table; 0 without a table."""
        table = self._table(name)
        return 0 if table is None else int(table.version)

    @_repeating("read")
    def count(self, name: str) -> int:
        """The number of rows of a table, from its manifest."""
        table = self._table(name)
        return 0 if table is None else int(table.count_rows())

    @_repeating("read")
    def indexed(self, name: str) -> bool:
        """Whether the table's indexes have all its rows."""
        table = self._table(name)
        if table is None or not table.count_rows():
            return True
        stats = [table.index_stats(index.name) for index in table.list_indices()]
        return bool(stats) and all(
            stat is not None and stat.num_unindexed_rows == 0 for stat in stats
        )

    @_repeating("read")
    def count_by_step(self, name: str) -> Counter[str]:
        """Step -> number of its rows, read in batches."""
        counts: Counter[str] = Counter()
        for batch in self.batches(name, None, ["step"]):
            counts.update(
                {
                    pair["values"]: pair["counts"]
                    for pair in batch.column("step").value_counts().to_pylist()
                }
            )
        return counts

    def usage(self) -> dict[str, tuple[int, int]]:
        """Files and bytes of each existing table."""
        results = {name: self._usage(name) for name in TABLES}
        return {name: use for name, use in results.items() if use[0]}

    @_repeating("read")
    def _usage(self, name: str) -> tuple[int, int]:
        if self._folder is not None:
            return folder_usage(self._folder / f"{name}.lance")
        table = self._table(name)
        stats = None if table is None else table.stats()
        return (
            (int(stats["fragment_stats"]["num_fragments"]), int(stats["total_bytes"]))
            if stats
            else (0, 0)
        )

    def names(self) -> list[str]:
        """The names of the existing tables. Raises `LanceFault`."""
        return list(repeated(lambda: self.connection.list_tables().tables))

    def check_columns(self) -> None:
        """Refuse tables whose columns are not those that this version declares."""
        try:
            names = self.names()
        except LanceFault as error:
            raise StoreError(f"Could not list the tables in {self.uri}: {error}.") from error
        for name in sorted(set(names) & set(TABLES)):
            self._check_columns(name)

    def _check_columns(self, name: str) -> None:
        try:
            with lance_faults():
                table = self._table(name)
        except LanceFault:
            return
        if table is not None:
            check_columns(self.uri, name, table)

    def _query(self, name: str, where: str | None, columns: Sequence[str]) -> Any:
        table = self._table(name)
        if table is None:
            return None
        query = table.search().select(list(columns)).limit(None)
        return query.where(where) if where else query

    def _selected_columns(self, name: str, columns: Sequence[str] | None) -> list[str]:
        return list(stored_schema(name).names if columns is None else columns)

    def _table(self, name: str) -> Any:
        """The table, or None. LanceDB has no error class for "not found". An open table looks for
        new versions at each call.
        """
        if name not in self._tables:
            try:
                self._tables[name] = self.connection.open_table(name)
            except ValueError as error:
                if "was not found" in str(error):
                    return None
                raise
        return self._tables[name]

    def _as_kept(self, name: str, rows: pa.Table) -> pa.Table:
        return as_halves(rows) if self.half and has_values(name) else rows

    def _as_declared(self, name: str, rows: pa.Table) -> pa.Table:
        return as_declared(name, rows) if self.half and has_values(name) else rows

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            with lance_faults():
                yield
        except LanceFault as error:
            self._check_columns(name)
            self._tables.pop(name, None)
            self._readers.pop(name, None)
            damage = next(
                (f" {path}: {difference}." for path, difference in self.damaged(name)), ""
            )
            advice = _RESTORE if verb == "read" or damage else ""
            raise StoreError(
                f"Could not {verb} table '{name}' in {self.uri}: {error}.{damage}{advice}"
            ) from error
