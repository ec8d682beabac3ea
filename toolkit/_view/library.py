"""The store that the pages show. Its runs are opened once and kept until they change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, nearest

if TYPE_CHECKING:
    from toolkit._query.run import Run
    from toolkit._run.progress import RunProgress
    from toolkit.ledger import RunRow
    from toolkit.work import Finding

CACHE_SIZE = 16
"""How many opened runs and computed answers are kept: the most recently used."""


class Library:
    """A store, opened read-only. One request at a time uses it, the one that holds `lock`.
    Findings, which take longest, are read meanwhile under a lock of their own.
    """

    def __init__(self, folder: Path) -> None:
        from toolkit_store import open_store

        self.folder = folder
        self.store = open_store(folder, read_only=True)
        self.lock = threading.RLock()
        self._cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._findings_lock = threading.Lock()
        self._findings: dict[tuple[str, int], Sequence[Finding]] = {}

    @property
    def uri(self) -> str:
        """The location of the store."""
        return self.store.uri

    def states(self) -> Sequence[RunRow]:
        """The latest state of each run, oldest first."""
        return self.store.run_states()

    def run(self, name: str) -> Run:
        """A run by its full id. A run in progress is opened again once it has changed."""
        from toolkit._query.run import run_of
        from toolkit._run.run_folder import run_folder, run_ids

        states = self.states()
        ids = {*run_ids(self.folder), *(row.run for row in states)}
        if name not in ids:
            raise BadInput(f"There is no run '{name}' in this store.{nearest(name, ids)}")
        state = next((row for row in states if row.run == name), None)
        journal = run_folder(self.folder, name) / "events.jsonl"
        size = journal.stat().st_size if journal.exists() else 0
        key = ("run", name, state and (state.seq, state.state), size)
        opened: Run = self._cached(key, lambda: run_of(self.store, name, states))
        return opened

    def progress(self, name: str) -> RunProgress:
        """The progress of a run."""
        from toolkit._run.event_log import read_events
        from toolkit._run.progress import progress_of
        from toolkit._run.run_folder import run_folder

        return progress_of(read_events(run_folder(self.folder, self.run(name).id)))

    def findings(self, run: Run) -> Sequence[Finding]:
        """The findings of a run, as its report states them."""
        from toolkit._plugins.loading import load_parts
        from toolkit._report.findings import findings_of
        from toolkit._run.inputs import StoreInputs

        key = (run.id, len(run.steps))
        with self._findings_lock:
            if key not in self._findings:
                inputs = StoreInputs(self.store, {"": run.steps})
                self._findings[key] = findings_of(inputs, load_parts())
            return self._findings[key]

    def cached(self, run: Run, name: str, make: Callable[[], Any], *facts: Any) -> Any:
        """An answer about a run, which is computed again only if the run has changed."""
        return self._cached((name, run.id, len(run.steps), *facts), make)

    def _cached(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]
