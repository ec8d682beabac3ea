"""One task of an array job: `python -m toolkit_slurm.task FOLDER`. Takes a seat, starts its worker,
and carries messages and events between the worker's pipes and the files of the shared folder.

A task may be requeued or die at any point; results that it has not published do not exist. Its
worker writes into a private job folder. Once the step is done, the files are renamed into the job
folder that the host reads, `done.json` last. If the host is gone, the step in hand is still
finished and published, for the next host to take over.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.executors.processes import PipedWorker
from toolkit.executors.protocol import Alive, Done, Failed, WorkerEvent, as_json

from ._seats import LineReader, Seat, Seats, append, read_message

POLL_SECONDS = 0.2
ALIVE_SECONDS = 5.0
"""How often the worker's sign of life is written to the shared folder."""
SEATLESS_SECONDS = 30.0
"""How long a task waits for a seat before it ends."""


@dataclass
class Signals:
    """The signals that the batch system has sent to the task."""

    leave: bool = False
    """Take no further step: the time limit is near."""
    end: bool = False
    """End now: the time limit, a preemption or a cancellation."""

    def listen(self) -> None:
        """Install the signal handlers."""
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "leave", True))
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "end", True))


@dataclass
class HostWatch:
    """Measures how long the host has been silent, by this machine's clock alone."""

    seats: Seats
    _last_beat: str = ""
    _changed_at: float = field(default_factory=time.monotonic)

    def silent_seconds(self) -> float:
        """Seconds since its heartbeat last changed."""
        beat = self.seats.heartbeat()
        if beat != self._last_beat:
            self._last_beat, self._changed_at = beat, time.monotonic()
        return time.monotonic() - self._changed_at


def main() -> None:
    """Take seats until the session is over."""
    seats, signals = Seats(Path(sys.argv[1])), Signals()
    signals.listen()
    host, task = HostWatch(seats), task_name(os.environ)
    seatless_since = time.monotonic()
    while not (signals.leave or signals.end):
        session = seats.session()
        if not session:
            return
        seat = seats.claim(session, task)
        if seat is not None:
            SeatedTask(seats, session, seat, task, signals, host).run()
            seatless_since = time.monotonic()
        elif time.monotonic() - seatless_since > SEATLESS_SECONDS:
            return
        else:
            time.sleep(POLL_SECONDS)


def task_name(environ: Mapping[str, str]) -> str:
    """`JOB_TASK.RESTARTS`: a requeued task is a different owner."""
    job = environ.get("SLURM_ARRAY_JOB_ID") or environ["SLURM_JOB_ID"]
    index = environ.get("SLURM_ARRAY_TASK_ID", "0")
    return f"{job}_{index}.{environ.get('SLURM_RESTART_COUNT') or 0}"


class SeatedTask:
    """A task that holds a seat: runs one worker from its start to its end."""

    def __init__(
        self,
        seats: Seats,
        session: str,
        seat: Seat,
        task: str,
        signals: Signals,
        host: HostWatch,
    ) -> None:
        self._seats, self._session, self._seat = seats, session, seat
        self._task, self._signals, self._host = task, signals, host
        self._inbox = LineReader(seats.inbox(session, seat.name))
        self._outbox = seats.outbox(session, seat.name)
        self._events: deque[Mapping[str, Any]] = deque()
        self._last_alive = 0.0
        self._jobs: dict[str, Path] = {}
        """The private folder of each job in hand."""
        env = {**os.environ, **seat.env}
        if "CUDA_VISIBLE_DEVICES" in env:  # a container starts with a clean environment
            env["APPTAINERENV_CUDA_VISIBLE_DEVICES"] = env["CUDA_VISIBLE_DEVICES"]
        self._worker = PipedWorker(
            seat.worker, seat.command, Path(seat.log), env, seat.translations()
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def run(self) -> None:
        """Carry messages and events until the worker ends or has to end."""
        reason = ""
        while not reason and self._listener.is_alive():
            time.sleep(POLL_SECONDS)
            self._deliver()
            self._write_events()
            reason = self._reason_to_end()
        end = self._worker.stop(now=bool(self._jobs))
        self._listener.join(timeout=10)
        for folder in self._jobs.values():
            shutil.rmtree(folder, ignore_errors=True)
        self._events.append({"event": "ended", "how": reason or end.text})
        self._write_events()

    def _reason_to_end(self) -> str:
        if self._signals.end:
            return "Slurm ended its task: the time limit, a preemption or a cancellation"
        session = self._seats.session()
        if session != self._session and (session or not self._jobs):
            return "the session of its host has ended"
        if self._jobs:
            return ""
        if self._signals.leave:
            return "its task left before the time limit"
        if self._host.silent_seconds() > self._seat.wait:
            return "its host was silent for too long"
        return ""

    # --- from the host to the worker ---

    def _deliver(self) -> None:
        for line in self._inbox.lines():
            message = read_message(line, self._seat.secrets, os.environ)
            if message["type"] == "open":
                message["secrets"] = {name: os.environ[name] for name in self._seat.secrets}
            if message["type"] == "job":
                message["folder"] = str(self._private_folder(message["job"]))
            self._worker.send(message)

    def _private_folder(self, job: str) -> Path:
        folder = Path(self._seat.jobs) / f".{job}-{self._task}-{self._seat.name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._jobs[job] = folder
        return folder

    # --- from the worker to the host ---

    def _listen(self) -> None:
        for event in self._worker.events():
            if isinstance(event, Alive):
                if time.monotonic() - self._last_alive < ALIVE_SECONDS:
                    continue
                self._last_alive = time.monotonic()
            if self._publish_if_done(event):
                self._events.append(as_json(event))

    def _publish_if_done(self, event: WorkerEvent) -> bool:
        """Publish a finished step. False if the event must not reach the host."""
        if not isinstance(event, Done | Failed) or event.job not in self._jobs:
            return True
        folder = self._jobs[event.job]
        published = True
        if isinstance(event, Done):
            published = self._publish(folder, Path(self._seat.jobs) / event.job)
        shutil.rmtree(folder, ignore_errors=True)
        del self._jobs[event.job]
        return published

    def _publish(self, private: Path, public: Path) -> bool:
        """Rename the files of a finished step into the folder that the host reads, `done.json`
        last. False if a later host has taken over, since it has given the step to another task.
        """
        if self._seats.session() not in (self._session, ""):
            return False
        tables = json.loads((private / "done.json").read_text())["tables"]
        try:
            for name in tables:
                (private / f"{name}.arrow").replace(public / f"{name}.arrow")
            (private / "done.json").replace(public / "done.json")
        except FileNotFoundError:
            return False
        return True

    def _write_events(self) -> None:
        """Append the events since the last call to the outbox."""
        records = [self._events.popleft() for _ in range(len(self._events))]
        if records:
            append(self._outbox, records)


if __name__ == "__main__":
    main()
