"""The store itself: a ledger of committed steps over tables of rows.

Every data table has the column `step`. The ledger `steps` has one row per committed step, and that row, written last and
atomically, is what makes the step's rows exist: reads ask the ledger first. So a kill leaves either a whole step or rows that
nobody sees, and committing the same step again first removes those. One process writes at a time (`toolkit_store.locks`).
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import BadInput, StoreError, choices, nearest
from toolkit.records import RunRow, StepRow
from toolkit.tables import DATA_TABLES, arrow_schema, table
from toolkit_store import ledger, locks, rows
from toolkit_store.database import Database, among, equals
from toolkit_store.folder import prepare

if TYPE_CHECKING:
    import pyarrow as pa


def open_store(path: str | Path, *, create: bool = False, read_only: bool = False) -> Store:
    """The store in that folder, or `StoreNotUsable` saying what is there and what to do."""
    return Store(prepare(path, create=create, read_only=read_only), read_only=read_only)


@dataclass(frozen=True)
class CleanReport:
    """What `clean` removed: rows that no committed step owns, per table, and the files and bytes given back."""

    rows: Mapping[str, int]
    files: int
    bytes: int


class Store:
    """An open store. Made by `open_store`."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.uri = str(folder)
        self.read_only = read_only
        self._database = Database(folder / "tables")
        self._lease = locks.lease(folder / "locks" / "writer.lock")
        self._readers = folder / "locks" / "readers.lock"

    # --- writing ---

    def writer(self, *, wait_s: float = 60.0, on_wait: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        """The lease to write. Hold it over a run; each commit inside enters it again at no cost."""
        if self.read_only:
            raise StoreError(f"The store at {self.folder} was opened for reading only; open it without read_only to write.")
        return self._lease.held(wait_s, on_wait)

    def commit(self, row: StepRow, tables: Mapping[str, Iterable[pa.Table] | pa.Table]) -> bool:
        """Keep a step's rows and enter it into the ledger; False, and nothing written, if it is there already.

        `row.tables` is filled in here with the rows written, so that the ledger is right by construction.
        """
        for name in tables:
            rows.check_name(name)
        with self.writer(), self._lease.turn:
            if self._known([row.key]):
                return False
            counts = {name: self._take(name, chunks, row.key) for name, chunks in tables.items()}
            with self._taking(row.key):
                self._database.append("steps", ledger.step_to_arrow(replace(row, tables=counts)))
        return True

    def _take(self, name: str, chunks: Iterable[pa.Table] | pa.Table, key: str) -> int:
        """Append a step's rows to one table, after those of an attempt that was cut off are gone."""
        with self._taking(key):
            self._database.delete(name, equals("step", key))
        count = 0
        for batch in rows.batches(name, chunks, key):
            with self._taking(key):
                self._database.append(name, batch)
            count += batch.num_rows
        return count

    @contextmanager
    def _taking(self, key: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise StoreError(
                f"The store could not take step {key}: {error} "
                "Nothing of it is visible; free space and issue the same command again."
            ) from error

    def record_run(
        self,
        *,
        run: str,
        name: str,
        state: str,
        at: str | None = None,
        done: int = 0,
        total: int | None = None,
        note: str = "",
        steps: Sequence[str] = (),
        pid: int | None = None,
        host: str | None = None,
    ) -> RunRow:
        """Append a change of a run's state; time, process and host are this process's unless given."""
        with self.writer(), self._lease.turn:
            past = self._database.rows("runs", equals("run", run), ["seq"]).column("seq").to_pylist()
            row = RunRow(
                run=run,
                seq=max(past, default=0) + 1,
                name=name,
                state=state,
                at=at or datetime.now(UTC).isoformat(),
                done=done,
                total=total,
                note=note,
                steps=tuple(steps),
                pid=os.getpid() if pid is None else pid,
                host=host or socket.gethostname(),
            )
            self._database.append("runs", ledger.run_to_arrow(row))
        return row

    # --- reading ---

    def has(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that are committed."""
        with locks.reading(self._readers):
            return self._known(keys)

    def steps(
        self, keys: Iterable[str] | None = None, *, experiment: str | None = None, stage: str | None = None
    ) -> list[StepRow]:
        """The ledger, or the part of it asked for, by experiment, stage and index."""
        with locks.reading(self._readers):
            found = self._steps(keys)
        wanted = (row for row in found if experiment in (None, row.experiment) and stage in (None, row.stage))
        return sorted(wanted, key=lambda row: (row.experiment, row.stage, row.index, row.key))

    def read(self, table: str, steps: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that the committed ones of `steps` wrote to `table`, by the table's key."""
        wanted = _columns(table, columns)
        with locks.reading(self._readers):
            return self._read(table, steps, wanted).select(wanted)

    def run_states(self, run: str | None = None) -> list[RunRow]:
        """The latest row of each run, oldest first; with `run`, of that one (empty when it is unknown)."""
        with locks.reading(self._readers):
            found = self._database.rows("runs", None if run is None else equals("run", run))
        latest = {row.run: row for row in sorted(ledger.runs_from_arrow(found), key=lambda row: row.seq)}
        return sorted(latest.values(), key=lambda row: (row.at, row.run))

    def fingerprint(self, steps: Iterable[str]) -> dict[str, str]:
        """A hash of what `steps` left in each data table: equal hashes mean identical results. Empty tables are left out."""
        asked = list(steps)
        found = {name: self.read(name, asked) for name in DATA_TABLES}
        return {name: rows.digest(content) for name, content in found.items() if content.num_rows}

    def sizes(self) -> dict[str, int]:
        """Bytes on disk of each table that is there."""
        return {name: size for name, (_, size) in self._database.usage().items()}

    def orphans(self) -> dict[str, int]:
        """Rows that no committed step owns, per table: left by a kill, seen by nobody, removed by `clean`."""
        with locks.reading(self._readers):
            found = {name: sum(self._orphans(name).values()) for name in DATA_TABLES}
        return {name: count for name, count in found.items() if count}

    # --- keeping house ---

    def clean(self, *, wait_s: float = 60.0) -> CleanReport:
        """Remove orphan rows, old versions and the files of cut-off writes; join small files. Waits for writer and readers."""
        with self.writer(wait_s=wait_s), self._lease.turn, locks.alone(self._readers, wait_s):
            before = self._database.usage()
            removed = {name: self._remove_orphans(name) for name in DATA_TABLES}
            self._database.tidy()
            after = self._database.usage()
        files, size = (sum(was[i] for was in before.values()) - sum(now[i] for now in after.values()) for i in (0, 1))
        return CleanReport({name: count for name, count in removed.items() if count}, max(files, 0), max(size, 0))

    def _remove_orphans(self, name: str) -> int:
        found = self._orphans(name)
        for where in among("step", found):
            self._database.delete(name, where)
        return sum(found.values())

    def _orphans(self, name: str) -> Counter[str]:
        """Step -> rows in `name` that the ledger does not count as that step's."""
        found = self._database.count_by_step(name)
        for row in self._steps(found) if found else []:
            if row.tables.get(name):
                del found[row.key]
        return found

    # --- without locks, for the above ---

    def _known(self, keys: Iterable[str]) -> set[str]:
        parts = [self._database.rows("steps", where, ["key"]) for where in among("key", keys)]
        return {key for part in parts for key in part.column("key").to_pylist()}

    def _steps(self, keys: Iterable[str] | None) -> list[StepRow]:
        filters: Iterable[str | None] = [None] if keys is None else among("key", keys)
        return [row for where in filters for row in ledger.steps_from_arrow(self._database.rows("steps", where))]

    def _read(self, name: str, steps: Iterable[str], columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        owners = [row.key for row in self._steps(steps) if row.tables.get(name)]
        needed = list(dict.fromkeys([*columns, *table(name).key, "step"]))
        parts = [self._database.rows(name, where, needed) for where in among("step", owners)]
        empty = arrow_schema(name, step=True).empty_table().select(needed)
        return rows.ordered(name, pa.concat_tables([empty, *parts]))


def _columns(name: str, columns: Sequence[str] | None) -> list[str]:
    allowed = table(name).columns
    for column in columns or ():
        if column not in allowed:
            raise BadInput(f"Table '{name}' has no column '{column}'.{nearest(column, allowed)} Columns: {choices(allowed)}.")
    return list(allowed if columns is None else columns)
