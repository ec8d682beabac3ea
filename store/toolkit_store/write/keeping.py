"""How tables are written to and kept: with the lease in hand, and never from a file that is not
what was written.

Joining files, making an index and deriving postings all write new files from old ones, with hashes
of their own; so the old ones are held against the record first (`FileRecord.hold`), and a damaged
one is told and left where it is. Joining and indexing disturb no reader; only what removes files
needs them to be away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from toolkit.ledger import StepRow
from toolkit.tables import TABLES
from toolkit_store.database import among
from toolkit_store.place import Place
from toolkit_store.upkeep.file_record import every, joined
from toolkit_store.upkeep.lance_manifest import Fragment

if TYPE_CHECKING:
    import pyarrow as pa

Ledger = Callable[[Iterable[str] | None], list[StepRow]]
"""The ledger's rows of some steps, or all."""


@dataclass(frozen=True)
class CleanReport:
    """What `clean` removed: rows that no committed step owns, per table, and the files and bytes
    given back.
    """

    rows: Mapping[str, int]
    files: int
    bytes: int


class Keeper:
    """Writes to the tables of a place."""

    def __init__(self, place: Place, ledger: Ledger) -> None:
        self._database, self._files, self._lease, self._ledger = (
            place.database,
            place.files,
            place.lease,
            ledger,
        )

    def append(self, name: str, batch: pa.Table) -> None:
        """Append rows; where many small files have gathered, they are joined first."""
        self._lease.check()
        self._begin(name)
        if self._database.crowded(name):
            self._files.hold(name, joined)
            self._database.join(name)
        self._database.append(name, batch)

    def delete(self, name: str, where: str) -> None:
        """Remove rows, if there are any."""
        self._lease.check()
        self._database.delete(name, where)

    def hold_steps(self, name: str, steps: Iterable[str]) -> None:
        """Refuse to go on if a file with rows of these steps is not what was written."""
        self._begin(name)
        asked = cache(
            lambda: {
                number
                for where in among("step", steps)
                for number in self._database.fragments_of(name, where)
            }
        )
        self._files.hold(name, lambda fragment: fragment.id in asked())

    def tidy(self, *, settling: bool) -> None:
        """Join small files and bring indexes up to date; `settling`, after postings were added.
        Others read meanwhile.
        """
        for name in TABLES:
            self._begin(name)
            makes_index = cache(partial(self._database.makes_index, name, settling=settling))
            self._files.hold(name, _joined_or(makes_index))
            self._lease.check()
            (self._database.settle if settling else self._database.tidy)(name)
            self._files.note(name)

    def drop_old(self, *, settling: bool) -> None:
        """Remove what no read needs any more; nobody may be reading."""
        for name in TABLES:
            self._database.drop_old(name, settling=settling)
            self._files.renew(name)

    def orphans(self, name: str) -> Counter[str]:
        """Step -> rows in `name` that the ledger does not count as that step's."""
        found = self._database.count_by_step(name)
        for row in self._ledger(found) if found else []:
            if row.tables.get(name):
                del found[row.key]
        return found

    def remove_orphans(self, name: str) -> int:
        """How many rows were removed. None are while a file is damaged: rows might be taken for a
        step's that is not there.
        """
        found = self.orphans(name)
        if found:
            self._begin(name)
            self._files.hold(name, every)
        for where in among("step", found):
            self.delete(name, where)
        return sum(found.values())

    def used(self, name: str) -> bool:
        """Whether a step of the ledger has rows in a table; the ledger's own tables always are."""
        return TABLES[name].ledger or any(row.tables.get(name) for row in self._ledger(None))

    def report(
        self, before: Mapping[str, tuple[int, int]], removed: Mapping[str, int]
    ) -> CleanReport:
        """What is gone since the database used that much."""
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


def _joined_or(every: Callable[[], bool]) -> Callable[[Fragment], bool]:
    return lambda fragment: joined(fragment) or every()
