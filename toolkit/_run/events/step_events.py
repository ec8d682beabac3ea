"""What happens to a step: reused, started, done, retried, failed; and what its part reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from toolkit._run.events.record import RunEvent


@dataclass(frozen=True, kw_only=True)
class StepEvent(RunEvent):
    """What happens to one step."""

    key: str
    stage: str
    index: int


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
class StepStarted(StepEvent):
    """A worker gets the step."""

    event: ClassVar[str] = "step_started"
    words: ClassVar[str] = "step {stage}[{index}] on {worker}: {reason}"
    worker: str
    reason: str
    """Why it is computed: `new`, or what changed."""


@dataclass(frozen=True, kw_only=True)
class StepDone(StepEvent):
    """The step is committed."""

    event: ClassVar[str] = "step_done"
    words: ClassVar[str] = "step {stage}[{index}] done in {seconds:.2f} s"
    worker: str
    seconds: float
    """Time of computing and writing it."""
    load_seconds: float = 0.0
    """Time of loading model and SAEs before it."""
    rows: Mapping[str, int]
    """Rows written to each table."""
    host_bytes: int | None = None
    device_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class StepRetried(StepEvent):
    """The step's worker died; a fresh one gets the step."""

    event: ClassVar[str] = "step_retried"
    words: ClassVar[str] = (
        "step {stage}[{index}]: {worker} died ({how}); trying again on a fresh worker "
        "({attempt} of {attempts})"
    )
    worker: str
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
class StepFailure(StepEvent):
    """The step failed; the run stops when the steps in flight are done."""

    event: ClassVar[str] = "step_failed"
    words: ClassVar[str] = "step {stage}[{index}] FAILED: {error}"
    worker: str
    error: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class PartEvent(StepEvent):
    """What a part reported about a step with `work.report.event`."""

    event: ClassVar[str] = "part_event"
    worker: str
    name: str
    facts: Mapping[str, Any]

    def sentence(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"step {self.stage}[{self.index}]: {self.name}: {facts}"


@dataclass(frozen=True, kw_only=True)
class PartWarning(StepEvent):
    """A part reported an event named `warning`."""

    event: ClassVar[str] = "warning"
    words: ClassVar[str] = "warning of {stage}[{index}]: {text}"
    worker: str
    text: str
