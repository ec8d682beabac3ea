"""What follows when a step fails: an attempt on a new worker, an attempt with smaller batches, or
the failure of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit._run import events as ev
from toolkit._run.batch_plans import BatchPlans
from toolkit._run.step_queue import MAX_ATTEMPTS, StepQueue, step_fields
from toolkit._run.workers import WorkerSlot, start_error
from toolkit.executors.protocol import Failed

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage, Step

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")
"""Names of the error classes that mean that memory ran out."""


@dataclass
class Retries:
    """Retries steps whose worker died or ran out of memory, and collects the failures."""

    queue: StepQueue
    batch_plans: BatchPlans
    emit: Callable[[ev.RunEvent], None]
    failures: list[str] = field(default_factory=list)
    """A sentence for each step that failed for good. A run with any of them stops."""

    def on_failed(self, slot: WorkerSlot, event: Failed) -> None:
        """A worker could not start, or its step raised an error."""
        if event.job is None:
            raise start_error(slot, event)
        if event.kind in OUT_OF_MEMORY and self._retry_smaller(slot, event):
            return
        step = self.queue.fail(event.job)
        slot.job = None
        part = step.stage.part.name
        self._give_up(slot, step, event.message, event.traceback, f" ({part})")

    def on_worker_died(self, slot: WorkerSlot) -> None:
        """Give the step of a dead worker to a new one, a few times: if workers keep dying, the step
        is the cause.
        """
        slot.ended = True
        end = slot.pool.replace(slot)
        if slot.job is None:
            return
        step, attempt = self.queue.retry(slot.job, "its worker died")
        if attempt > MAX_ATTEMPTS:
            log = slot.request.folder / f"{slot.worker.name}.log"
            error = f"its worker died {MAX_ATTEMPTS} times ({end.text}); its log: {log}"
            self._give_up(slot, step, error)
            return
        change = self._halve_batches(step.stage) if end.out_of_memory else ""
        self._announce(ev.StepRetried, slot, step, end.text + change, attempt)

    def _retry_smaller(self, slot: WorkerSlot, event: Failed) -> bool:
        """Retry a step that ran out of memory with batches half as large. Returns whether that is
        possible: a stage without a batch plan has no batches to halve.
        """
        assert event.job is not None
        stage = self.queue.running[event.job].stage
        change = self._halve_batches(stage)
        if not change:
            return False
        step, attempt = self.queue.retry(event.job, "it ran out of memory")
        slot.job = None
        if attempt > MAX_ATTEMPTS:
            error = f"{event.message} ({MAX_ATTEMPTS} attempts, each with smaller batches)"
            self._give_up(slot, step, error, event.traceback, f" ({stage.part.name})")
        else:
            cause = f"out of memory{change}"
            self._announce(ev.StepRetriedSmaller, slot, step, cause, attempt)
        return True

    def _halve_batches(self, stage: Stage) -> str:
        """Halve the batches of a stage and describe the change; empty if they cannot be halved."""
        smaller = self.batch_plans.halve(stage)
        if smaller is None:
            return ""
        changed = self.batch_plans.event(stage)
        if changed is not None:
            self.emit(changed)
        sizes = ", ".join(f"{name} {size}" for name, size in smaller.items())
        return f"; its batches are halved: {sizes}"

    def _announce(
        self, event: type[ev.StepRetried], slot: WorkerSlot, step: Step, cause: str, attempt: int
    ) -> None:
        self.emit(
            event(
                **step_fields(step),
                worker=slot.worker.name,
                how=cause,
                attempt=attempt,
                attempts=MAX_ATTEMPTS,
            )
        )

    def _give_up(
        self, slot: WorkerSlot, step: Step, error: str, traceback: str = "", part: str = ""
    ) -> None:
        self.failures.append(f"stage '{step.stage.id}', step {step.index}{part}: {error}")
        self.emit(
            ev.StepFailure(
                **step_fields(step), worker=slot.worker.name, error=error, traceback=traceback
            )
        )
