"""Committed steps and their rows: a ledger of steps over tables of rows.

Every data table has the column `step`. The ledger `steps` has one row per committed step, written
last and atomically; reads only return rows of steps in the ledger. So a kill leaves either a
complete step or invisible rows, which committing the same step again removes first. One process
writes at a time (`toolkit_store.locks`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import BadInput, StoreError, StoreNotUsable, choices, nearest
from toolkit.ledger import RunRow, StepRow
from toolkit.tables import DATA_TABLES, arrow_schema, table
from toolkit_store import derived_steps, locks
from toolkit_store.database import BITMAPS_FROM, Database
from toolkit_store.file_record import Damaged
from toolkit_store.filters import among, equals
from toolkit_store.lance import Patience, repeated
from toolkit_store.location import Location
from toolkit_store.write import by_space, ledger, rows
from toolkit_store.write.keeping import TableWriter
from toolkit_store.write.shared import SharedRows

if TYPE_CHECKING:
    import pyarrow as pa

Tables = Mapping[str, "Iterable[pa.Table] | pa.Table"]
"""Rows by the name of their table."""


class StepStore:
    """Commits and reads steps. `toolkit_store.store.Store` adds indexes and maintenance."""

    def __init__(self, location: Location, *, read_only: bool = False) -> None:
        self.folder, self.uri, self.read_only = location.folder, location.uri, read_only
        self.database: Database = location.database
        self.database.read_only = read_only
        self._location, self._files, self._lease = location, location.files, location.lease
        self._keeper = TableWriter(location, self._steps)
        self._present: dict[str, tuple[int, set[str]]] = {}
        self._shared: dict[str, SharedRows] = {}
        self._sound = False

    # --- writing ---

    def writer(
        self, *, wait_s: float | None = None, on_wait: locks.OnWait = locks.log_wait
    ) -> AbstractContextManager[None]:
        """The lease to write. Hold it for a whole run; each commit inside enters it again at no
        cost.

        While another process has it, `on_wait` says once a minute who has it and since when; after
        `wait_s` seconds, if given, `InUse` is raised.
        """
        if self.read_only:
            raise StoreError(
                f"The store at {self.uri} was opened for reading only; open it without read_only "
                "to write."
            )
        return self._writing(wait_s, on_wait)

    @contextmanager
    def _writing(self, wait_s: float | None, on_wait: locks.OnWait) -> Iterator[None]:
        with self._lease.holding(wait_s, on_wait):
            if not self._sound:
                self._keeper.verify_tables()
                self.database.check_columns()
                self._sound = True
            yield

    def commit(self, row: StepRow, tables: Tables) -> bool:
        """Store a step's rows and enter the step into the ledger; False, with nothing written, if
        it was there already.

        `row.tables` is set here to the counts of rows written, so that the ledger is right by
        construction.
        """
        return self.commit_many([(row, tables)]) == 1

    def commit_many(self, steps: Sequence[tuple[StepRow, Tables]]) -> int:
        """`commit` for several steps, all or none: rows of one table are written together. Returns
        how many steps were new.
        """
        for _, tables in steps:
            for name in tables:
                rows.check_name(name)
        return self.commit_derived(steps)

    def commit_derived(self, steps: Sequence[tuple[StepRow, Tables]]) -> int:
        """`commit_many` for the store's own steps, which write the tables that it derives."""
        with self.writer(), self._lease.turn:
            new = self._new(steps)
            left, patience = new, Patience()
            while left:
                try:
                    self._write(left)
                    break
                except StoreError as error:
                    if not _can_repeat(left) or not patience.covers(error):
                        raise
                    left = self._new(left)  # the ledger may have taken it, and not answered
        return len(new)

    def _new(self, steps: Sequence[tuple[StepRow, Tables]]) -> list[tuple[StepRow, Tables]]:
        """Those of the steps that the ledger does not have, each once."""
        known = self._known([row.key for row, _ in steps])
        return list(
            {row.key: (row, tables) for row, tables in steps if row.key not in known}.values()
        )

    def _write(self, steps: Sequence[tuple[StepRow, Tables]]) -> None:
        """Write the rows of steps, then enter the steps into the ledger. Rows that an attempt left
        are removed first.
        """
        counts: dict[str, dict[str, int]] = {row.key: {} for row, _ in steps}
        shared: dict[str, dict[str, str]] = {row.key: {} for row, _ in steps}
        for name in dict.fromkeys(name for _, tables in steps for name in tables):
            parts = {row.key: tables[name] for row, tables in steps if name in tables}
            if table(name).shared:
                fitted = {key: self._fitted(name, part, key) for key, part in parts.items()}
                owners, first = self._shared_rows(name).divide(fitted, self._known)
                self._take(name, [(key, part.drop_columns("step")) for key, part in first.items()])
                for key, owner in owners.items():
                    shared[key] |= owner
                    counts[key][name] = len(owner)
                continue
            for key, count in self._take(name, list(parts.items())).items():
                counts[key][name] = count
        self._enter(
            [replace(row, tables=counts[row.key], shared=shared[row.key]) for row, _ in steps]
        )

    def _fitted(self, name: str, chunks: Iterable[pa.Table] | pa.Table, key: str) -> pa.Table:
        import pyarrow as pa

        empty = arrow_schema(name, step=True).empty_table()
        return pa.concat_tables([empty, *rows.batches(name, chunks, key)])

    def _shared_rows(self, name: str) -> SharedRows:
        if name not in self._shared:
            self._shared[name] = SharedRows(self.database, name)
        return self._shared[name]

    def _enter(self, new: Sequence[StepRow]) -> None:
        with self._taking(new[0].key):
            self._keeper.append("steps", ledger.steps_to_arrow(new))
            self._files.note("steps")

    def _take(
        self, name: str, parts: Sequence[tuple[str, Iterable[pa.Table] | pa.Table]]
    ) -> Mapping[str, int]:
        """Remove rows of interrupted attempts, then append the rows of each step to a table; return
        the number of rows of each.
        """
        keys = [key for key, _ in parts]
        with self._taking(keys[0]):
            present = self._steps_present(name)
            for where in among("step", keys if present is None else present.intersection(keys)):
                self._keeper.delete(name, where)
        counts = dict.fromkeys(keys, 0)
        for batch in rows.joined(self._counting(name, parts, counts)):
            with self._taking(keys[0]):
                self._keeper.append(name, batch)
        if any(counts.values()):
            with self._taking(keys[0]):
                self._files.note(name)
                if present is not None:
                    present.update(keys)
                    self._present[name] = self.database.version(name), present
        return counts

    def _counting(
        self,
        name: str,
        parts: Sequence[tuple[str, Iterable[pa.Table] | pa.Table]],
        counts: dict[str, int],
    ) -> Iterator[pa.Table]:
        for key, chunks in parts:
            for batch in rows.batches(name, chunks, key):
                counts[key] += batch.num_rows
                yield batch

    def _steps_present(self, name: str) -> set[str] | None:
        """The steps that have rows in a table, in the ledger or not; read again only after another
        process has written to it.

        None for a large table, which is queried for the given keys only.
        """
        version = self.database.version(name)
        if self._present.get(name, (None,))[0] != version:
            if self.database.count(name) >= BITMAPS_FROM:
                return None
            self._present[name] = version, set(self.database.count_by_step(name))
        return self._present[name][1]

    @contextmanager
    def _taking(self, key: str) -> Iterator[None]:
        try:
            yield
        except (Damaged, StoreNotUsable) as error:
            raise StoreError(f"The store could not take step {key}: {error}") from error
        except (StoreError, OSError) as error:
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
        """Append a change of a run's state; time, process and host are this process's unless
        given.
        """
        with self.writer(), self._lease.turn:
            past = self.database.rows("runs", equals("run", run), ["seq"]).column("seq").to_pylist()
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
            with maintaining(self.uri):
                repeated(partial(self._append_state, row))
                self._files.note("runs")
        return row

    def _append_state(self, row: RunRow) -> None:
        where = f"{equals('run', row.run)} AND seq = {row.seq}"
        if not self.database.rows("runs", where, ["seq"]).num_rows:
            self._keeper.append("runs", ledger.run_to_arrow(row))

    def verify(self, name: str) -> None:
        """Refuse to derive anything from a table with a damaged file."""
        self._keeper.verify(name)

    # --- reading ---

    def has(self, keys: Iterable[str]) -> set[str]:
        """The committed keys among `keys`."""
        with self.reading():
            return self._known(keys)

    def steps(
        self,
        keys: Iterable[str] | None = None,
        *,
        experiment: str | None = None,
        stage: str | None = None,
    ) -> list[StepRow]:
        """The ledger, or the requested part of it, by experiment, stage and index; without the
        store's own steps.
        """
        with self.reading():
            results = [row for row in self._steps(keys) if not derived_steps.is_derived(row)]
        condition = (
            row
            for row in results
            if experiment in (None, row.experiment) and stage in (None, row.stage)
        )
        return sorted(condition, key=lambda row: (row.experiment, row.stage, row.index, row.key))

    def index_steps(self, keys: Iterable[str]) -> list[StepRow]:
        """The store's own committed steps."""
        with self.reading():
            return self._steps(keys)

    def reading(self) -> AbstractContextManager[None]:
        """Keep files that a read may need from being removed inside the block."""
        return self._location.reading()

    def read(
        self, table: str, steps: Iterable[str], columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows that the committed ones of `steps` wrote to `table`, by the table's key."""
        selected = _columns(table, columns)
        with self.reading():
            return self._read(table, steps, selected).select(selected)

    def read_by_space(self, table: str, steps: Iterable[str], scratch: Path) -> Iterator[pa.Table]:
        """The rows of `read`, one part per value of the first key column: one part in memory, the
        others in the file `scratch`.
        """
        schema = arrow_schema(table, step=True)
        try:
            with self.reading():
                owners = self._owners(table, steps)
                chunks = (
                    chunk
                    for where in among("step", owners)
                    for chunk in self.database.batches(table, where)
                )
                pieces, count = by_space.divide(chunks, schema, schema.names[0], scratch)
            self._check_count(table, count, sum(owners.values()))
            for part in by_space.parts(pieces, scratch):
                yield rows.ordered(table, part).select(_columns(table, None))
        finally:
            scratch.unlink(missing_ok=True)

    def run_states(self, run: str | None = None) -> list[RunRow]:
        """The latest row of each run, oldest first; with `run`, of that one (empty when it is
        unknown).
        """
        with self.reading():
            rows = self.database.rows("runs", None if run is None else equals("run", run))
        latest = {
            row.run: row for row in sorted(ledger.runs_from_arrow(rows), key=lambda row: row.seq)
        }
        return sorted(latest.values(), key=lambda row: (row.at, row.run))

    def fingerprint(self, steps: Iterable[str]) -> dict[str, str]:
        """A hash of the rows that `steps` wrote to each data table: equal hashes mean identical
        results. Empty tables are left out.
        """
        keys = list(steps)
        results = {name: self.read(name, keys) for name in DATA_TABLES}
        return {name: rows.digest(content) for name, content in results.items() if content.num_rows}

    # --- helpers, without locks ---

    def _known(self, keys: Iterable[str]) -> set[str]:
        parts = [self.database.rows("steps", where, ["key"]) for where in among("key", keys)]
        return {key for part in parts for key in part.column("key").to_pylist()}

    def _steps(self, keys: Iterable[str] | None) -> list[StepRow]:
        filters: Iterable[str | None] = [None] if keys is None else among("key", keys)
        return [
            row
            for where in filters
            for row in ledger.steps_from_arrow(self.database.rows("steps", where))
        ]

    def _read(self, name: str, steps: Iterable[str], columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        if table(name).shared:
            return self._read_shared(name, steps)
        owners = self._owners(name, steps)
        needed = list(dict.fromkeys([*columns, *table(name).key, "step"]))
        parts = [self.database.rows(name, where, needed) for where in among("step", owners)]
        empty = arrow_schema(name, step=True).empty_table().select(needed)
        result = pa.concat_tables([empty, *parts])
        self._check_count(name, result.num_rows, sum(owners.values()))
        return rows.ordered(name, result)

    def _read_shared(self, name: str, steps: Iterable[str]) -> pa.Table:
        """The stored rows that these steps wrote or refer to."""
        import pyarrow as pa

        owners_of_rows = {pair for row in self._steps(steps) for pair in row.shared.items()}
        (key,) = table(name).key
        parts = [
            self.database.rows(name, where)
            for where in among(key, sorted({value for value, _ in owners_of_rows}))
        ]
        result = pa.concat_tables([arrow_schema(name, step=True).empty_table(), *parts])
        pairs = zip(result[key].to_pylist(), result["step"].to_pylist(), strict=True)
        result = result.filter(pa.array([pair in owners_of_rows for pair in pairs], pa.bool_()))
        self._check_count(name, result.num_rows, len(owners_of_rows))
        return rows.ordered(name, result)

    def _owners(self, name: str, steps: Iterable[str]) -> dict[str, int]:
        """The committed steps among these that have rows in a table, and how many each has."""
        return {row.key: row.tables[name] for row in self._steps(steps) if row.tables.get(name)}

    def _check_count(self, name: str, count: int, expected: int) -> None:
        """Refuse a table whose number of rows differs from the ledger's: a process that lost the
        lease wrote more, or a file is gone.
        """
        ledger.check_count(f"Table '{name}' in {self.uri}", count, expected)


def _can_repeat(steps: Sequence[tuple[StepRow, Tables]]) -> bool:
    """Whether the rows of the steps can be read again: they are whole tables, not iterators."""
    import pyarrow as pa

    return all(isinstance(part, pa.Table) for _, tables in steps for part in tables.values())


def _columns(name: str, columns: Sequence[str] | None) -> list[str]:
    allowed = table(name).columns
    for column in columns or ():
        if column not in allowed:
            raise BadInput(
                f"Table '{name}' has no column '{column}'.{nearest(column, allowed)} Columns: "
                f"{choices(allowed)}."
            )
    return list(allowed if columns is None else columns)


@contextmanager
def maintaining(uri: str) -> Iterator[None]:
    try:
        yield
    except (Damaged, StoreNotUsable, locks.InUse):
        raise
    except (StoreError, OSError) as error:
        raise StoreError(
            f"The store at {uri} could not be maintained: {error} What was committed is "
            f"safe; free space and issue the same command again."
        ) from error
