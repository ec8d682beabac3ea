"""Where the result of a step comes from: the store, a job folder that an earlier run left, or a
worker of this run. Each result is committed, unless it already is, and announced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit._run import events as ev
from toolkit._run.committer import Committer
from toolkit._run.pending import TOGETHER, FinishedStep, PendingCommits
from toolkit._run.step_queue import StepQueue, step_fields
from toolkit.executors.protocol import JobResult, fields_of
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage, Step


@dataclass
class StepResults:
    """Commits and counts the results of one run's steps."""

    queue: StepQueue
    committer: Committer
    pending: PendingCommits
    forecast: Callable[[Stage, float | None, str], None]
    """Called with a stage, its expected seconds, and what they are based on."""
    emit: Callable[[ev.RunEvent], None]
    computed: int = 0
    reused: int = 0

    def reuse(self, step: Step, row: StepRow) -> None:
        """Count a step that the store has as done, and announce it."""
        for other in self.queue.commit(step, row):
            self._announce_reuse(other)
        self._announce_reuse(step)

    def recover(self, steps: Sequence[Step]) -> set[str]:
        """Commit those of the steps that a worker of an earlier run finished; return their keys."""
        finished = [
            step
            for step in steps
            if step.key not in self.queue.running and self.committer.is_finished(step)
        ]
        for start in range(0, len(finished), TOGETHER):
            batch = finished[start : start + TOGETHER]
            with self.pending.recovering():
                self._commit([(step, "an earlier worker") for step in batch])
            for step in batch:
                self.emit(ev.StepRecovered(**step_fields(step)))
        return {step.key for step in finished}

    def commit_pending(self) -> None:
        """Commit the steps that workers have finished, and announce each of them."""
        with self.pending.writing() as finished:
            rows = self._commit([(step.step, step.worker) for step in finished])
        for step, row in zip(finished, rows, strict=True):
            self._announce_done(step, row)

    def _commit(self, steps: Sequence[tuple[Step, str]]) -> list[StepRow]:
        rows = self.committer.commit(steps)
        for (step, _), row in zip(steps, rows, strict=True):
            self.computed += 1
            for other in self.queue.commit(step, row):
                self._announce_reuse(other)
        return rows

    def _announce_reuse(self, step: Step) -> None:
        self.reused += 1
        self.emit(ev.StepReused(**step_fields(step)))

    def _announce_done(self, finished: FinishedStep, row: StepRow) -> None:
        step, event = finished.step, finished.done
        left = self.queue.left_of(step.stage.id)
        expected = event.seconds * (1 + left) if left else None
        self.forecast(step.stage, expected, "its first step")
        self.emit(
            ev.StepDone(
                **step_fields(step),
                worker=finished.worker,
                **{**fields_of(JobResult, event), "rows": dict(row.tables)},
            )
        )
