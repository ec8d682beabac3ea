"""What workers report, as events of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toolkit._run.events.record import RunEvent
from toolkit.executors.protocol import Alive, Phase, Progress, WorkerSystem


@dataclass(frozen=True, kw_only=True)
class OfWorker(RunEvent):
    """An event of one worker."""

    worker: str


@dataclass(frozen=True, kw_only=True)
class WorkerReady(WorkerSystem, OfWorker):
    """A worker said hello, and its versions are the host's."""

    event: ClassVar[str] = "worker_ready"
    executor: str

    def sentence(self) -> str:
        gpus = ", ".join(gpu.describe() for gpu in self.gpus) or "none"
        return f"{self.worker} ready (process {self.pid} on {self.host}; GPUs: {gpus})"


@dataclass(frozen=True, kw_only=True)
class WorkerPhase(Phase, OfWorker):
    """A worker's job enters a phase."""

    words: ClassVar[str] = "{worker}: {phase}"


@dataclass(frozen=True, kw_only=True)
class WorkerProgress(Progress, OfWorker):
    """The progress of a worker's job."""

    words: ClassVar[str] = "{worker}: {done} of {total}"
    recorded: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class AliveSign(Alive, RunEvent):
    """A sign of life of a worker, or of the host while no worker says anything."""

    words: ClassVar[str] = "{worker} is alive"
    recorded: ClassVar[bool] = False
    worker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stalled(OfWorker):
    """A worker has been silent for a long time. Nothing is killed."""

    event: ClassVar[str] = "stalled"
    stage: str | None = None
    """The stage of its step; None for a worker that is starting."""
    index: int | None = None
    phase: str
    phase_seconds: float
    age: float
    """Seconds since its last event."""
    stack: str
    """Where its main thread is."""

    def sentence(self) -> str:
        step = f"{self.stage}[{self.index}]" if self.stage else "the worker's start"
        return (
            f"no sign from {self.worker} for {self.age:.0f} s in phase '{self.phase}' of {step} "
            f"(slow, or stuck; nothing is killed):\n{self.stack}"
        )
