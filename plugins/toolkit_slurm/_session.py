"""The host's side: one session for each run that this process drives. It offers seats, submits a
task for each seat without one, reads the events of workers, and notices dead tasks.

Tasks that an earlier host of the same run submitted may still be in the queue or on their nodes.
They take the seats of the new session, so fewer tasks are submitted.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.containers.mounts import make_folders
from toolkit.errors import BadInput
from toolkit.executors.interface import Worker, WorkerEnd, WorkerRequest
from toolkit.executors.protocol import Done, Failed, Hello, WorkerEvent
from toolkit.files.local import locate
from toolkit.secrets import Secrets

from . import _commands as slurm
from ._events import read_line
from ._params import Slurm
from ._script import job_name, script, seat_for, seats_folder
from ._seats import LineReader, Seats, append, write_text

READ_SECONDS = 0.2
BEAT_SECONDS = 5.0
END_SECONDS = 10.0
"""How long the tasks of a closed session have to end on their own."""
DEAD_CHECKS = 2
"""A task counts as dead when this many checks of the queue in a row find it without a node."""
RESEATINGS = 5
"""How often a worker without a step gets another task before its end is reported to the host."""
MAX_UNUSED = 3
"""How often tasks are submitted again that ended without taking a worker."""


class SlurmWorker:
    """A worker in an array task, or waiting for one."""

    def __init__(self, session: SlurmSession, request: WorkerRequest, number: int) -> None:
        self.request = request
        self.seat = f"{request.name}-{number}"
        self.job: str | None = None
        """The job in hand."""
        self.reseated = 0
        self.dead_checks = 0
        self.ended = ""
        """How it ended."""
        self.stopped = False
        self.greeted = False
        self.opening: dict[str, Any] = {}
        self.reader = LineReader(session.seats.outbox(session.id, self.seat))
        self._session = session
        self._secrets = Secrets(request.secrets)
        self._events: queue.Queue[WorkerEvent | None] = queue.Queue()

    @property
    def name(self) -> str:
        """The name of its request."""
        return self.request.name

    def send(self, message: Mapping[str, Any]) -> None:
        """Append a message to the seat's inbox, with references in place of secrets."""
        record = {name: value for name, value in message.items() if name != "secrets"}
        if message["type"] == "open":
            self.opening = record
        if message["type"] == "job":
            self.job = message["job"]
        inbox = self._session.seats.inbox(self._session.id, self.seat)
        append(inbox, [record], self._secrets)

    def events(self) -> Iterator[WorkerEvent]:
        """Yield its events until it has ended."""
        while (event := self._events.get()) is not None:
            yield event

    def stop(self, *, now: bool = False) -> WorkerEnd:
        """Release its task. The session ends with its last worker."""
        self._session.release(self, now=now)
        return WorkerEnd(self.ended or "stopped")

    def take(self, event: WorkerEvent) -> None:
        """Record an event, and pass it to the host."""
        if isinstance(event, Done | Failed) and event.job == self.job:
            self.job = None
        self.greeted = self.greeted or isinstance(event, Hello)
        self._events.put(event)

    def end(self, how: str) -> None:
        """Record how it ended, and end its stream of events."""
        if not self.ended:
            self.ended = how
            self._events.put(None)


class SlurmSession:
    """The workers of one run, and the tasks that they run in."""

    def __init__(self, params: Slurm, request: WorkerRequest) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.folder = seats_folder(request)
        self.seats = Seats(self.folder)
        self._params, self._job = params, job_name(self.folder)
        self._executor = request.executor
        self._workers: dict[str, SlurmWorker] = {}
        self._numbers = iter(range(1 << 62))
        self._secrets = dict(request.secrets)
        self._submitted: set[str] = set()
        """The tasks submitted since a task last took a worker."""
        self._taken = 0
        self._unused = 0
        """How often submitted tasks have ended since then."""
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._max_size = slurm.max_array_size()
        make_folders(request)
        self.seats.open_session(self.id)
        write_text(self.folder / "task.sh", script(params, self.folder))
        self._thread = threading.Thread(target=self._watch, name="slurm", daemon=True)
        self._thread.start()

    def add(self, requests: Sequence[WorkerRequest]) -> list[Worker]:
        """Offer a seat for each request, and submit the missing tasks."""
        with self._lock:
            workers = [self._offer_seat(request) for request in requests]
            self._submit_missing(slurm.tasks_named(self._job))
        return list(workers)

    def _offer_seat(self, request: WorkerRequest) -> SlurmWorker:
        worker = SlurmWorker(self, request, next(self._numbers))
        self._workers[worker.seat] = worker
        self.seats.offer(self.id, seat_for(self._params, request, worker.seat))
        return worker

    def _submit_missing(self, tasks: Mapping[str, slurm.TaskState]) -> None:
        """Submit a task for every seat that no task in the queue will take."""
        owners = self.seats.owners(self.id)
        seated = {owner.rpartition(".")[0] for owner in self._live_owners(owners, tasks)}
        waiting = sum(1 for seat in self._workers if seat not in owners)
        missing = waiting - sum(1 for task in tasks if task not in seated)
        if missing > 0:
            self._check_submitted(len(owners), tasks)
        for count in slurm.chunks(max(0, missing), self._max_size):
            job = slurm.submit(self.folder / "task.sh", count, self._secrets, self._executor)
            self._submitted |= {f"{job}_{number}" for number in range(count)}

    def _check_submitted(self, taken: int, tasks: Mapping[str, slurm.TaskState]) -> None:
        """Refuse to go on if tasks keep ending without taking a worker: the next ones would too."""
        if taken > self._taken:
            self._submitted, self._taken, self._unused = set(), taken, 0
        ended = sorted(self._submitted - set(tasks))
        if not ended:
            return
        self._submitted -= set(ended)
        self._unused += 1
        if self._unused > MAX_UNUSED:
            raise BadInput(
                f"A worker gets no task: {slurm.how_ended(ended[-1])} before it took the worker, "
                f"as did those before it. Read its log, task-*.log in {self.folder}; if there is "
                "none, the node does not see that folder. Correct the cause, such as "
                f"`executors.{self._executor}.setup`, then issue the same command again."
            )

    def _live_owners(
        self, owners: Mapping[str, str], tasks: Mapping[str, slurm.TaskState]
    ) -> list[str]:
        return [
            owner
            for seat, owner in owners.items()
            if seat in self._workers and not self._workers[seat].ended and holds_node(owner, tasks)
        ]

    # --- the thread ---

    def _watch(self) -> None:
        """Read the events of workers, check the queue now and then, and write heartbeats."""
        beats, beat_at, check_at = 0, 0.0, time.monotonic() + self._params.poll
        while not self._closed.wait(READ_SECONDS):
            try:
                if time.monotonic() >= beat_at:
                    beats, beat_at = beats + 1, time.monotonic() + BEAT_SECONDS
                    self.seats.beat(beats)
                self._read_all()
                if time.monotonic() >= check_at:
                    check_at = time.monotonic() + self._params.poll
                    self._check_queue()
            except (OSError, BadInput) as error:
                self._fail(str(error))
                return

    def _read_all(self) -> None:
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            self._read(worker)

    def _read(self, worker: SlurmWorker) -> None:
        for line in worker.reader.lines():
            event, how = read_line(line)
            if event is not None:
                worker.take(event)
            elif how is not None:
                self._handle_end(worker, how)
                return

    def _check_queue(self) -> None:
        """Compare the claimed seats with the queue."""
        try:
            owners = self.seats.owners(self.id)
            tasks = slurm.tasks_named(self._job)
        except slurm.SlurmUnavailable:
            return  # the controller is restarting; the next check decides
        with self._lock:
            for seat, owner in owners.items():
                worker = self._workers.get(seat)
                if worker is None or worker.ended:
                    continue
                worker.dead_checks = 0 if holds_node(owner, tasks) else worker.dead_checks + 1
                if worker.dead_checks >= DEAD_CHECKS:
                    self._read(worker)  # it may have written how it ended
                    if not worker.ended and self._workers.get(seat) is worker:
                        self._handle_end(worker, slurm.how_ended(owner.rpartition(".")[0]))
            self._submit_missing(tasks)

    def _handle_end(self, worker: SlurmWorker, how: str) -> None:
        """Give a worker without a step another task; report the end of one with a step."""
        with self._lock:
            del self._workers[worker.seat]
            if worker.job is not None or worker.stopped or worker.reseated >= RESEATINGS:
                worker.end(how)
                return
            worker.seat = f"{worker.request.name}-{next(self._numbers)}"
            worker.reseated, worker.dead_checks = worker.reseated + 1, 0
            worker.reader = LineReader(self.seats.outbox(self.id, worker.seat))
            self._workers[worker.seat] = worker
            append(self.seats.inbox(self.id, worker.seat), [worker.opening])
            self.seats.offer(self.id, seat_for(self._params, worker.request, worker.seat))

    def _fail(self, message: str) -> None:
        """Report to the host, for each worker, that the session cannot continue."""
        with self._lock:
            for worker in self._workers.values():
                worker.take(Failed(job=None, kind="BadInput", message=message))

    # --- the end ---

    def release(self, worker: SlurmWorker, *, now: bool) -> None:
        """Release a worker. The last one ends the session: its tasks end, and tasks that wait in
        the queue are cancelled.
        """
        with self._lock:
            was_stopped, worker.stopped = worker.stopped, True
            if self._workers.pop(worker.seat, None) is not None:
                self.seats.withdraw(self.id, worker.seat)
                worker.end("stopped")
                was_stopped = True
            if not was_stopped or self._workers:
                return
        self.close(now=now)

    def close(self, *, now: bool) -> None:
        """End the session. Further calls do nothing."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        _SESSIONS.pop(self.folder, None)
        self.seats.close_session()
        slurm.cancel(self._job, pending_only=not now)
        if not now:
            self._wait_for_tasks()

    def _wait_for_tasks(self) -> None:
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            try:
                if not slurm.tasks_named(self._job):
                    return
            except slurm.SlurmUnavailable:
                break
            time.sleep(READ_SECONDS)
        slurm.cancel(self._job)


_SESSIONS: dict[Path, SlurmSession] = {}


def start_all(params: Slurm, requests: Sequence[WorkerRequest]) -> Sequence[Worker]:
    """Offer workers to the run's tasks, and submit the missing tasks."""
    if params.sif is not None:
        locate(params.sif)
    folder = seats_folder(requests[0])
    session = _SESSIONS.get(folder)
    if session is None:
        session = _SESSIONS[folder] = SlurmSession(params, requests[0])
    try:
        return session.add(requests)
    except BaseException:
        session.close(now=True)
        raise


def start(params: Slurm, request: WorkerRequest) -> Worker:
    """Offer one worker."""
    return start_all(params, [request])[0]


def holds_node(owner: str, tasks: Mapping[str, slurm.TaskState]) -> bool:
    """Whether an owner, `JOB_TASK.RESTARTS`, still holds a node. A task that was requeued since
    then is a different owner.
    """
    name, _, restarts = owner.rpartition(".")
    task = tasks.get(name)
    return (
        task is not None and task.state in slurm.HOLDING_A_NODE and str(task.restarts) == restarts
    )
