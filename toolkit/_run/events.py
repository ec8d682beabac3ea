"""What happens in a run, as records: one dataclass for each kind of event.

Each is one line of `events.jsonl` and one line of `run --json`. Progress, `status`, `show` and the
report all read them through `read_run_event`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from toolkit.gpus import Gpu
from toolkit.protocol import Records, as_json
from toolkit.terminal import counted
from toolkit.work import Finding


def now() -> str:
    """This moment in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def time_in_words(time: str) -> str:
    """Such a moment for people, to the second."""
    return f"{time[:19].replace('T', ' ')} UTC"


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """What every event has."""

    event: ClassVar[str] = ""
    words: ClassVar[str] = ""
    """The event in a sentence, with its fields in braces."""
    recorded: ClassVar[bool] = True
    """Whether it is kept in `events.jsonl`: signs of life would be most of the file."""
    at: str = ""
    """When it happened: ISO 8601, UTC."""

    def sentence(self) -> str:
        """The event in words: the plain progress line and the log line."""
        return self.words.format_map(vars(self))


@dataclass(frozen=True, kw_only=True)
class RunStarted(RunEvent):
    """A process begins, or continues, a run."""

    event: ClassVar[str] = "run_started"
    run: str
    stages: int
    """How many stages the plan has."""
    log: str
    """The path of the run's log."""

    def sentence(self) -> str:
        return f"run {self.run}: {counted(self.stages, 'stage')}; log {self.log}"


@dataclass(frozen=True, kw_only=True)
class RunWaiting(RunEvent):
    """Another process computes this run; this one waits."""

    event: ClassVar[str] = "run_waiting"
    words: ClassVar[str] = (
        "run {run} is being computed by process {pid} on {host}; waiting for it to end"
    )
    run: str
    pid: int | None = None
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoreWaiting(RunEvent):
    """Another process writes to the store; this one waits."""

    event: ClassVar[str] = "store_waiting"
    words: ClassVar[str] = "{text}"
    text: str
    """Who holds the store."""


@dataclass(frozen=True, kw_only=True)
class StageReady(RunEvent):
    """A stage's inputs are committed: its steps are known."""

    event: ClassVar[str] = "stage_ready"
    stage: str
    part: str
    steps: int
    reused: int
    todo: int

    def sentence(self) -> str:
        steps = counted(self.steps, "step")
        return (
            f"stage {self.stage} ({self.part}): {steps}, {self.reused} reused, "
            f"{self.todo} to compute"
        )


@dataclass(frozen=True, kw_only=True)
class StageImported(RunEvent):
    """Some of the steps that a stage reuses were computed elsewhere."""

    event: ClassVar[str] = "stage_imported"
    words: ClassVar[str] = (
        "stage {stage}: {steps} of the reused steps were imported, not computed here ({origin})"
    )
    stage: str
    steps: int
    origin: str
    """Of which exports."""


@dataclass(frozen=True, kw_only=True)
class StageForecast(RunEvent):
    """How long a stage's steps will take, all together."""

    event: ClassVar[str] = "stage_forecast"
    words: ClassVar[str] = "stage {stage}: about {seconds:.1f} s of work to expect, by {basis}"
    stage: str
    seconds: float
    basis: str
    """What the forecast rests on: `earlier runs` or `its first step`."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan(RunEvent):
    """The batch sizes of a stage are chosen, for this run and its continuations."""

    event: ClassVar[str] = "batch_plan"
    words: ClassVar[str] = "stage {stage}: batches {plan}, for {free} bytes free on {device}"
    stage: str
    device: str
    """`cuda` or `cpu`."""
    free: int
    """Bytes that were free there."""
    plan: Mapping[str, int]


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


@dataclass(frozen=True, kw_only=True)
class SaeMisfit(RunEvent):
    """An SAE failed its examination."""

    event: ClassVar[str] = "sae_does_not_fit"
    words: ClassVar[str] = "{message}"
    stage: str
    message: str


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


@dataclass(frozen=True, kw_only=True)
class SinkWritten(RunEvent):
    """A sink has written its files."""

    event: ClassVar[str] = "sink_written"
    sink: str
    folder: str
    hashes: Mapping[str, str]
    """SHA-256 of each file."""

    def sentence(self) -> str:
        return f"sink {self.sink}: {counted(len(self.hashes), 'file')} in {self.folder}"


@dataclass(frozen=True, kw_only=True)
class Interrupting(RunEvent):
    """The user pressed Ctrl-C once."""

    event: ClassVar[str] = "interrupting"
    running: int

    def sentence(self) -> str:
        return f"finishing {counted(self.running, 'step')} in flight; Ctrl-C again stops at once"


@dataclass(frozen=True, kw_only=True)
class RunInterrupted(RunEvent):
    """The run stopped because the user asked for it."""

    event: ClassVar[str] = "run_interrupted"
    done: int
    total: int | None = None
    """How many steps there are, once every stage has expanded."""
    command: str
    """The command that continues."""

    def sentence(self) -> str:
        total = "an unknown number of" if self.total is None else self.total
        return (
            f"interrupted; safe so far: {self.done} of {total} steps. Continue with: {self.command}"
        )


@dataclass(frozen=True, kw_only=True)
class RunFailed(RunEvent):
    """The run stopped with an error."""

    event: ClassVar[str] = "run_failed"
    words: ClassVar[str] = "failed: {error}"
    error: str


@dataclass(frozen=True, kw_only=True)
class RunDone(RunEvent):
    """Every step is committed, and every sink is written."""

    event: ClassVar[str] = "run_done"
    computed: int
    reused: int
    seconds: float

    def sentence(self) -> str:
        steps = counted(self.computed, "step")
        return f"done: {steps} computed, {self.reused} reused, {self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class ReportWritten(RunEvent):
    """The report is written: the last line of `run --json`."""

    event: ClassVar[str] = "report_written"
    words: ClassVar[str] = "report {path}"
    recorded: ClassVar[bool] = False
    run: str
    path: str
    findings: tuple[Finding, ...] = ()
    """What the run found, in a few sentences."""


KINDS = (
    RunStarted,
    RunWaiting,
    StoreWaiting,
    StageReady,
    StageImported,
    StageForecast,
    BatchPlan,
    StepReused,
    StepRecovered,
    StepStarted,
    StepDone,
    StepRetried,
    StepRetriedSmaller,
    StepFailure,
    PartEvent,
    PartWarning,
    SaeMisfit,
    WorkerReady,
    WorkerPhase,
    WorkerProgress,
    AliveSign,
    Stalled,
    SinkWritten,
    Interrupting,
    RunInterrupted,
    RunFailed,
    RunDone,
    ReportWritten,
)
Listener = Callable[[RunEvent], None]
_READER: Records[RunEvent] = Records(KINDS)


def read_run_event(line: str) -> RunEvent | None:
    """The event in one line of `events.jsonl` or of `run --json`; None where the line is none."""
    return _READER.read(line)


__all__ = ["KINDS", "Listener", "RunEvent", "as_json", "now", "read_run_event", "time_in_words"]
