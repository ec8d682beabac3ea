"""Running a plan: expand a stage when its needs are committed, reuse what the store has, hand the
rest to workers, commit.

The program may be killed at any point: the same command finds what is committed, commits finished
job folders that were not, and computes the rest.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._run import events as ev
from toolkit._run.batch_plans import BatchPlans
from toolkit._run.committer import Committer
from toolkit._run.expansion import StageExpander
from toolkit._run.inputs import InputFiles
from toolkit._run.interrupts import Interrupts
from toolkit._run.job_folders import JobFolders
from toolkit._run.job_message import JobMessages
from toolkit._run.pending import URI_SECONDS, FinishedStep, PendingCommits
from toolkit._run.retries import Retries
from toolkit._run.run_folder import at_uri, resume_command
from toolkit._run.step_queue import StepQueue, step_fields
from toolkit._run.step_results import StepResults
from toolkit._run.watchdog import Watchdog
from toolkit._run.workers import Inbox, WorkerPool, WorkerSlot
from toolkit.errors import Interrupted, StepFailed
from toolkit.executors.protocol import (
    Alive,
    Done,
    Failed,
    Hello,
    JobReport,
    Phase,
    Progress,
    WorkerEvent,
)

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan, Stage, Step
    from toolkit_store import Store

TICK_SECONDS = 0.1
WARNING = "warning"
"""The name of a part's event that is a warning, with its `text`."""


@dataclass
class Scheduler:
    """Carries one run from its plan to its last committed step."""

    plan: Plan
    store: Store
    folder: Path
    """The run's folder."""
    pools: Mapping[str, WorkerPool]
    """The workers of each executor."""
    inbox: Inbox
    interrupts: Interrupts
    emit: Callable[[ev.RunEvent], None]

    def __post_init__(self) -> None:
        plan, store, folder = self.plan, self.store, self.folder
        self.queue = StepQueue(list(plan.stages))
        self._folders = JobFolders(folder / "jobs")
        self.committer = Committer(plan, store, self._folders, self.interrupts, self.emit)
        self._inputs = InputFiles(store, folder / "inputs")
        self._batch_plans = BatchPlans(folder)
        self._messages = JobMessages()
        self._expander = StageExpander(
            plan, store, self.queue, self._inputs, self._batch_plans, self.emit
        )
        self._watchdog = Watchdog(self.emit)
        self._pending = PendingCommits(URI_SECONDS if at_uri(store.folder) else 0.0)
        self.results = StepResults(
            self.queue, self.committer, self._pending, self._expander.forecast, self.emit
        )
        self._retries = Retries(self.queue, self._batch_plans, self.emit)

    def run(self) -> None:
        """Compute until every step is committed, one has failed, or the user stops it."""
        try:
            self._loop()
        finally:
            for pool in self.pools.values():
                pool.stop(now=bool(self.queue.running))
        self._raise_outcome()

    # --- the loop ---

    def _loop(self) -> None:
        announced = False
        while True:
            stopping = bool(self.interrupts.count or self._retries.failures)
            if not stopping:
                for stage in self.queue.ready_stages():
                    self._open_stage(stage)
                self._dispatch()
            if self.interrupts.count and not announced:
                announced = True
                self.emit(ev.Interrupting(running=len(self.queue.running)))
            if not self.queue.running and (stopping or self.queue.is_empty):
                return
            if self.interrupts.count > 1:
                return
            if self._pending.is_overdue():
                self.results.commit_pending()
            else:
                self._take_event()

    def _raise_outcome(self) -> None:
        if self._retries.failures:
            raise StepFailed("\n".join(self._retries.failures))
        self.interrupts.check()

    def interruption(self) -> Interrupted:
        """Log that the user stopped the run, and return the error that says how to continue."""
        command = resume_command(self.plan.run, self.store.folder)
        done, total = self.queue.counts()
        self.emit(ev.RunInterrupted(done=done, total=total, command=command))
        steps = "1 step is" if done == 1 else f"{done} steps are"
        return Interrupted(f"{steps} safe. Continue with: {command}")

    def _open_stage(self, stage: Stage) -> None:
        """Expand a stage; reuse, commit or queue each of its steps."""
        expansion = self._expander.expand(stage)
        for step in expansion.steps:
            if step.key in expansion.committed:
                self.results.reuse(step, expansion.committed[step.key])
        todo = [step for step in expansion.steps if step.key not in expansion.committed]
        recovered = self.results.recover(todo)
        for step in todo:
            if step.key not in recovered:
                self.queue.add(step, expansion.reasons[step.key])

    # --- giving steps to workers ---

    def _dispatch(self) -> None:
        """Give waiting steps to idle workers, and start more workers where there are too few."""
        for executor, pool in self.pools.items():
            busy = sum(slot.job is not None for slot in pool.slots)
            pool.start(self.queue.waiting(executor) + busy)
            while (entry := self.queue.next_step(executor)) is not None:
                step, reason = entry
                slot = pool.idle(step.stage.loaded_key)
                if slot is None:
                    break
                self.queue.start(executor)
                self._give(pool, slot, step, reason)

    def _give(self, pool: WorkerPool, slot: WorkerSlot, step: Step, reason: str) -> None:
        stage = step.stage
        chosen = self._batch_plans.fix(stage, lambda cpu: pool.free_memory(slot, on_cpu=cpu))
        if chosen is not None:
            self.emit(chosen)
        folder = self._folders.make(step)
        inputs = self._inputs.files(step, self.queue.rows_of(stage.needs), folder)
        message = self._messages.make(step, folder, inputs, self._batch_plans.of(stage))
        pool.give(slot, message, stage.loaded_key)
        self.emit(ev.StepStarted(**step_fields(step), worker=slot.worker.name, reason=reason))

    # --- taking events ---

    def _take_event(self) -> None:
        """Take one event of a worker. While none comes, commit what is finished and check on the
        silent workers.
        """
        left = TICK_SECONDS
        if self._pending.steps:
            left = min(left, self._pending.seconds_left(is_busy=self._is_busy()))
        try:
            slot, event = self.inbox.get(timeout=left)
        except queue.Empty:
            if left < TICK_SECONDS:
                self.results.commit_pending()
                return
            slots = [slot for pool in self.pools.values() for slot in pool.slots]
            self._watchdog.check(slots, self.queue.running)
            self.emit(ev.AliveSign())
            return
        if event is None:
            self._retries.on_worker_died(slot)
        elif _is_of(slot, event):
            self._watchdog.record(slot, event)
            self._on_event(slot, event)

    def _is_busy(self) -> bool:
        """Whether a worker has a step that it has not finished."""
        return len(self.queue.running) > len(self._pending.steps)

    def _on_event(self, slot: WorkerSlot, event: WorkerEvent) -> None:
        name = slot.worker.name
        if isinstance(event, Hello):
            slot.pool.welcome(slot, event)
        elif isinstance(event, Done):
            self._on_done(slot, event)
        elif isinstance(event, Failed):
            self._retries.on_failed(slot, event)
        elif isinstance(event, JobReport):
            self._on_job_report(slot, event)
        elif isinstance(event, Phase):
            self.emit(ev.WorkerPhase(worker=name, **vars(event)))
        elif isinstance(event, Progress):
            self.emit(ev.WorkerProgress(worker=name, **vars(event)))
        elif isinstance(event, Alive):
            self.emit(ev.AliveSign(worker=name, **vars(event)))

    def _on_done(self, slot: WorkerSlot, event: Done) -> None:
        step = self.queue.running[event.job]
        slot.job = None
        self._watchdog.step_took(event.seconds)
        self._pending.add(FinishedStep(step, slot.worker.name, event))

    def _on_job_report(self, slot: WorkerSlot, event: JobReport) -> None:
        step = self.queue.running[event.job]
        location = {**step_fields(step), "worker": slot.worker.name}
        if event.name == WARNING:
            self.emit(ev.PartWarning(**location, text=str(event.facts.get("text", ""))))
        else:
            self.emit(ev.PartEvent(**location, name=event.name, facts=event.facts))


def _is_of(slot: WorkerSlot, event: WorkerEvent) -> bool:
    """Whether an event belongs to the current job of its worker. Events about another job, before a
    hello, or after a second one are ignored.
    """
    if isinstance(event, Hello):
        return slot.hello is None
    job = getattr(event, "job", None)
    return job is None or job == slot.job
