"""Committing: from a finished job folder to rows in the store, the step's ledger row last.

Only the host commits. A step exists once its ledger row is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from sys import intern
from typing import TYPE_CHECKING

from toolkit._run.events import RunEvent, StoreWaiting, now
from toolkit._run.interrupts import Interrupts
from toolkit._run.job_folder import collect
from toolkit._run.job_folders import JobFolders
from toolkit.errors import StepFailed
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit._plan.plan import Plan, Step
    from toolkit._run.step_queue import StepQueue
    from toolkit_store import Store

LEASE_POLL_SECONDS = 0.5


class Committer:
    """Writes one run's steps and states to a store."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        folders: JobFolders,
        interrupts: Interrupts,
        emit: Callable[[RunEvent], None],
    ) -> None:
        self._plan, self._store, self._folders = plan, store, folders
        self._interrupts, self._emit = interrupts, emit

    def is_finished(self, step: Step) -> bool:
        """Whether a worker finished the step before the last stop and it was not committed."""
        return collect(self._folders.of(step)) is not None

    def commit(self, steps: Sequence[tuple[Step, str]]) -> list[StepRow]:
        """Commit finished steps, each with the worker that computed it, in one write, and empty
        their job folders.
        """
        finished = [self._finished(step, worker) for step, worker in steps]
        with self._lease():
            self._store.commit_many(finished)
        rows = [row for row, _ in finished]
        del finished  # the files are mapped
        for step, _ in steps:
            self._folders.empty(step)
        return rows

    def _finished(self, step: Step, worker: str) -> tuple[StepRow, Mapping[str, pa.Table]]:
        folder = self._folders.of(step)
        collected = collect(folder)
        if collected is None:
            raise StepFailed(
                f"stage '{step.stage.id}', step {step.index}: the files in {folder} are not those "
                "the worker wrote. Examine the disk, then run again."
            )
        done, tables = collected
        counts = {intern(name): len(rows) for name, rows in tables.items()}
        return self._row(step, worker, done["seconds"], counts), tables

    def record_state(self, state: str, note: str, queue: StepQueue, *, wait: bool = True) -> None:
        """Record a change of the run's state with the steps that it has so far. Without `wait`,
        nothing is recorded in a store that another process holds.
        """
        done, total = queue.counts()
        with self._lease(wait=wait) as has_lease:
            if not has_lease:
                return
            self._store.record_run(
                run=self._plan.run,
                name=self._plan.name,
                state=state,
                done=done,
                total=total,
                note=note,
                steps=list(dict.fromkeys([*queue.keys(), *self._imported()])),
            )

    @contextmanager
    def _lease(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lease of the store. While another process has it, say so once, and react to
        Ctrl-C.
        """
        from toolkit_store.locks import InUse

        announced: list[str] = []

        def announce(text: str) -> None:
            if wait and not announced:
                announced.append(text)
                self._emit(StoreWaiting(text=text))

        with ExitStack() as stack:
            while True:
                try:
                    lease = self._store.writer(wait_s=LEASE_POLL_SECONDS, on_wait=announce)
                    stack.enter_context(lease)
                except InUse:
                    if not wait:
                        break
                    self._interrupts.check()
                else:
                    yield True
                    return
        yield False

    def _imported(self) -> list[str]:
        """Steps that imports have added to the run, before it began or meanwhile: no stage of the
        run makes them, and it keeps them.
        """
        states = self._store.run_states(self._plan.run)
        keys = [key for row in states for key in row.steps]
        return [row.key for row in self._store.steps(keys) if row.imported]

    def _row(self, step: Step, worker: str, seconds: float, tables: Mapping[str, int]) -> StepRow:
        return StepRow(
            key=step.key,
            experiment=step.stage.experiment,
            stage=step.stage.id,
            part=step.stage.part.name,
            part_version=step.stage.part.version,
            run=self._plan.run,
            index=step.index,
            material=step.material,
            tables=tables,
            worker=worker,
            seconds=seconds,
            committed_at=now(),
            first=step.first,
            last=step.last,
        )
