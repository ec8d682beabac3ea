"""Running a plan in a store: lock the run, write its manifest, compute its steps, build the index,
write the sinks, record the end.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._run import events as ev
from toolkit._run.downloads import check_downloads
from toolkit._run.event_log import LOG, EventLog
from toolkit._run.forecast import stage_costs
from toolkit._run.inputs import StoreInputs
from toolkit._run.manifest import make_manifest, read_manifest, write_manifest
from toolkit._run.pools import make_pools
from toolkit._run.preregister import register
from toolkit._run.run_folder import REPORT, resume_command, run_folder, store_folder
from toolkit._run.run_lock import run_lock
from toolkit._run.scheduler import Scheduler
from toolkit._run.sinks import ContentsFor, check_sinks, write_sinks
from toolkit.errors import Interrupted, StoreError, ToolkitError
from toolkit.ledger import StepRow
from toolkit.work import ReportContents, RunInputs

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan
    from toolkit._plugins.registry import Parts
    from toolkit._run.interrupts import Interrupts
    from toolkit._run.options import RunOptions
    from toolkit_store import Store


@dataclass(frozen=True)
class RunResult:
    """A run whose steps are all committed."""

    run: str
    store: Store
    folder: Path
    """The run's folder."""
    computed: int
    """How many of its steps were computed now."""
    rows: Sequence[StepRow]
    """The ledger rows of its steps."""

    def inputs(self) -> StoreInputs:
        """The tables of the run."""
        return StoreInputs(self.store, {"": self.rows})


def run_plan(
    plan: Plan,
    parts: Parts,
    options: RunOptions,
    show: ev.Listener,
    interrupts: Interrupts,
    contents_of: Callable[[RunInputs, Parts], ReportContents],
) -> RunResult:
    """Run a plan, or continue it. Raises the error that stopped it; committed steps stay.
    `contents_of` makes the parts of the report that sinks may export.
    """

    def contents_for(inputs: RunInputs) -> ReportContents:
        return contents_of(inputs, parts)

    check_sinks(plan)
    store = store_folder(options.store)
    try:
        with plan.secrets.kept_out_of_errors():
            return _run_in(plan, parts, options, show, interrupts, store, contents_for)
    except OSError as error:
        where = error.filename or store
        raise StoreError(
            f"{where}: {error.strerror or error}. What was committed is safe; make room or repair "
            "the folder, then continue with the same command."
        ) from error


def _run_in(
    plan: Plan,
    parts: Parts,
    options: RunOptions,
    show: ev.Listener,
    interrupts: Interrupts,
    store_path: Path,
    contents_for: ContentsFor,
) -> RunResult:
    from toolkit_store import open_store

    pools = make_pools(plan, parts, options)
    store = open_store(store_path, create=True)
    check_downloads(plan, store)
    folder = run_folder(store.folder, plan.run)
    folder.mkdir(parents=True, exist_ok=True)
    with EventLog(folder, (show,), plan.secrets) as log:

        def on_wait(pid: int | None, host: str | None) -> None:
            log.emit(ev.RunWaiting(run=plan.run, pid=pid, host=host))

        with run_lock(folder, interrupts, on_wait):
            registered = register(plan, store)
            plugins = [path.resolve() for path in options.plugins]
            command = resume_command(plan.run, store.folder, plugins)
            manifest = make_manifest(plan, parts, options, pools.record(), command, registered)
            write_manifest(folder, manifest)
            started = ev.RunStarted(run=plan.run, stages=len(plan.stages), log=str(folder / LOG))
            log.emit(started)
            for cost in stage_costs(plan, store_path):
                log.emit(cost)
            inbox, workers = pools.build(folder, log.emit)
            scheduler = Scheduler(plan, store, folder, workers, inbox, interrupts, log.emit)
            return _carry_out(scheduler, contents_for)


def _carry_out(scheduler: Scheduler, contents_for: ContentsFor) -> RunResult:
    """Compute the run and record its states, from the first to the last."""
    plan, store = scheduler.plan, scheduler.store
    committer, steps = scheduler.committer, scheduler.queue
    began = time.monotonic()
    states = store.run_states(plan.run)
    was_done = bool(states) and states[-1].state == "done"
    try:
        committer.record_state("running", "", steps)
        scheduler.run()
        _finish(scheduler, contents_for)
        scheduler.emit(
            ev.RunDone(
                computed=scheduler.results.computed,
                reused=scheduler.results.reused,
                seconds=time.monotonic() - began,
            )
        )
        committer.record_state("done", "", steps)
    except Interrupted:
        stopped = scheduler.interruption()
        if not scheduler.interrupts.abandoned:
            committer.record_state("interrupted", str(stopped), steps, wait=False)
        raise stopped from None
    except (ToolkitError, OSError) as error:
        _record_failure(scheduler, error)
        raise
    if scheduler.results.computed or not was_done:
        # A report made while the run was under way must not pass for that of a finished one.
        (scheduler.folder / REPORT).unlink(missing_ok=True)
    rows = [row for stage in steps.rows.values() for row in stage]
    return RunResult(plan.run, store, scheduler.folder, scheduler.results.computed, rows)


def _finish(scheduler: Scheduler, contents_for: ContentsFor) -> None:
    """Build the index and write the sinks; Ctrl-C stops this."""
    plan, store, folder = scheduler.plan, scheduler.store, scheduler.folder
    keys = scheduler.queue.keys()

    def write() -> None:
        store.index(keys, run=plan.run)
        inputs = StoreInputs(store, scheduler.queue.rows, folder / "inputs")
        record = read_manifest(folder)
        for written in write_sinks(plan, inputs, record, contents_for):
            scheduler.emit(written)

    scheduler.interrupts.obey(write)
    for leftover in ("jobs", "inputs"):
        shutil.rmtree(folder / leftover, ignore_errors=True)


def _record_failure(scheduler: Scheduler, error: Exception) -> None:
    """Record a failure. If even that fails (a full disk), the error itself still reaches
    the user.
    """
    try:
        text = scheduler.plan.secrets.hide(str(error))
        scheduler.emit(ev.RunFailed(error=text))
        note = (text.splitlines() or [type(error).__name__])[0][:500]
        scheduler.committer.record_state("failed", note, scheduler.queue, wait=False)
    except (ToolkitError, OSError):
        return
