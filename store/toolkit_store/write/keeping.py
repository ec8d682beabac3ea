"""Write and maintain tables, only with the lease, and never from a damaged file.

Joining files, making an index and deriving postings all write new files from old ones, with hashes
of their own; so the files of the table are verified first (`FileRecord.verify`), and a damaged one
is named and left as it is. Joining and indexing disturb no reader; only removing files requires
that nobody reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from toolkit.ledger import StepRow
from toolkit.tables import DATA_TABLES, TABLES
from toolkit_store.file_record import Damaged
from toolkit_store.filters import among
from toolkit_store.heap import release_free_memory
from toolkit_store.location import Location
from toolkit_store.locks import InUse
from toolkit_store.write import ledger

if TYPE_CHECKING:
    import pyarrow as pa

Ledger = Callable[[Iterable[str] | None], list[StepRow]]
"""The ledger's rows of some steps, or all."""


@dataclass(frozen=True)
class CleanReport:
    """What `clean` removed: rows that no committed step owns, per table, and the files and bytes
    freed.
    """

    rows: Mapping[str, int]
    files: int
    bytes: int


class TableWriter:
    """Writes to the tables at a location."""

    def __init__(self, location: Location, steps: Ledger) -> None:
        self._location = location
        self._database, self._files, self._lease = location.database, location.files, location.lease
        self._ledger = steps

    def append(self, name: str, batch: pa.Table) -> None:
        """Append rows; where many small files have gathered, they are joined first, and the old
        ones removed unless another process is reading.
        """
        self._lease.check()
        self._begin(name)
        if self._database.crowded(name):
            self._files.verify(name)
            self._database.join(name)
            with suppress(InUse), self._location.alone(0):
                self._remove_old(name, reindexing=False)
            release_free_memory()
        self._database.append(name, batch)

    def delete(self, name: str, where: str) -> None:
        """Remove rows, if there are any."""
        self._lease.check()
        self._database.delete(name, where)

    def verify(self, name: str) -> None:
        """Raise an error if a file of the table differs from what was written."""
        self._begin(name)
        self._files.verify(name)

    def verify_tables(self) -> None:
        """Refuse to write to a store in which a table, or its record, is gone or not sound."""
        used = self.used_tables()
        for name in TABLES:
            for path, fault in self._files.faults(name, partial(used.__contains__, name)):
                raise Damaged(path, fault)

    def compact(self, *, reindexing: bool) -> None:
        """Join small files and bring indexes up to date; `reindexing`, after postings were added.
        Others read meanwhile.
        """
        for name in self._tables():
            self.verify(name)
        for name in self._tables():
            self._lease.check()
            (self._database.reindex if reindexing else self._database.compact)(name)
            self._files.note(name)

    def drop_old(self, *, reindexing: bool) -> None:
        """Remove files that no read needs any more. The caller has excluded readers."""
        for name in self._tables():
            self._remove_old(name, reindexing=reindexing)

    def _tables(self) -> list[str]:
        """The existing tables."""
        return [name for name in TABLES if self._database.version(name)]

    def _remove_old(self, name: str, *, reindexing: bool) -> None:
        self._files.begin_removal(name)
        self._database.drop_old(name, reindexing=reindexing)
        self._files.renew(name)

    def orphans(self, name: str) -> Counter[str]:
        """Step -> rows in `name` that the ledger does not count as that step's."""
        rows = self._database.count_by_step(name)
        for row in self._ledger(rows) if rows else []:
            if ledger.stored_count(row, name):
                del rows[row.key]
        return rows

    def remove_orphans(self, name: str) -> int:
        """Remove orphan rows and return how many. While a file is damaged nothing is removed: rows
        of a committed step might be taken for orphans.
        """
        orphans = self.orphans(name)
        if orphans:
            self.verify(name)
        for where in among("step", orphans):
            self.delete(name, where)
        return sum(orphans.values())

    def used(self, name: str) -> bool:
        """Whether a step of the ledger has rows in a table, or the ledger's own table is there."""
        return name in self.used_tables()

    def used_tables(self) -> set[str]:
        """The tables in which steps of the ledger have rows, and those of the ledger itself."""
        written = self._database.rows("steps", None, ["tables"])["tables"].unique().to_pylist()
        counts = [ledger.counts(text, "(unknown)") for text in written]
        ledgers = {name for name in TABLES if TABLES[name].ledger and self._database.version(name)}
        if "steps" not in ledgers and self._database.rows("runs", "done > 0", ["run"]).num_rows:
            ledgers.add("steps")
        return ledgers | {
            name for name in DATA_TABLES if any(tables.get(name) for tables in counts)
        }

    def report(
        self, before: Mapping[str, tuple[int, int]], removed: Mapping[str, int]
    ) -> CleanReport:
        """What was removed, given the earlier usage of the database."""
        after = self._database.usage()
        files, size = (
            sum(was[i] for was in before.values()) - sum(now[i] for now in after.values())
            for i in (0, 1)
        )
        return CleanReport(
            {name: count for name, count in removed.items() if count}, max(files, 0), max(size, 0)
        )

    def _begin(self, name: str) -> None:
        self._files.begin(name, partial(self.used, name))
