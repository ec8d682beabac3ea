"""The worker: `python -m toolkit.worker`. Takes jobs as JSON lines on stdin, emits events as JSON
lines on stdout.

The same program runs on the host, in a container or on another machine; it sees job folders and
never the store. It keeps the last model and SAEs loaded. When stdin closes, the host is gone and
the worker ends at once. What parts print goes to stderr, and their stdin is empty.

Messages in: `open` (scratch plugins), `job`, `stack`, `close`. Events out: those of
`toolkit.executors.protocol`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from toolkit.errors import ToolkitError
from toolkit.executors.gpus import installed_gpus, visible_gpus
from toolkit.executors.protocol import (
    Alive,
    Done,
    Failed,
    Hello,
    JobReport,
    Phase,
    Progress,
    Stack,
    WorkerEvent,
    as_json,
)
from toolkit.identity import Identity
from toolkit.models import Counted, Model
from toolkit.secrets import Secrets
from toolkit.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit._plugins.registry import Parts

ALIVE_SECONDS = 1.0
FROZEN_SECONDS = 30.0
"""If no Python code has run for this long, the C-level stacks are written to the log."""


class _Channel:
    """Writes events; safe to use from several threads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def emit(self, event: WorkerEvent) -> None:
        """Write one line and flush it. A closed pipe means that the host is gone."""
        line = json.dumps(as_json(event))
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                os._exit(1)


class _EventReporter:
    """A job's phases and progress as events; progress at most ten times a second, the last one
    always.
    """

    def __init__(self, channel: _Channel, job: str) -> None:
        self._channel, self._job, self._last = channel, job, 0.0

    def phase(self, name: str) -> None:
        self._channel.emit(Phase(job=self._job, phase=str(name)))

    def progress(self, done: int, total: int | None = None) -> None:
        if done == total or time.monotonic() - self._last >= 0.1:
            self._last = time.monotonic()
            count = None if total is None else int(total)
            self._channel.emit(Progress(job=self._job, done=int(done), total=count))

    def event(self, name: str, **facts: Any) -> None:
        self._channel.emit(JobReport(job=self._job, name=name, facts=facts))


class _FileInputs:
    """The input tables of a job: Arrow files named by the host."""

    def __init__(self, files: Mapping[str, Sequence[str]]) -> None:
        self._files = files

    def tables(self) -> Sequence[str]:
        return sorted(self._files)

    def read(self, table: str) -> pa.Table:
        import pyarrow as pa

        from toolkit._run.job_folder import read_arrow
        from toolkit.errors import DataError

        if table not in self._files:
            raise DataError(
                f"Table '{table}' is not among this stage's inputs: {sorted(self._files)}. Declare "
                "it in `reads`."
            )
        return pa.concat_tables([read_arrow(Path(file)) for file in self._files[table]])


class _Loaded:
    """The model and SAEs in memory. A request for others releases these first."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[str, Any]] = {}

    def get(
        self, parts: Parts, kind: str, requested: Mapping[str, Any] | None, report: _EventReporter
    ) -> Any:
        if requested is None:
            return None
        key = json.dumps(requested, sort_keys=True)
        if self._loaded.get(kind, ("", None))[0] != key:
            self._loaded.pop(kind, None)
            report.phase(f"load {kind}")
            part = parts.get(kind, requested["part"])
            params = part.params.model_validate(requested["params"], context={"parts": parts})
            self._loaded[kind] = (key, part.load(params, report))  # type: ignore[attr-defined]
        return self._loaded[kind][1]


def main() -> None:
    """Listen until stdin closes."""
    messages_in, channel = _take_stdin(), _Channel(_take_stdout())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(messages_in, channel, messages), daemon=True).start()
    threading.Thread(target=_live, args=(channel,), daemon=True).start()
    _serve(channel, messages)


def _take_stdin() -> TextIO:
    """Reserve stdin for the protocol; a part that reads stdin gets an empty one."""
    protocol = os.fdopen(os.dup(0), "r", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    return protocol


def _take_stdout() -> TextIO:
    """Reserve stdout for the protocol; anything else written to stdout goes to stderr."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return protocol


def _listen(lines: Iterable[str], channel: _Channel, messages: queue.Queue[dict[str, Any]]) -> None:
    for line in lines:
        message = json.loads(line)
        if message["type"] == "stack":
            channel.emit(Stack(text=_main_stack()))
        else:
            messages.put(message)
    os._exit(0)


def _main_stack() -> str:
    main = threading.main_thread()
    frame = sys._current_frames().get(main.ident or 0)
    return f"thread {main.name}:\n{''.join(traceback.format_stack(frame))}"


def _live(channel: _Channel) -> None:
    """Emit a sign of life each second. Each sign postpones the dump of the C-level stacks."""
    while True:
        faulthandler.dump_traceback_later(FROZEN_SECONDS)
        time.sleep(ALIVE_SECONDS)
        channel.emit(Alive(**memory()))


def memory() -> dict[str, int | None]:
    """Bytes of this process, and the most bytes that torch has reserved on the device; torch is not
    imported to find out.
    """
    import psutil

    torch = sys.modules.get("torch")
    on_device = None
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available():
        on_device = int(torch.cuda.max_memory_reserved())
    return {"host_bytes": psutil.Process().memory_info().rss, "device_bytes": on_device}


class _HidingStream:
    """A text stream that replaces environment values of the spec by references to them."""

    def __init__(self, stream: TextIO, secrets: Secrets) -> None:
        self._stream, self._secrets = stream, secrets

    def write(self, text: str) -> int:
        self._stream.write(self._secrets.hide(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _keep_out_of_log(secrets: Secrets) -> None:
    """Replace secrets in what parts print, since it goes to the worker's log."""
    if secrets.values:
        sys.stderr = sys.stdout = _HidingStream(sys.stderr, secrets)


def _serve(channel: _Channel, messages: queue.Queue[dict[str, Any]]) -> None:
    # every job needs it; importing it here keeps the import out of a step's time
    import pyarrow as pa

    from toolkit._plugins.loading import load_parts

    pa.schema([])
    opening = messages.get()
    _keep_out_of_log(Secrets(opening.get("secrets", {})))
    try:
        parts = load_parts([Path(file) for file in opening.get("plugins", ())])
    except ToolkitError as error:
        channel.emit(Failed(job=None, kind=type(error).__name__, message=str(error)))
        return
    channel.emit(_hello(parts))
    loaded = _Loaded()
    while (message := messages.get())["type"] != "close":
        _job(channel, parts, loaded, message)


def _hello(parts: Parts) -> Hello:
    import psutil

    from toolkit._plan.versions import torch_cuda, versions

    return Hello(
        pid=os.getpid(),
        host=platform.node(),
        versions=versions(parts),
        gpus=tuple(visible_gpus(installed_gpus(), os.environ)),
        torch_cuda=torch_cuda(),
        free_bytes=int(psutil.virtual_memory().available),
    )


def _job(channel: _Channel, parts: Parts, loaded: _Loaded, job: Mapping[str, Any]) -> None:
    """Run one job. A failure is reported with its kind and traceback, and the worker continues."""
    try:
        done = _run(parts, loaded, job, _EventReporter(channel, job["job"]))
    except Exception as error:
        channel.emit(
            Failed(
                job=job["job"],
                kind=type(error).__name__,
                message=_message(error),
                traceback=traceback.format_exc(),
            )
        )
    else:
        channel.emit(done)


def _message(error: Exception) -> str:
    if isinstance(error, ToolkitError):
        return str(error)
    if isinstance(error, EOFError):
        return (
            f"EOFError: {error}. The part, or a library that it calls, asked for input on the "
            "terminal, which a worker does not have. Set the answer in advance: in the part's "
            "params, or in the library's settings."
        )
    return f"{type(error).__name__}: {error}"


def _run(parts: Parts, loaded: _Loaded, job: Mapping[str, Any], report: _EventReporter) -> Done:
    from toolkit._run.job_folder import JobWriter

    began = time.monotonic()
    part: Any = parts.get(job["kind"], job["part"])
    work = Work(
        params=part.params.model_validate(job["params"], context={"parts": parts}),
        seed=job["seed"],
        step=job["job"],
        inputs=_FileInputs(job["inputs"]),
        report=report,
        limit_units=job["limit"],
        units=job["units"] and tuple(job["units"]),
        features=job["features"] and tuple(job["features"]),
        batch=job.get("batch") or {},
        scratch=Path(job["folder"]),
        identity=Identity(**job["identity"]) if job.get("identity") else None,
        model=loaded.get(parts, "model", job["model"], report),
        saes=loaded.get(parts, "sae", job["saes"], report),
    )
    ready = time.monotonic()
    before = _counted(work.model)
    writer = JobWriter(Path(job["folder"]), part.name, part.tables(work.params))
    report.phase("compute")
    try:
        for name, rows in part.run(work):
            writer.add(name, rows)
    finally:
        writer.close()
    report.phase("write")
    rows_written = writer.finish({"key": job["job"], "seconds": time.monotonic() - ready})
    seconds = time.monotonic() - ready
    after = _counted(work.model)
    return Done(
        job=job["job"],
        rows=rows_written,
        seconds=seconds,
        load_seconds=ready - began,
        texts=after.texts - before.texts,
        operations=after.operations - before.operations,
        **memory(),
    )


def _counted(model: Any) -> Counted:
    """What the model has computed so far."""
    return replace(model.counted) if isinstance(model, Model) else Counted()


if __name__ == "__main__":
    main()
