"""The actor: one worker process on a node, its messages, its events and its files.

All of its state may be lost. Events are numbered and kept until the host has them, so that a lost
call can be repeated; so are the files of finished jobs.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.executors.interface import WorkerEnd
from toolkit.executors.processes import PipedWorker
from toolkit.executors.protocol import Alive, Done, Failed, Phase, Progress, as_json

JOBS, INPUTS = "jobs", "inputs"
"""Folders of the actor's scratch folder, for the host's that this node does not see."""
DONE = "done.json"
"""The file that makes a job folder complete."""
COMMAND = (sys.executable, "-m", "toolkit.worker")
GET_SECONDS = 300.0
"""How long an input may take to arrive from another node's object store."""
MAX_LOG = 1 << 20
"""Bytes of the worker's log that one answer carries."""
MAX_RESULTS = 1 << 20
"""Bytes of finished jobs' files that one answer carries; the host asks for larger ones."""
GATHER_SECONDS = 0.05
"""How long phases and progress wait for an event that ends a job, to be delivered with it."""
PASSING = (Phase, Progress, Alive)
"""Events that can wait."""


@dataclass(frozen=True)
class ActorUpdate:
    """What is new since the host last asked."""

    events: list[tuple[int, dict[str, Any]]]
    log: bytes
    """The bytes that its log has gained."""
    log_end: int
    ended: WorkerEnd | None
    """How it ended, once all its events are delivered."""
    results: Mapping[int, Mapping[str, bytes]]
    """The files of finished jobs, if they are small, by the number of the event."""


@dataclass(frozen=True)
class _LocalFolders:
    """Where a job writes, and where its inputs are, if they are here for this job only."""

    results: Path
    inputs: Path | None


class WorkerActor:
    """One worker, from the actor's start to its end."""

    def __init__(
        self, name: str, env: Mapping[str, str], folders: Mapping[str, str], gpus: bool
    ) -> None:
        """`folders` maps the host's folders that this node does not see to names of folders in the
        actor's scratch folder.
        """
        self._scratch = Path(tempfile.mkdtemp(prefix="toolkit-worker-"))
        self._folders = {
            Path(outside): PurePosixPath(self._scratch / inside)
            for outside, inside in folders.items()
        }
        self._log = self._scratch / "worker.log"
        visible = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        environment = {**os.environ, **env, **visible}
        self._worker = PipedWorker(name, COMMAND, self._log, environment, self._folders)
        self._events: deque[tuple[int, dict[str, Any]]] = deque()
        self._jobs: dict[str, _LocalFolders] = {}
        """The folders of the jobs in hand."""
        self._finished: dict[int, _LocalFolders] = {}
        """Those of jobs that an event has ended and the host does not know about yet."""
        self._urgent = 0
        """The number of the last event that cannot wait."""
        self._ended: WorkerEnd | None = None
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        number = 0
        for event in self._worker.events():
            number += 1
            with self._news:
                if isinstance(event, Alive) and self._events:
                    continue  # waiting events already show that it is alive
                self._events.append((number, as_json(event)))
                if not isinstance(event, PASSING):
                    self._urgent = number
                if isinstance(event, Done | Failed) and event.job in self._jobs:
                    self._finished[number] = self._jobs.pop(event.job)
                self._news.notify_all()
        with self._news:
            self._ended = self._worker.stop()
            self._news.notify_all()

    def send(self, message: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        """Write the files that this node does not have, make the job's folder, and hand the message
        to the worker.
        """
        import ray

        own: Path | None = None
        for path, content in files.items():
            local_path = self._to_local(path)
            if local_path.is_relative_to(self._scratch / JOBS):
                own = local_path.parent
            if not local_path.exists():
                local_path.parent.mkdir(parents=True, exist_ok=True)
                partial = local_path.with_name(f".{local_path.name}.partial")
                if not isinstance(content, bytes):
                    content = ray.get(content, timeout=GET_SECONDS)
                partial.write_bytes(content)
                partial.replace(local_path)
        if message["type"] == "job":
            folder = self._to_local(message["folder"])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with self._news:
                self._jobs[message["job"]] = _LocalFolders(folder, own)
        self._worker.send(message)

    def news(self, after: int, log_from: int, wait: float) -> ActorUpdate:
        """The events numbered above `after`, as soon as there are any, or after `wait` seconds.
        Those up to `after` the host has, and the results that they announce.
        """
        with self._news:
            while self._events and self._events[0][0] <= after:
                self._remove(*self._events.popleft())
            self._news.wait_for(lambda: self._events or self._ended is not None, wait)
            if self._urgent <= after:
                gathered = min(wait, GATHER_SECONDS)
                self._news.wait_for(lambda: self._urgent > after or self._ended, gathered)
            events, ended = list(self._events), self._ended
        text = self._log_after(log_from)
        return ActorUpdate(events, text, log_from + len(text), ended, self._results(events))

    def _remove(self, number: int, event: Mapping[str, Any]) -> None:
        """Remove the folders of a job whose end the host knows, but no folder that the host sees
        as well. The inputs of a job that failed stay, since it may be tried again.
        """
        folders = self._finished.pop(number, None)
        if folders is not None and self._is_own(folders.results):
            shutil.rmtree(folders.results, ignore_errors=True)
            if folders.inputs is not None and event["event"] == Done.event:
                shutil.rmtree(folders.inputs, ignore_errors=True)

    def _log_after(self, start: int) -> bytes:
        """The log from a byte on; nothing once it is removed."""
        try:
            with self._log.open("rb") as file:
                file.seek(start)
                return file.read(MAX_LOG)
        except FileNotFoundError:
            return b""

    def _results(
        self, events: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> dict[int, Mapping[str, bytes]]:
        """The files of the jobs that these events end, as long as they are small."""
        results, left = {}, MAX_RESULTS
        for number, event in events:
            folders = self._finished.get(number)
            if event["event"] != Done.event or not (folders and self._is_own(folders.results)):
                continue
            left -= sum(path.stat().st_size for path in _result_files(folders.results))
            if left < 0:
                break
            results[number] = self.files(number)
        return results

    def files(self, number: int) -> Mapping[str, bytes]:
        """The files of the job that an event has ended, by name."""
        paths = _result_files(self._finished[number].results)
        return {path.name: path.read_bytes() for path in paths}

    def stop(self, now: bool) -> WorkerEnd:
        """End the worker, and remove all files of the actor."""
        end = self._worker.stop(now=now)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return end

    def _is_own(self, folder: Path) -> bool:
        """Whether a folder is the actor's, which the host does not see."""
        return folder.is_relative_to(self._scratch)

    def _to_local(self, path: str) -> Path:
        for outside, inside in self._folders.items():
            if Path(path).is_relative_to(outside):
                return Path(inside) / Path(path).relative_to(outside)
        return Path(path)


def _result_files(folder: Path) -> list[Path]:
    return [folder / DONE, *sorted(folder.glob("*.arrow"))]
