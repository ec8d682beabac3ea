"""An open store: committed steps, the indexes derived from them, and maintenance."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from toolkit.tables import DATA_TABLES
from toolkit_store import derived_steps, locks
from toolkit_store.filters import among
from toolkit_store.index import build as indexing
from toolkit_store.index.postings import number_key, space_key
from toolkit_store.indexed_columns import ALWAYS
from toolkit_store.location import open_location
from toolkit_store.step_store import StepStore, maintaining
from toolkit_store.upkeep import check as checking
from toolkit_store.upkeep.check import CheckReport
from toolkit_store.write.keeping import CleanReport


def open_store(
    path: str | Path, *, create: bool = False, read_only: bool = False, values: str | None = None
) -> Store:
    """Open the store in that folder or at that URI, or raise `StoreNotUsable`, which says what is
    there and what to do.

    A new store keeps activations as float32, or with `values="float16"` as float16.
    """
    return Store(
        open_location(path, create=create, read_only=read_only, values=values), read_only=read_only
    )


class Store(StepStore):
    """An open store. Made by `open_store`."""

    def index(self, steps: Iterable[str], *, run: str = "") -> int:
        """Derive the missing postings of these steps' activations; return the number of new index
        steps.

        Call it when a run's steps have committed. It may be cut off and repeated. Other processes
        may commit meanwhile.
        """
        with self.reading():
            committed = self._steps(steps)
        cover = derived_steps.covered(committed)
        if not cover:
            return 0
        made = indexing.build(
            self,
            self.database,
            cover,
            [row.key for row in committed if row.tables.get("samples")],
            run,
        )
        if not all(map(self.database.indexed, ALWAYS)):
            self._compact(reindexing=True)
        return made

    def sizes(self) -> dict[str, int]:
        """Bytes on disk of each existing table."""
        return {name: size for name, (_, size) in self.database.usage().items()}

    def bytes_per_row(self) -> dict[str, float]:
        """Stored bytes of a row of each data table; those of `activations` with its index."""
        sizes = self.sizes()
        sizes["activations"] = sizes.get("activations", 0) + sizes.get("postings", 0)
        rows = {name: self.database.count(name) for name in DATA_TABLES}
        return {name: sizes.get(name, 0) / count for name, count in rows.items() if count}

    def orphans(self) -> dict[str, int]:
        """Rows that no committed step owns, per table: left by a kill, invisible to reads, removed
        by `clean`.
        """
        with self.reading():
            results = {name: sum(self._keeper.orphans(name).values()) for name in DATA_TABLES}
        return {name: count for name, count in results.items() if count}

    def clean(self, *, wait_s: float = 60.0) -> CleanReport:
        """Remove orphan rows, old versions and the files of cut-off writes; join small files. Waits
        for writer and readers.
        """
        with self.writer(wait_s=wait_s), self._lease.turn, maintaining(self.uri):
            before = self.database.usage()
            removed = {name: self._keeper.remove_orphans(name) for name in DATA_TABLES}
            self._keeper.compact(reindexing=False)
            indexing.sweep(self.folder / "scratch")
            with self._location.alone(wait_s):
                self._keeper.drop_old(reindexing=False)
            self._present.clear()
            return self._keeper.report(before, removed)

    def compact(self) -> CleanReport:
        """Join small files and bring indexes up to date; old versions are removed too, unless
        another process is reading.
        """
        return self._compact(reindexing=False)

    def _compact(self, *, reindexing: bool) -> CleanReport:
        with self.writer(), self._lease.turn, maintaining(self.uri):
            before = self.database.usage()
            self._keeper.compact(reindexing=reindexing)
            with suppress(locks.InUse), self._location.alone(0):
                self._keeper.drop_old(reindexing=reindexing)
            self._present.clear()
            return self._keeper.report(before, {})

    def gc(self, *, wait_s: float = 60.0) -> CleanReport:
        """`clean`, after removing indexes that no run uses any more; they are rebuilt when
        requested.
        """
        with self.writer(wait_s=wait_s), self._lease.turn:
            self._drop_indexes()
            return self.clean(wait_s=wait_s)

    def _drop_indexes(self) -> None:
        """Remove index steps from the ledger; their rows become orphans."""
        used: set[str] = set()
        for state in self.run_states():
            rows = self._steps(state.steps)
            key = number_key(derived_steps.covered(rows))
            used |= {
                key,
                *(
                    space_key(key, space)
                    for row in self._steps([key])
                    for space in derived_steps.spaces_of(row)
                ),
            }
        unused = [
            row.key
            for row in self._steps(None)
            if derived_steps.is_index(row) and row.key not in used
        ]
        for where in among("key", unused):
            self._keeper.delete("steps", where)

    def check(self) -> CheckReport:
        """Compare every file with the size and SHA-256 recorded when it was written, and the rows
        with the ledger.
        """
        with self.reading():
            return checking.report(
                self._location, lambda: self._steps(None), self._keeper.used_tables
            )
