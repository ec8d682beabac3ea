"""The worker: `python -m toolkit.worker`. Takes jobs as JSON lines on stdin, emits events as JSON
lines on stdout.

The same program runs beside the host, in a container or on another machine; it sees job folders and
never the store. It keeps the last model and SAEs loaded. When stdin closes, the host is gone and
the worker ends at once. What parts print goes to stderr.

Messages in: `open` (scratch plugins), `job`, `stack`, `close`. Events out: `hello` (versions),
`phase`, `progress`, `alive`, `told`, `done`, `failed`, `stack`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from toolkit.errors import ToolkitError
from toolkit.parts import Identity
from toolkit.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit._plugins.loading import Parts

ALIVE_SECONDS = 1.0


class _Channel:
    """Writes events; several threads may."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def emit(self, event: str, **facts: Any) -> None:
        """One line, flushed. A closed pipe means that the host is gone."""
        line = json.dumps({"event": event, "at": time.time(), **facts})
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                os._exit(1)


class _Reporter:
    """A job's phases and progress as events; progress at most ten times a second, the last one
    always.
    """

    def __init__(self, channel: _Channel, job: str) -> None:
        self._channel, self._job, self._last = channel, job, 0.0

    def phase(self, name: str) -> None:
        self._channel.emit("phase", job=self._job, phase=name)

    def progress(self, done: int, total: int | None = None) -> None:
        if done == total or time.monotonic() - self._last >= 0.1:
            self._last = time.monotonic()
            self._channel.emit("progress", job=self._job, done=done, total=total)

    def event(self, name: str, **facts: Any) -> None:
        self._channel.emit("told", job=self._job, name=name, facts=facts)


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
    """The model and SAEs that are in memory now. Asking for others lets these go first."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Any]] = {}

    def get(
        self, parts: Parts, kind: str, wanted: Mapping[str, Any] | None, report: _Reporter
    ) -> Any:
        if wanted is None:
            return None
        name = json.dumps(wanted, sort_keys=True)
        if self._held.get(kind, ("", None))[0] != name:
            self._held.pop(kind, None)
            report.phase(f"load {kind}")
            part = parts.get(kind, wanted["part"])
            params = part.params.model_validate(wanted["params"])
            self._held[kind] = (name, part.load(params, report))  # type: ignore[attr-defined]
        return self._held[kind][1]


def main() -> None:
    """Listen until stdin closes."""
    channel = _Channel(_take_stdout())
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(channel, messages), daemon=True).start()
    threading.Thread(target=_live, args=(channel,), daemon=True).start()
    _serve(channel, messages)


def _take_stdout() -> TextIO:
    """The protocol gets a copy of stdout; whatever else writes to stdout then lands on stderr."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


def _listen(channel: _Channel, messages: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "stack":
            channel.emit("stack", text=_stacks())
        else:
            messages.put(message)
    os._exit(0)


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sys._current_frames()
    order = sorted((ident for ident in frames if names.get(ident)), key=lambda ident: ident != main)
    return "\n".join(
        f"thread {names[ident]}:\n{''.join(traceback.format_stack(frames[ident]))}"
        for ident in order[:1]
    )


def _live(channel: _Channel) -> None:
    while True:
        time.sleep(ALIVE_SECONDS)
        channel.emit("alive", **memory())


def memory() -> dict[str, int | None]:
    """Bytes this process holds, and bytes torch holds on the device; torch is not imported to find
    out.
    """
    import psutil

    torch = sys.modules.get("torch")
    on_device = None
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available():
        on_device = int(torch.cuda.max_memory_reserved())
    return {"host_bytes": psutil.Process().memory_info().rss, "device_bytes": on_device}


def _serve(channel: _Channel, messages: queue.Queue[dict[str, Any]]) -> None:
    import pyarrow as pa  # every job needs it; paid for here, it does not count as a step's time

    from toolkit._plan.versions import versions
    from toolkit._plugins.loading import load_parts

    pa.schema([])
    opening = messages.get()
    try:
        parts = load_parts([Path(file) for file in opening.get("plugins", ())])
    except ToolkitError as error:
        channel.emit(
            "failed", job=None, kind=type(error).__name__, message=str(error), traceback=""
        )
        return
    channel.emit("hello", pid=os.getpid(), versions=versions(parts))
    loaded = _Loaded()
    while (message := messages.get())["type"] != "close":
        _job(channel, parts, loaded, message)


def _job(channel: _Channel, parts: Parts, loaded: _Loaded, job: Mapping[str, Any]) -> None:
    """Run one job; a failure is told to the host with its kind and traceback, and the worker goes
    on.
    """
    started = time.monotonic()
    try:
        rows = _run(parts, loaded, job, _Reporter(channel, job["job"]))
    except Exception as error:
        text = str(error) if isinstance(error, ToolkitError) else f"{type(error).__name__}: {error}"
        channel.emit(
            "failed",
            job=job["job"],
            kind=type(error).__name__,
            message=text,
            traceback=traceback.format_exc(),
        )
    else:
        channel.emit(
            "done", job=job["job"], rows=rows, seconds=time.monotonic() - started, **memory()
        )


def _run(
    parts: Parts, loaded: _Loaded, job: Mapping[str, Any], report: _Reporter
) -> dict[str, int]:
    from toolkit._run.job_folder import JobWriter

    started = time.monotonic()
    part: Any = parts.get(job["kind"], job["part"])
    work = Work(
        params=part.params.model_validate(job["params"]),
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
    writer = JobWriter(Path(job["folder"]), part.name, part.tables(work.params))
    report.phase("compute")
    try:
        for name, rows in part.run(work):
            writer.add(name, rows)
    finally:
        writer.close()
    report.phase("write")
    return writer.finish({"key": job["job"], "seconds": time.monotonic() - started})


if __name__ == "__main__":
    main()
