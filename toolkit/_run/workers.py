"""The workers of a run: start them, check that they are the same code as the host, hand out jobs,
take events, replace the dead.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import PluginError, VersionMismatch, WorkerDied
from toolkit.parts import ExecutorPart
from toolkit.work import Worker

Message = tuple["Seat", Mapping[str, Any] | None]
"""A worker's event, or None when the worker has ended."""


@dataclass
class Seat:
    """One worker and what it is doing. `warmth` names the model and SAEs it holds."""

    worker: Worker
    device: Mapping[str, Any]
    ready: bool = False
    ended: bool = False
    job: str | None = None
    warmth: str | None = None
    phase: str = "start"
    phase_since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    listener: threading.Thread | None = None


class Pool:
    """Workers are started when the first job comes: a run that reuses everything starts none."""

    def __init__(
        self,
        executor: ExecutorPart,
        params: Any,
        devices: Sequence[Mapping[str, Any]],
        folder: Path,
        plugins: Sequence[Path],
        versions: Mapping[str, str],
        emit: Callable[..., None],
    ) -> None:
        self._executor, self._params, self.devices = executor, params, list(devices)
        self._folder, self._plugins, self._versions, self._emit = (
            folder,
            [str(path.resolve()) for path in plugins],
            versions,
            emit,
        )
        self.inbox: queue.Queue[Message] = queue.Queue()
        self.seats: list[Seat] = []

    def start(self, wanted: int) -> None:
        """As many workers as there is work for, at most one a device."""
        for device in self.devices[len(self.seats) : wanted]:
            self.seats.append(self._start(device))

    def _start(self, device: Mapping[str, Any]) -> Seat:
        worker = self._executor.start(self._params, [device], self._folder)[0]
        seat = Seat(worker, device)
        worker.send({"type": "open", "plugins": self._plugins})
        seat.listener = threading.Thread(target=self._listen, args=(seat,), daemon=True)
        seat.listener.start()
        return seat

    def _listen(self, seat: Seat) -> None:
        for event in seat.worker.events():
            self.inbox.put((seat, event))
        self.inbox.put((seat, None))

    def welcome(self, seat: Seat, event: Mapping[str, Any]) -> None:
        """Take a worker's hello, if it carries the same toolkit and plugins as the host."""
        found = event["versions"]
        for name in sorted({*self._versions, *found}, key=lambda name: (name != "toolkit", name)):
            here, there = self._versions.get(name, "not there"), found.get(name, "not there")
            if here != there:
                raise VersionMismatch(
                    f"{seat.worker.name} carries another version: {name} is {there} there and "
                    f"{here} here. Install the same version on both sides (or rebuild the image), "
                    "then issue the same command again."
                )
        seat.ready = True
        self._emit(
            "worker_ready",
            worker=seat.worker.name,
            pid=event["pid"],
            physical=seat.device.get("physical"),
            visible=seat.device.get("visible"),
        )

    def refused(self, seat: Seat, event: Mapping[str, Any]) -> PluginError:
        """The error of a worker that could not load its plugins."""
        return PluginError(f"{seat.worker.name}: {event['message']}")

    def idle(self, warmth: str) -> Seat | None:
        """A free worker, the one that holds the right model and SAEs first."""
        free = [seat for seat in self.seats if seat.ready and seat.job is None and not seat.ended]
        return min(
            free, key=lambda seat: (seat.warmth != warmth, seat.warmth is not None), default=None
        )

    def give(self, seat: Seat, job: Mapping[str, Any], warmth: str) -> None:
        """Hand a job to a worker."""
        seat.job, seat.warmth = job["job"], warmth
        seat.phase, seat.phase_since, seat.heard = "start", time.monotonic(), time.monotonic()
        seat.worker.send({"type": "job", **job})

    def replace(self, seat: Seat) -> str:
        """A fresh worker in a dead one's place; says how the old one ended. One that never said
        hello is not tried again.
        """
        how = ending(seat.worker.stop(now=True))
        if not seat.ready:
            raise WorkerDied(
                f"{seat.worker.name} ended before its first word ({how}). Its own words: "
                f"{self._folder}/{seat.worker.name}.log"
            )
        self.seats[self.seats.index(seat)] = self._start(seat.device)
        return how

    def owing(self) -> list[Seat]:
        """Workers that should be heard of: with a job in flight, or still starting."""
        return [
            seat
            for seat in self.seats
            if not seat.ended and (seat.job is not None or not seat.ready)
        ]

    def stop(self, *, now: bool) -> None:
        """End all workers."""
        for seat in self.seats:
            seat.worker.stop(now=now)
        for seat in self.seats:
            if seat.listener is not None:
                seat.listener.join(timeout=5)


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "no exit status"
    if code < 0:
        return "killed by signal 9; out of memory?" if code == -9 else f"killed by signal {-code}"
    return f"exit status {code}"
