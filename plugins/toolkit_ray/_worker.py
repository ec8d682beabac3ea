"""The host's side of an actor: messages with the files that they name, events, finished steps."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit.executors.interface import WorkerEnd, WorkerRequest
from toolkit.executors.protocol import Done, Failed, Hello, WorkerEvent, read_event

from ._actor import DONE, INPUTS, JOBS, ActorUpdate, WorkerActor
from ._connection import without_addresses
from ._params import RayParams

Files = Mapping[str, bytes]
"""Contents by file name."""
WAIT_SECONDS = 1.0
"""How long an actor may wait for news before it answers that there are none."""
CALL_SECONDS = 5.0
"""How long the host waits for an answer before it checks whether to wait on."""
UNAVAILABLE_SECONDS = 60.0
"""How long an actor may be out of reach before it counts as lost."""
STARTS = 3
"""How often an actor is started if it is lost before its worker says hello."""


class RayWorker:
    """A worker in an actor."""

    def __init__(
        self, ray: Any, params: RayParams, request: WorkerRequest, env: Mapping[str, str]
    ) -> None:
        self.name = request.name
        self._ray, self._params, self._request, self._env = ray, params, request, dict(env)
        self._references: dict[str, Any] = {}
        self._opening: Mapping[str, Any] | None = None
        self._folders: dict[str, tuple[Path, Path]] = {}
        """For each job in hand, the worker's private folder and the folder that the host reads."""
        self._stopped = False
        self._greeted = False
        self._end: WorkerEnd | None = None
        self._starts = 0
        self._actor = self._start()

    def _start(self) -> Any:
        self._starts += 1
        self._after, self._log_from = 0, 0
        params, reserved = self._params, self._params.reserved()
        folders: dict[str, str] = {}
        if params.where == "object_store":
            folders = {str(self._request.jobs): JOBS, str(self._request.inputs): INPUTS}
            for number, path in enumerate(self._request.plugins):
                folders[str(path)] = f"plugins/{number}/{path.name}"
        options: dict[str, Any] = {
            "num_cpus": reserved.pop("CPU", 0),
            "num_gpus": reserved.pop("GPU", 0),
            "max_restarts": 0,
            "max_concurrency": 4,
        }
        if (memory := reserved.pop("memory", None)) is not None:
            options["memory"] = memory
        if reserved:
            options["resources"] = reserved
        if params.labels:
            options["label_selector"] = dict(params.labels)
        if params.runtime_env:
            options["runtime_env"] = dict(params.runtime_env)
        actor = self._ray.remote(WorkerActor).options(**options)
        return actor.remote(self.name, self._env, folders, params.gpus > 0)

    # --- to the worker ---

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a message to the actor, with the files that its node does not see."""
        if message["type"] == "open":
            self._opening = message
        if message["type"] == "job":
            message = self._with_private_folder(message)
        self._send(message)

    def _send(self, message: Mapping[str, Any]) -> None:
        files = {}
        if self._params.where == "object_store":
            files = {path: self._content(path) for path in _files_of(message)}
        self._actor.send.remote(dict(message), files)

    def _with_private_folder(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Give each attempt a folder of its own, since a lost worker may go on writing."""
        job, public = message["job"], Path(message["folder"])
        private = str(public.parent / f".{job}-{uuid.uuid4().hex[:8]}")
        self._folders[job] = (Path(private), public)
        return {**message, "folder": private}

    def _content(self, path: str) -> Any:
        """The bytes of a file, which travel with the message; of inputs that jobs share, a
        reference to Ray's object store, into which they are put once.
        """
        if not Path(path).is_relative_to(self._request.inputs):
            return Path(path).read_bytes()
        if path not in self._references:
            self._references[path] = self._ray.put(Path(path).read_bytes())
        return self._references[path]

    # --- from the worker ---

    def events(self) -> Iterator[WorkerEvent]:
        """Yield its events until the worker has ended or its node is lost."""
        while not self._stopped:
            events: list[WorkerEvent] = []
            try:
                news = self._news()
                if news is not None:
                    events.extend(self._new_events(news))
            except self._ray.exceptions.RayError as error:
                yield from events
                if not self._stopped and not isinstance(error, self._lost_errors()):
                    raise
                if self._stopped or self._greeted or self._starts >= STARTS:
                    self._end = self._end or _loss(error)
                    return
                self._restart()
                continue
            if news is None:
                return
            yield from events
            if news.ended is not None and not news.events:
                self._end = news.ended
                return

    def _lost_errors(self) -> tuple[type[Exception], ...]:
        """The errors for a lost actor: it died, or its node was out of memory."""
        errors = self._ray.exceptions
        return (
            errors.RayActorError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.RuntimeEnvSetupError,
        )

    def _new_events(self, news: ActorUpdate) -> Iterator[WorkerEvent]:
        """Yield the new events, each after the tables of its finished step are fetched."""
        self._write_log(news)
        for number, record in news.events:
            self._after = number
            event = _as_event(record)
            if event is not None:
                self._collect_tables(event, number, news.results)
                yield event

    def _restart(self) -> None:
        """Start another actor: the node was lost before the worker had anything to do."""
        self._actor = self._start()
        if self._opening is not None:
            self._send(self._opening)

    def _news(self) -> ActorUpdate | None:
        """The actor's next answer, or None once it is stopped. An actor that waits for a node
        answers late; one that is briefly out of reach is asked again.
        """
        deadline = time.monotonic() + UNAVAILABLE_SECONDS
        while not self._stopped:
            reference = self._actor.news.remote(self._after, self._log_from, WAIT_SECONDS)
            try:
                while not self._stopped:
                    with suppress(self._ray.exceptions.GetTimeoutError):
                        news: ActorUpdate = self._ray.get(reference, timeout=CALL_SECONDS)
                        return news
            except self._ray.exceptions.ActorUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
        return None

    def _write_log(self, news: ActorUpdate) -> None:
        self._log_from = news.log_end
        if news.log:
            with (self._request.folder / f"{self.name}.log").open("ab") as file:
                file.write(news.log)

    def _collect_tables(
        self, event: WorkerEvent, number: int, results: Mapping[int, Files]
    ) -> None:
        """Put the files of a finished step where the host reads them, `done.json` last."""
        self._greeted = self._greeted or isinstance(event, Hello)
        if not isinstance(event, Done | Failed) or event.job not in self._folders:
            return
        private, public = self._folders.pop(event.job)
        if self._params.where == "shared":
            if isinstance(event, Done):
                _move(private, public)
            shutil.rmtree(private, ignore_errors=True)
        elif isinstance(event, Done):
            files = results.get(number) or self._ask_files(number)
            for name in sorted(files, key=lambda name: name == DONE):
                _write(public / name, files[name])

    def _ask_files(self, number: int) -> Files:
        """The files of a job, which were too large for the answer with its event."""
        asked = self._actor.files.remote(number)
        files: Files = self._ray.get(asked, timeout=10 * UNAVAILABLE_SECONDS)
        return files

    # --- the end ---

    def stop(self, *, now: bool = False) -> WorkerEnd:
        """End the worker, at once with `now`, and its actor."""
        if self._stopped:
            return self._end or WorkerEnd("stopped")
        self._stopped = True
        lost = (*self._lost_errors(), self._ray.exceptions.GetTimeoutError)
        try:
            end: WorkerEnd = self._ray.get(self._actor.stop.remote(now), timeout=CALL_SECONDS)
        except lost:
            end = WorkerEnd("its actor did not answer")
        self._end = self._end or end
        self._ray.kill(self._actor)
        return self._end


def _files_of(message: Mapping[str, Any]) -> Iterator[str]:
    """The files that a message names: input tables, and scratch plugins."""
    yield from message.get("plugins", ())
    for paths in message.get("inputs", {}).values():
        yield from paths


def _as_event(record: Mapping[str, Any]) -> WorkerEvent | None:
    return read_event(json.dumps(record))


def _move(private: Path, public: Path) -> None:
    """Move the files of a finished step, `done.json` last."""
    for path in [*sorted(private.glob("*.arrow")), private / DONE]:
        path.replace(public / path.name)


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)


def _loss(error: Exception) -> WorkerEnd:
    """How the worker of a lost actor ended."""
    if "NODE_OUT_OF_MEMORY" in str(error) or "running low on memory" in str(error):
        text = "out of memory: its node ran low on memory, and Ray ended its actor"
        return WorkerEnd(text, out_of_memory=True)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "RuntimeEnvSetup" in type(error).__name__:
        reason = without_addresses(lines[-1] if lines else "")[:300].rstrip(".")
        return WorkerEnd(f"its runtime_env cannot be set up: {reason}")
    words = next((line for line in lines if "cause" in line.lower()), lines[0] if lines else "")
    return WorkerEnd(f"its actor was lost: {without_addresses(words)}"[:300])
