"""The progress of a run, from its events alone, for the live display, `status`, `show` and the
report.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean

from toolkit._run import events as ev
from toolkit._run.events import RunEvent


@dataclass
class StepProgress:
    """One step, by the last event about it."""

    key: str
    stage: str
    index: int
    state: str = "running"
    """`reused`, `running`, `computed` or `failed`."""
    seconds: float = 0.0
    worker: str = ""
    reason: str = ""
    error: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    texts: int = 0
    """Texts that the model read for it; 0 if its loader does not count."""
    operations: float = 0.0
    """The model's operations; 0 if its loader does not count."""


@dataclass
class StageCounts:
    """The steps of one stage."""

    expanded: bool = False
    """Whether its inputs are committed, so that its steps are known."""
    planned: int = 0
    """How many steps it has, once it is expanded."""
    computed: int = 0
    reused: int = 0
    running: int = 0
    failed: int = 0
    compute_seconds: float = 0.0
    """Time that its computed steps took, without loading."""
    timed: int = 0
    """The number of steps that this time covers."""
    forecast: ev.StageForecast | None = None
    cost: ev.StageCost | None = None
    """Its expected cost when the first session began."""

    @property
    def done(self) -> int:
        """Steps whose rows exist."""
        return self.computed + self.reused

    @property
    def share(self) -> float:
        """The finished fraction of the stage; 0 while its number of steps is unknown."""
        if not self.expanded:
            return 0.0
        return min(1.0, self.done / self.planned) if self.planned else 1.0


@dataclass
class Busy:
    """What a worker is doing."""

    step: StepProgress
    phase: str = "start"
    since: str = ""
    """When the phase began."""
    computing_since: str = ""
    """When it started to compute; empty while it loads."""
    done: int = 0
    total: int | None = None
    counted_at: str = ""
    """When it last reported progress."""
    status: str = ""
    """The last `status` event of its part."""


@dataclass
class RunProgress:
    """The sum of a run's events over all its sessions; a continued run has several. A step is
    identified by stage and key, since two stages of equal content share a key.
    """

    state: str = "running"
    """`running`, `done`, `failed` or `interrupted`."""
    stage_count: int = 0
    """How many stages the plan has, including those without known steps."""
    stages: dict[str, StageCounts] = field(default_factory=dict)
    steps: dict[tuple[str, str], StepProgress] = field(default_factory=dict)
    started: str = ""
    """When the first session began."""
    session: str = ""
    """When the last session began."""
    last: str = ""
    """When the last event happened."""
    sessions: int = 0
    done_in_session: int = 0
    phase: str = ""
    busy: dict[str, Busy] = field(default_factory=dict)
    memory: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Bytes on the host and on the device, by worker."""
    troubles: list[RunEvent] = field(default_factory=list)
    part_events: list[ev.PartEvent] = field(default_factory=list)
    batch_plans: dict[str, ev.BatchPlan] = field(default_factory=dict)
    sinks: list[ev.SinkWritten] = field(default_factory=list)

    # --- totals and times ---

    @property
    def done(self) -> int:
        """Steps whose rows exist: computed here or reused."""
        return sum(stage.done for stage in self.stages.values())

    @property
    def planned(self) -> int:
        """Steps of the stages that are expanded."""
        return sum(stage.planned for stage in self.stages.values())

    @property
    def open_stages(self) -> int:
        """Stages whose steps are not known yet."""
        return max(0, self.stage_count - sum(stage.expanded for stage in self.stages.values()))

    @property
    def share(self) -> float:
        """The finished fraction of the run. Each stage has the same weight, expanded or not, so
        that the fraction never falls when a stage's steps become known.
        """
        count = max(self.stage_count, len(self.stages))
        return sum(stage.share for stage in self.stages.values()) / count if count else 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the steps whose rows exist."""
        done = (step for step in self.steps.values() if step.state in ("computed", "reused"))
        return tuple(dict.fromkeys(step.key for step in done))

    def count(self, state: str, stage: str | None = None) -> int:
        """How many steps are in `state`, in one stage or in all."""
        names = self.stages if stage is None else [stage]
        return sum(int(getattr(self.stages.get(name, _NONE), state)) for name in names)

    def seconds_left(self, now: str) -> float | None:
        """Time until the expanded stages are done; None if a stage with remaining steps has no
        forecast. Stages without known steps are not included.
        """
        work = 0.0
        for name, stage in self.stages.items():
            left = stage.planned - stage.done
            if left <= 0:
                continue
            step_seconds = self._step_seconds(name, stage)
            if step_seconds is None:
                return None
            work += left * step_seconds - self._spent(name, step_seconds, now)
        return max(0.0, work) / max(1, len(self.busy))

    def _step_seconds(self, name: str, stage: StageCounts) -> float | None:
        """The time of one step of a stage: the mean of computed steps, else extrapolated from a
        running step, else the forecast.
        """
        if stage.timed:
            return stage.compute_seconds / stage.timed
        paces = []
        for busy in self.busy.values():
            if busy.step.stage == name and busy.total and busy.done and busy.computing_since:
                spent = seconds_between(busy.computing_since, busy.counted_at)
                paces.append(spent * busy.total / busy.done)
        if paces:
            return fmean(paces)
        if stage.forecast is not None:
            return stage.forecast.seconds / max(1, stage.planned - stage.reused)
        return None

    def _spent(self, name: str, step_seconds: float, now: str) -> float:
        """The time that running steps have computed so far."""
        since = [busy.computing_since for busy in self.busy.values() if busy.step.stage == name]
        return sum(min(step_seconds, seconds_between(start, now)) for start in since if start)

    # --- adding events ---

    def take(self, event: RunEvent) -> None:
        """Add one event."""
        self.last = event.at or self.last
        _take(event, self)

    def stage(self, name: str) -> StageCounts:
        """The counts of a stage, made at the first event about it."""
        return self.stages.setdefault(name, StageCounts())


_NONE = StageCounts()


def progress_of(events: Iterable[RunEvent]) -> RunProgress:
    """Add up a run's events."""
    progress = RunProgress()
    for event in events:
        progress.take(event)
    return progress


def seconds_between(first: str, last: str) -> float:
    """Seconds from one ISO time to another; 0 if either cannot be read."""
    try:
        span = datetime.fromisoformat(last) - datetime.fromisoformat(first)
        return max(0.0, span.total_seconds())
    except (TypeError, ValueError):
        return 0.0


@functools.singledispatch
def _take(event: RunEvent, run: RunProgress) -> None:
    """By default, an event changes no count."""


@_take.register
def _(event: ev.RunStarted, run: RunProgress) -> None:
    run.started, run.session = run.started or event.at, event.at
    run.state, run.phase, run.stage_count = "running", "", event.stages
    run.sessions, run.done_in_session = run.sessions + 1, 0
    run.busy.clear()
    cut_off = [key for key, step in run.steps.items() if step.state == "running"]
    for key in cut_off:  # the process that was computing them is gone
        run.stage(key[0]).running -= 1
        del run.steps[key]


@_take.register
def _(event: ev.StageReady, run: RunProgress) -> None:
    stage = run.stage(event.stage)
    stage.expanded, stage.planned = True, event.steps


@_take.register
def _(event: ev.StageForecast, run: RunProgress) -> None:
    run.stage(event.stage).forecast = event


@_take.register
def _(event: ev.StageCost, run: RunProgress) -> None:
    stage = run.stage(event.stage)
    stage.cost = stage.cost or event


@_take.register
def _(event: ev.BatchPlan, run: RunProgress) -> None:
    run.batch_plans[event.stage] = event


@_take.register
def _(event: ev.StepReused, run: RunProgress) -> None:
    step = _step(run, event)
    if step.state != "computed":  # else an earlier session of this very run computed it
        _move(run, step, "reused")


@_take.register
def _(event: ev.StepRecovered, run: RunProgress) -> None:
    _move(run, _step(run, event), "computed")


@_take.register
def _(event: ev.StepStarted, run: RunProgress) -> None:
    step = _step(run, event)
    step.worker, step.reason = event.worker, event.reason
    _move(run, step, "running")
    run.busy[event.worker] = Busy(step, since=event.at)


@_take.register
def _(event: ev.StepDone, run: RunProgress) -> None:
    step = _step(run, event)
    step.worker, step.seconds, step.rows = event.worker, event.seconds, dict(event.rows)
    step.texts, step.operations = event.texts, event.operations
    _move(run, step, "computed")
    stage = run.stage(event.stage)
    stage.compute_seconds, stage.timed = stage.compute_seconds + event.seconds, stage.timed + 1
    run.done_in_session += 1
    _remember(run, event.worker, event.host_bytes, event.device_bytes)
    busy = run.busy.get(event.worker)
    if busy is not None and busy.step is step:  # else the worker has its next step already
        del run.busy[event.worker]


@_take.register
def _(event: ev.StepRetried, run: RunProgress) -> None:
    run.busy.pop(event.worker, None)
    run.troubles.append(event)


@_take.register
def _(event: ev.StepFailure, run: RunProgress) -> None:
    step = _step(run, event)
    step.worker, step.error = event.worker, event.error
    _move(run, step, "failed")
    run.busy.pop(event.worker, None)
    run.troubles.append(event)


@_take.register
def _(event: ev.WorkerPhase, run: RunProgress) -> None:
    run.phase = event.phase
    busy = run.busy.get(event.worker)
    if busy is not None:
        busy.phase, busy.since = event.phase, event.at
        if event.phase == "compute":
            busy.computing_since = event.at


@_take.register
def _(event: ev.WorkerProgress, run: RunProgress) -> None:
    busy = run.busy.get(event.worker)
    if busy is not None:
        busy.done, busy.total, busy.counted_at = event.done, event.total, event.at


@_take.register
def _(event: ev.AliveSign, run: RunProgress) -> None:
    if event.worker is not None:
        _remember(run, event.worker, event.host_bytes, event.device_bytes)


@_take.register
def _(event: ev.PartEvent, run: RunProgress) -> None:
    run.part_events.append(event)
    busy = run.busy.get(event.worker)
    if busy is not None and event.name == "status":
        busy.status = str(event.facts.get("text", ""))


@_take.register
def _(event: ev.SinkWritten, run: RunProgress) -> None:
    run.sinks.append(event)


@_take.register(ev.Stalled)
@_take.register(ev.SaeMisfit)
@_take.register(ev.PartWarning)
def _(event: RunEvent, run: RunProgress) -> None:
    run.troubles.append(event)


@_take.register
def _(event: ev.RunDone, run: RunProgress) -> None:
    run.state, run.phase = "done", ""


@_take.register
def _(event: ev.RunFailed, run: RunProgress) -> None:
    run.state, run.phase = "failed", ""
    run.troubles.append(event)


@_take.register
def _(event: ev.RunInterrupted, run: RunProgress) -> None:
    run.state, run.phase = "interrupted", ""
    run.troubles.append(event)


def _step(run: RunProgress, event: ev.StepEvent) -> StepProgress:
    """The step of an event; an unknown step counts as running."""
    key = (event.stage, event.key)
    if key not in run.steps:
        run.steps[key] = StepProgress(event.key, event.stage, event.index)
        run.stage(event.stage).running += 1
    return run.steps[key]


def _move(run: RunProgress, step: StepProgress, state: str) -> None:
    """Change a step's state, and the counts of its stage with it."""
    stage = run.stage(step.stage)
    setattr(stage, step.state, getattr(stage, step.state) - 1)
    setattr(stage, state, getattr(stage, state) + 1)
    step.state = state


def _remember(run: RunProgress, worker: str, host: int | None, device: int | None) -> None:
    if host is not None:
        run.memory[worker] = (host, device)
