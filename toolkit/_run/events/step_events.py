"""What happens to a step: reused, started, done, retried, failed; and what its part reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toolkit._run.events.record import RunEvent
from toolkit._run.events.worker_events import OfWorker
from toolkit.executors.protocol import JobResult, PartReport


@dataclass(frozen=True, kw_only=True)
class StepEvent(RunEvent):
    """What happens to one step."""

    key: str
    stage: str
    index: int


@dataclass(frozen=True, kw_only=True)
class OfWorkerAndStep(StepEvent, OfWorker):
    """What happens to one step at one worker."""


@dataclass(frozen=True, kw_only=True)
class StepReused(StepEvent):
    """The store has the step."""

    event: ClassVar[str] = "step_reused"
    words: ClassVar[str] = "step {stage}[{index}] reused"


@dataclass(frozen=True, kw_only=True)
class StepRecovered(StepEvent):
    """A worker finished the step before the last stop; it is committed now."""

    event: ClassVar[str] = "step_recovered"
    words: ClassVar[str] = "step {stage}[{index}] was computed before the last stop; committed now"


@dataclass(frozen=True, kw_only=True)
class StepStarted(OfWorkerAndStep):
    """A worker gets the step."""

    event: ClassVar[str] = "step_started"
    words: ClassVar[str] = "step {stage}[{index}] on {worker}: {reason}"
    reason: str
    """Why it is computed: `new`, or what changed."""


@dataclass(frozen=True, kw_only=True)
class StepDone(JobResult, OfWorkerAndStep):
    """The step is committed."""

    event: ClassVar[str] = "step_done"
    words: ClassVar[str] = "step {stage}[{index}] done in {seconds:.2f} s"


@dataclass(frozen=True, kw_only=True)
class StepRetried(OfWorkerAndStep):
    """The step's worker died; a new one gets the step."""

    event: ClassVar[str] = "step_retried"
    words: ClassVar[str] = (
        "step {stage}[{index}]: {worker} died ({how}); trying again on a new worker ({attempt} "
        "of {attempts})"
    )
    how: str
    attempt: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class StepRetriedSmaller(StepRetried):
    """The step ran out of memory, and its worker lives; the stage's batches are halved."""

    event: ClassVar[str] = "step_retried_smaller"
    words: ClassVar[str] = (
        "step {stage}[{index}]: {how} on {worker}; trying again ({attempt} of {attempts})"
    )


@dataclass(frozen=True, kw_only=True)
class StepFailure(OfWorkerAndStep):
    """The step failed; the run stops when the steps in flight are done."""

    event: ClassVar[str] = "step_failed"
    words: ClassVar[str] = "step {stage}[{index}] FAILED: {error}"
    error: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class PartEvent(PartReport, OfWorkerAndStep):
    """What a part reported about a step with `work.report.event`."""

    event: ClassVar[str] = "part_event"

    def sentence(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"step {self.stage}[{self.index}]: {self.name}: {facts}"


@dataclass(frozen=True, kw_only=True)
class PartWarning(OfWorkerAndStep):
    """A part reported an event named `warning`."""

    event: ClassVar[str] = "warning"
    words: ClassVar[str] = "warning of {stage}[{index}]: {text}"
    text: str
