"""The workers of a run: start them, check their versions and GPUs, give them jobs, replace dead
ones.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolkit._run.events import RunEvent, WorkerReady
from toolkit.errors import BadInput, PluginError, VersionMismatch, WorkerDied
from toolkit.executors.gpus import Gpu
from toolkit.executors.interface import Worker, WorkerEnd, WorkerRequest
from toolkit.executors.protocol import Failed, Hello, WorkerEvent, WorkerSystem, fields_of

if TYPE_CHECKING:
    from toolkit._plan.plan import Executor

Inbox = queue.Queue[tuple["WorkerSlot", WorkerEvent | None]]
"""Events of all workers; None when a worker has ended."""


@dataclass(eq=False)
class WorkerSlot:
    """One worker and what it is doing."""

    worker: Worker
    request: WorkerRequest
    pool: WorkerPool
    hello: Hello | None = None
    """Its hello; None while it starts."""
    ended: bool = False
    job: str | None = None
    """The step that it is computing."""
    loaded_key: str | None = None
    """The model and SAEs that it holds."""
    phase: str = "start"
    phase_since: float = field(default_factory=time.monotonic)
    last_event: float = field(default_factory=time.monotonic)
    """When it last sent an event other than a sign of life."""
    listener: threading.Thread | None = None

    @property
    def awaiting_reply(self) -> bool:
        """Whether it should send an event: it is starting, or has a job."""
        return not self.ended and (self.job is not None or self.hello is None)


class WorkerPool:
    """The workers of one executor. They start with the first job: a run that reuses all its steps
    starts none.
    """

    def __init__(
        self,
        executor: Executor,
        requests: Sequence[WorkerRequest],
        versions: Mapping[str, str],
        inbox: Inbox,
        emit: Callable[[RunEvent], None],
    ) -> None:
        self._name, self._executor, self._params = executor.name, executor.part, executor.params
        self._requests = list(requests)
        self._versions, self._inbox, self._emit = versions, inbox, emit
        self.slots: list[WorkerSlot] = []

    def start(self, jobs: int) -> None:
        """Start as many workers as there are jobs, at most one for each request."""
        requests = self._requests[len(self.slots) : jobs]
        if requests and self._executor.start_all is not None:
            workers = self._executor.start_all(self._params, requests)
            for request, worker in zip(requests, workers, strict=True):
                self.slots.append(self._open(request, worker))
            return
        for request in requests:
            self.slots.append(self._start(request))

    def _start(self, request: WorkerRequest) -> WorkerSlot:
        return self._open(request, self._executor.start(self._params, request))

    def _open(self, request: WorkerRequest, worker: Worker) -> WorkerSlot:
        slot = WorkerSlot(worker, request, self)
        plugins = [str(path) for path in request.plugins]
        worker.send({"type": "open", "plugins": plugins, "secrets": dict(request.secrets)})
        slot.listener = threading.Thread(target=self._listen, args=(slot,), daemon=True)
        slot.listener.start()
        return slot

    def _listen(self, slot: WorkerSlot) -> None:
        try:
            for event in slot.worker.events():
                self._inbox.put((slot, event))
        finally:
            self._inbox.put((slot, None))

    def welcome(self, slot: WorkerSlot, hello: Hello) -> None:
        """Accept a worker's hello, if it has the host's versions and the requested GPUs."""
        name = slot.worker.name
        _check_versions(name, self._versions, hello.versions)
        if slot.request.gpus is not None:
            _check_gpus(name, slot.request.gpus, hello.gpus)
        slot.hello, slot.last_event = hello, time.monotonic()
        self._emit(
            WorkerReady(
                worker=name,
                executor=self._name,
                **fields_of(WorkerSystem, hello),
            )
        )

    def idle(self, loaded_key: str) -> WorkerSlot | None:
        """A free worker, preferring one that holds the right model and SAEs, then an empty one."""
        free = [slot for slot in self.slots if slot.hello and slot.job is None and not slot.ended]

        def fit(slot: WorkerSlot) -> tuple[bool, bool]:
            return (slot.loaded_key != loaded_key, slot.loaded_key is not None)

        return min(free, key=fit, default=None)

    def give(self, slot: WorkerSlot, job: Mapping[str, Any], loaded_key: str) -> None:
        """Hand a job to a worker."""
        slot.job, slot.loaded_key = job["job"], loaded_key
        slot.phase, slot.phase_since, slot.last_event = "start", time.monotonic(), time.monotonic()
        slot.worker.send({"type": "job", **job})

    def replace(self, slot: WorkerSlot) -> WorkerEnd:
        """Start a new worker in place of a dead one, and return how that one ended. A worker that
        never said hello is not restarted.
        """
        end = slot.worker.stop(now=True)
        if slot.hello is None:
            raise WorkerDied(
                f"{slot.worker.name} ended before its hello ({end.text}). Its log: "
                f"{slot.request.folder}/{slot.worker.name}.log"
            )
        self.slots[self.slots.index(slot)] = self._start(slot.request)
        return end

    def free_memory(self, slot: WorkerSlot, *, on_cpu: bool) -> tuple[str, int]:
        """The kind of device that a worker computes on, and the bytes that were free when it
        started: on its fullest GPU, else its share of the machine's memory, at most its limit.
        """
        assert slot.hello is not None
        gpus = slot.hello.gpus
        if gpus and not on_cpu:
            return "cuda", min(gpu.free_bytes for gpu in gpus)
        share = slot.hello.free_bytes // max(1, len(self._requests))
        limit = slot.request.limits.memory_bytes
        return "cpu", share if limit is None else min(share, limit)

    def stop(self, *, now: bool) -> None:
        """End all workers."""
        for slot in self.slots:
            slot.worker.stop(now=now)
        for slot in self.slots:
            if slot.listener is not None:
                slot.listener.join(timeout=5)


def worker_requests(
    template: WorkerRequest, gpus: Sequence[Gpu] | None, workers: int
) -> list[WorkerRequest]:
    """One request per GPU; without GPUs, one per worker."""
    groups: list[tuple[Gpu, ...] | None]
    groups = [(gpu,) for gpu in gpus] if gpus else [None if gpus is None else ()] * workers
    return [
        replace(template, name=f"{template.name}-{number}", gpus=group)
        for number, group in enumerate(groups)
    ]


def start_error(slot: WorkerSlot, event: Failed) -> PluginError:
    """The error of a worker that could not load its plugins."""
    return PluginError(f"{slot.worker.name}: {event.message}")


def _check_versions(name: str, host_versions: Mapping[str, str], there: Mapping[str, str]) -> None:
    for package in sorted(
        {*host_versions, *there}, key=lambda package: (package != "toolkit", package)
    ):
        ours, theirs = (
            host_versions.get(package, "not installed"),
            there.get(package, "not installed"),
        )
        if ours != theirs:
            raise VersionMismatch(
                f"{name} has another version: {package} is {theirs} there and {ours} here. "
                "Install the same version on both sides (for a container: `toolkit images "
                "build`), then issue the same command again."
            )


def _check_gpus(name: str, requested: Sequence[Gpu], seen: Sequence[Gpu]) -> None:
    if set(map(_identity, requested)) == set(map(_identity, seen)):
        return
    expected, actual = (
        ", ".join(f"{gpu.describe()} at PCI {gpu.pci}" for gpu in gpus) or "no GPU"
        for gpus in (requested, seen)
    )
    raise BadInput(
        f"{name} should have {expected}, but sees {actual}. Nothing was run there. Check the "
        "driver and what the executor passes on (nvidia-smi -L on both sides)."
    )


def _identity(gpu: Gpu) -> tuple[str, str, str]:
    """What host and worker must agree on; the index may differ, since a container numbers its GPUs
    from 0.
    """
    return gpu.uuid, gpu.pci, gpu.name
