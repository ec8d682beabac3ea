"""What workers say, as events of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toolkit._run.events.record import RunEvent
from toolkit.gpus import Gpu


@dataclass(frozen=True, kw_only=True)
class WorkerReady(RunEvent):
    """A worker said hello and carries the host's versions."""

    event: ClassVar[str] = "worker_ready"
    worker: str
    executor: str
    pid: int
    """Its process id, in its own name space."""
    host: str
    gpus: tuple[Gpu, ...] = ()
    """The GPUs that it can use."""
    torch_cuda: str = ""
    """The CUDA version that its torch is built for; empty for a build without CUDA."""

    def sentence(self) -> str:
        gpus = ", ".join(gpu.describe() for gpu in self.gpus) or "none"
        return f"{self.worker} ready (process {self.pid} on {self.host}; GPUs: {gpus})"


@dataclass(frozen=True, kw_only=True)
class WorkerPhase(RunEvent):
    """A worker's job enters a phase."""

    event: ClassVar[str] = "phase"
    words: ClassVar[str] = "{worker}: {phase}"
    worker: str
    job: str
    phase: str


@dataclass(frozen=True, kw_only=True)
class WorkerProgress(RunEvent):
    """So much of a worker's job is done."""

    event: ClassVar[str] = "progress"
    words: ClassVar[str] = "{worker}: {done} of {total}"
    recorded: ClassVar[bool] = False
    worker: str
    job: str
    done: int
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class AliveSign(RunEvent):
    """A sign of life of a worker, or of the host while no worker says anything."""

    event: ClassVar[str] = "alive"
    words: ClassVar[str] = "{worker} is alive"
    recorded: ClassVar[bool] = False
    worker: str | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stalled(RunEvent):
    """A worker has been silent for long. Nothing is killed."""

    event: ClassVar[str] = "stalled"
    worker: str
    stage: str | None = None
    """The stage of its step; None for a worker that is starting."""
    index: int | None = None
    phase: str
    phase_seconds: float
    age: float
    """Seconds since its last word."""
    stack: str
    """Where its main thread is."""

    def sentence(self) -> str:
        step = f"{self.stage}[{self.index}]" if self.stage else "the worker's start"
        return (
            f"no sign from {self.worker} for {self.age:.0f} s in phase '{self.phase}' of {step} "
            f"(slow, or stuck; nothing is killed):\n{self.stack}"
        )
