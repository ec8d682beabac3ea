"""The actor: one worker process on a node, its messages, its events and its files.

All of its state may be lost. Events are numbered and kept until the host has them, so that a lost
call can be repeated.
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
from toolkit.executors.protocol import Alive, as_json

COMMAND = (sys.executable, "-m", "toolkit.worker")
GET_SECONDS = 300.0
"""How long an input may take to arrive from another node's object store."""
MAX_LOG = 1 << 20
"""Bytes of the worker's log that one answer carries."""


@dataclass(frozen=True)
class ActorUpdate:
    """What is new since the host last asked."""

    events: list[tuple[int, dict[str, Any]]]
    log: bytes
    """The bytes that its log has gained."""
    log_end: int
    ended: WorkerEnd | None
    """How it ended, once all its events are delivered."""


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
                self._news.notify_all()
        with self._news:
            self._ended = self._worker.stop()
            self._news.notify_all()

    def send(self, message: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        """Write the files that this node does not have, make the job's folder, and hand the message
        to the worker.
        """
        import ray

        for path, reference in files.items():
            local_path = self._to_local(path)
            if not local_path.exists():
                local_path.parent.mkdir(parents=True, exist_ok=True)
                partial = local_path.with_name(f".{local_path.name}.partial")
                partial.write_bytes(ray.get(reference, timeout=GET_SECONDS))
                partial.replace(local_path)
        if message["type"] == "job":
            folder = self._to_local(message["folder"])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._worker.send(message)

    def news(self, after: int, log_from: int, wait: float) -> ActorUpdate:
        """The events numbered above `after`, as soon as there are any, or after `wait` seconds."""
        with self._news:
            while self._events and self._events[0][0] <= after:
                self._events.popleft()
            self._news.wait_for(lambda: self._events or self._ended is not None, wait)
            events, ended = list(self._events), self._ended
        with self._log.open("rb") as file:
            file.seek(log_from)
            text = file.read(MAX_LOG)
        return ActorUpdate(events, text, log_from + len(text), ended)

    def files(self, folder: str) -> dict[str, bytes]:
        """The files of a finished job's folder, by name."""
        local_folder = self._to_local(folder)
        paths = [local_folder / "done.json", *sorted(local_folder.glob("*.arrow"))]
        return {path.name: path.read_bytes() for path in paths}

    def forget(self, folders: Sequence[str]) -> None:
        """Remove the folders of a job, with its results and with inputs of its own."""
        for folder in folders:
            shutil.rmtree(self._to_local(folder), ignore_errors=True)

    def stop(self, now: bool) -> WorkerEnd:
        """End the worker, and remove all files of the actor."""
        end = self._worker.stop(now=now)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return end

    def _to_local(self, path: str) -> Path:
        for outside, inside in self._folders.items():
            if Path(path).is_relative_to(outside):
                return Path(inside) / Path(path).relative_to(outside)
        return Path(path)
