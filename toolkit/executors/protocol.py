"""The messages between host and worker: one JSON object per line.

The host sends `open`, `job`, `stack` and `close`. The worker answers with the events below. All
lines are read by `read_events`: a line that is not an event goes to the worker's log. The events of
a run (`toolkit._run.events`) that repeat a worker's event inherit its fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, BinaryIO, ClassVar, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from toolkit.executors.gpus import Gpu

MAX_LINE = 4 << 20
"""The longest line that is read as an event, in bytes."""


@dataclass(frozen=True, kw_only=True)
class WorkerSystem:
    """The process and machine of a worker."""

    pid: int
    """Its process id, in its own namespace."""
    host: str
    """The machine that it runs on."""
    gpus: tuple[Gpu, ...] = ()
    """The GPUs that it can use."""
    torch_cuda: str = ""
    """The CUDA version that its torch is built for; empty for a build without CUDA."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The rows that a finished job wrote, and the time, memory and operations that it used."""

    seconds: float
    """Time spent computing and writing."""
    load_seconds: float = 0.0
    """Time spent loading the model and SAEs before it."""
    rows: Mapping[str, int]
    """Rows written to each table."""
    host_bytes: int | None = None
    """Memory of the process at its end."""
    device_bytes: int | None = None
    """The most memory that torch reserved on the GPU."""
    texts: int = 0
    """Texts that the model read; 0 if its loader does not count."""
    operations: float = 0.0
    """The model's floating-point operations; 0 if its loader does not count."""


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """What a part reported with `work.report.event`."""

    name: str
    """The name of the event."""
    facts: Mapping[str, Any]
    """Its data, as plain JSON."""


@dataclass(frozen=True, kw_only=True)
class Hello(WorkerSystem):
    """The worker has loaded its plugins and takes jobs."""

    event: ClassVar[str] = "hello"
    versions: Mapping[str, str]
    """Versions of the toolkit and of every plugin; they have to equal the host's."""
    free_bytes: int = 0
    """Memory that is free on its machine."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A job enters a phase."""

    event: ClassVar[str] = "phase"
    job: str
    """The id of the job."""
    phase: str
    """download, load, compute, write, or one that the part names."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a job."""

    event: ClassVar[str] = "progress"
    job: str
    """The id of the job."""
    done: int
    """How much is done, in samples unless the part says otherwise."""
    total: int | None = None
    """How much there is to do; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class Alive:
    """A sign of life, once a second, with the memory in use."""

    event: ClassVar[str] = "alive"
    host_bytes: int | None = None
    """Memory of the process."""
    device_bytes: int | None = None
    """The most memory that torch reserved on the GPU."""


@dataclass(frozen=True, kw_only=True)
class JobReport(PartReport):
    """A part reported something about a job."""

    event: ClassVar[str] = "part_event"
    job: str


@dataclass(frozen=True, kw_only=True)
class Done(JobResult):
    """A job is done: its folder is complete."""

    event: ClassVar[str] = "done"
    job: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A job failed, or, without a job, the worker cannot start."""

    event: ClassVar[str] = "failed"
    job: str | None
    kind: str
    """The class of the error."""
    message: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Where the worker's main thread is, when the host asked for it."""

    event: ClassVar[str] = "stack"
    text: str


WorkerEvent = Hello | Phase | Progress | Alive | JobReport | Done | Failed | Stack
Record = TypeVar("Record")


class Records(Generic[Record]):
    """Reads records of some dataclasses from JSON text, by the class named in `event`."""

    def __init__(self, classes: Iterable[Any]) -> None:
        self._classes = {kind.event: kind for kind in classes}
        self._readers: dict[str, TypeAdapter[Any]] = {}

    def read(self, text: bytes | str) -> Record | None:
        """The record in a line, or None if the line is not one: not an object, an unknown event, or
        a field that is missing or of another type.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data["event"] not in self._classes:
                return None
            event = str(data["event"])
            if event not in self._readers:  # building one takes a millisecond of every start
                self._readers[event] = TypeAdapter(self._classes[event])
            if b"\\ud" in (text if isinstance(text, bytes) else text.encode()):
                text = json.dumps(_without_surrogates(data))
            record: Record = self._readers[event].validate_json(text, strict=True)
            return record
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
            return None


def _without_surrogates(value: Any) -> Any:
    """Data with lone surrogates, which no text file can hold, written as escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {
            _without_surrogates(name): _without_surrogates(item) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


def fields_of(base: Any, record: Any) -> dict[str, Any]:
    """The fields that a record inherits from `base`, to pass on to another subclass of `base`."""
    return {field.name: getattr(record, field.name) for field in fields(base)}


def as_json(record: Any) -> dict[str, Any]:
    """A record as the JSON object of its line."""
    return {"event": record.event, **{name: _plain(value) for name, value in vars(record).items()}}


def _plain(value: Any) -> Any:
    """A field's value as JSON data. Most are plain already: `asdict` would copy each of them."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


_WORKER_EVENTS: Records[WorkerEvent] = Records(WorkerEvent.__args__)


def read_event(line: bytes | str) -> WorkerEvent | None:
    """The worker event in one line, or None."""
    return _WORKER_EVENTS.read(line)


class Log(Protocol):
    """A file that bytes can be appended to."""

    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


def read_events(lines: BinaryIO, log: Log) -> Iterator[WorkerEvent]:
    """The events in a worker's output. A line that is not an event (output of a container
    engine, a line that is too long) is written to `log`.
    """
    while line := lines.readline(MAX_LINE):
        whole = line.endswith(b"\n") or len(line) < MAX_LINE
        event = read_event(line) if whole else None
        if event is not None:
            yield event
            continue
        log.write(line if whole else line[:200] + b" ... (a line of more than 4 MiB, cut)\n")
        log.flush()
        while not whole and (line := lines.readline(MAX_LINE)):
            whole = line.endswith(b"\n")
