"""What happens to a run, its stages and its sinks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from toolkit._run.events.record import RunEvent
from toolkit.terminal import counted
from toolkit.work import Finding


@dataclass(frozen=True, kw_only=True)
class RunStarted(RunEvent):
    """A process starts or continues a run."""

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
    """The exports that they came from."""


@dataclass(frozen=True, kw_only=True)
class StageForecast(RunEvent):
    """How long all steps of a stage will take together."""

    event: ClassVar[str] = "stage_forecast"
    words: ClassVar[str] = "stage {stage}: about {seconds:.1f} s of work expected, by {basis}"
    stage: str
    seconds: float
    basis: str
    """What the forecast is based on: `earlier runs` or `its first step`."""


@dataclass(frozen=True, kw_only=True)
class StageCost(RunEvent):
    """The expected cost of a stage's remaining steps when a run begins, as `toolkit plan` states
    it.
    """

    event: ClassVar[str] = "stage_cost"
    words: ClassVar[str] = (
        "expected of stage {stage}: {texts} texts read, {operations:.3g} operations, {rows} rows, "
        "{stored} bytes"
    )
    stage: str
    texts: int
    operations: float
    rows: int
    stored: int


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
class SaeMisfit(RunEvent):
    """An SAE failed its examination."""

    event: ClassVar[str] = "sae_does_not_fit"
    words: ClassVar[str] = "{message}"
    stage: str
    message: str


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
    """The results of the run, in a few sentences."""
