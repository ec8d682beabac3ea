"""`toolkit run` as a function: open the store, take the run's lock, write the manifest, run the
plan, write the report.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toolkit._plan.versions import versions
from toolkit._run import devices as _devices
from toolkit._run.events import EventLog
from toolkit._run.interrupts import Interrupts
from toolkit._run.job_folder import write_text
from toolkit._run.manifest import make_manifest, write_manifest
from toolkit._run.preregister import register
from toolkit._run.progress import display
from toolkit._run.run_folder import REPORT, again, run_folder, store_folder
from toolkit._run.scheduler import Runner
from toolkit._run.workers import Pool
from toolkit._spec.spec import validate_params
from toolkit.errors import Interrupted, StoreError
from toolkit.parts import ExecutorPart

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan
    from toolkit._plugins.loading import Parts


class Wishes(Protocol):
    """How a run is to be carried out; none of it changes results."""

    @property
    def overlays(self) -> Sequence[Path]: ...
    @property
    def sets(self) -> Sequence[str]: ...
    @property
    def plugins(self) -> Sequence[Path]: ...
    @property
    def on(self) -> str: ...
    @property
    def gpu(self) -> str | None: ...
    @property
    def store(self) -> str | None: ...
    @property
    def as_json(self) -> bool: ...


def run_experiment(plan: Plan, parts: Parts, wishes: Wishes) -> Path:
    """Run the plan to its report, whose path is given."""
    executor, params = _executor(plan, parts, wishes)
    devices = _devices.pick(wishes.gpu, os.environ, executor.workers(params))
    show = display(wishes.as_json)
    try:
        return _in_store(plan, parts, wishes, (executor, params, devices), show)
    except OSError as error:
        raise StoreError(
            f"{store_folder(wishes.store)}: {error.strerror or error}. What was committed is safe; "
            "make room or repair the folder, then continue with the same command."
        ) from error
    finally:
        show.close()


def _executor(plan: Plan, parts: Parts, wishes: Wishes) -> tuple[ExecutorPart, Any]:
    part = parts.get("executor", wishes.on)
    assert isinstance(part, ExecutorPart)
    given = plan.loaded.spec.executors.get(wishes.on, {})
    return part, validate_params(
        plan.loaded, part.params, given, ("executors", wishes.on), f"executor '{part.name}'", parts
    )


def _in_store(
    plan: Plan, parts: Parts, wishes: Wishes, executor: tuple[ExecutorPart, Any, Any], show: Any
) -> Path:
    from toolkit_store import open_store

    store = open_store(store_folder(wishes.store), create=True)
    folder = run_folder(store.folder, plan.run)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        EventLog(folder, (show,)) as log,
        _alone(folder, plan.run, log.emit),
        Interrupts().listening() as interrupts,
    ):
        registered = register(plan, store)
        command = again(plan.run, store.folder)
        write_manifest(
            folder,
            make_manifest(plan, parts, executor[2], wishes.on, _asked(wishes), command, registered),
        )
        log.emit("run_started", run=plan.run, stages=len(plan.stages), log=str(folder / "log.txt"))
        result = Runner(plan, store, _pool_of(executor, wishes, parts), log, folder).go(interrupts)
        from toolkit._report.page import make_report

        if not result.computed and (folder / REPORT).exists():
            return (
                folder / REPORT
            )  # nothing new to tell; `toolkit report RUN` writes it again all the same
        return make_report(store, plan.run, parts)


def _asked(wishes: Wishes) -> dict[str, Any]:
    return {
        "overlays": [str(path.resolve()) for path in wishes.overlays],
        "sets": list(wishes.sets),
        "plugin_files": [str(path.resolve()) for path in wishes.plugins],
    }


def _pool_of(
    executor: tuple[ExecutorPart, Any, Any], wishes: Wishes, parts: Parts
) -> Callable[[Path, Callable[..., None]], Pool]:
    part, params, devices = executor
    return lambda folder, emit: Pool(
        part, params, devices, folder, wishes.plugins, versions(parts), emit
    )


@contextmanager
def _alone(folder: Path, run: str, emit: Callable[..., None]) -> Iterator[None]:
    """One process computes a run; another that is asked for the same run waits, and then finds
    everything done.

    The kernel gives the lock back when its holder dies, so a killed run never blocks the next.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor, folder, run, emit)
        write_text(
            folder / "holder.json", json.dumps({"pid": os.getpid(), "host": os.uname().nodename})
        )
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, run: str, emit: Callable[..., None]) -> None:
    told = False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                emit("run_waiting", run=run, **_holder(folder))
            told = True
            _sleep()


def _sleep() -> None:
    try:
        time.sleep(0.2)
    except KeyboardInterrupt:
        raise Interrupted("stopped waiting; the other process goes on.") from None


def _holder(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "holder.json").read_text())
    except (OSError, ValueError):
        return {"pid": "?", "host": "?"}
    return found
