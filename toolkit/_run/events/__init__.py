"""What happens in a run, as records: one dataclass for each kind of event.

Each is one line of `events.jsonl` and one line of `run --json`. Progress, `status`, `show` and the
report all read them through `read_run_event`.
"""

from __future__ import annotations

from collections.abc import Callable

from toolkit._run.events.record import RunEvent, now, time_in_words
from toolkit._run.events.run_events import (
    BatchPlan,
    Interrupting,
    ReportWritten,
    RunDone,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunWaiting,
    SaeMisfit,
    SinkWritten,
    StageCost,
    StageForecast,
    StageImported,
    StageReady,
    StoreWaiting,
)
from toolkit._run.events.step_events import (
    PartEvent,
    PartWarning,
    StepDone,
    StepEvent,
    StepFailure,
    StepRecovered,
    StepRetried,
    StepRetriedSmaller,
    StepReused,
    StepStarted,
)
from toolkit._run.events.worker_events import (
    AliveSign,
    Stalled,
    WorkerPhase,
    WorkerProgress,
    WorkerReady,
)
from toolkit.executors.protocol import Records, as_json

KINDS = (
    RunStarted,
    RunWaiting,
    StoreWaiting,
    StageReady,
    StageImported,
    StageCost,
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
    """The event in one line of `events.jsonl` or of `run --json`; None if the line is not
    an event.
    """
    return _READER.read(line)


__all__ = [
    "KINDS",
    "AliveSign",
    "BatchPlan",
    "Interrupting",
    "Listener",
    "PartEvent",
    "PartWarning",
    "ReportWritten",
    "RunDone",
    "RunEvent",
    "RunFailed",
    "RunInterrupted",
    "RunStarted",
    "RunWaiting",
    "SaeMisfit",
    "SinkWritten",
    "StageCost",
    "StageForecast",
    "StageImported",
    "StageReady",
    "Stalled",
    "StepDone",
    "StepEvent",
    "StepFailure",
    "StepRecovered",
    "StepRetried",
    "StepRetriedSmaller",
    "StepReused",
    "StepStarted",
    "StoreWaiting",
    "WorkerPhase",
    "WorkerProgress",
    "WorkerReady",
    "as_json",
    "now",
    "read_run_event",
    "time_in_words",
]
