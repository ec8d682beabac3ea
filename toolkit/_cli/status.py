"""`toolkit status`: the progress of runs, whether they are alive, and when they will be done."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import columns, duration, json_option, size, store_option
from toolkit._query.run import alive
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._run.progress import RunProgress, StageCounts
    from toolkit.ledger import RunRow

HEADS = ("RUN", "STATE", "DONE", "%", "RATE", "ETA", "SIZE", "STARTED", "NOTE")


@dataclass(frozen=True)
class RunSummary:
    """A run as `status` and `runs` show it."""

    run: str
    name: str
    state: str
    done: int
    total: int | None
    """The number of steps; None until every stage is expanded."""
    percent: int
    """The finished fraction of the run. Each stage has the same weight, so that it never falls."""
    rate: float | None
    """Steps computed per minute since the run was started or continued; None for a finished run in
    a list.
    """
    eta_s: float | None
    """Seconds until the steps that are known now are done."""
    bytes: int
    started: str
    note: str
    phase: str = ""
    stages: dict[str, dict[str, int]] = field(default_factory=dict)


@click.command("status")
@click.argument("run", required=False)
@click.option("--follow", is_flag=True, help="Refresh every second until no run is running.")
@json_option
@store_option
def command(run: str | None, follow: bool, as_json: bool, store: str | None) -> None:
    """Show the progress of all runs, or of one RUN (its id or the beginning of it) by stage."""
    from toolkit._run.run_folder import find_run, store_folder

    folder = store_folder(store)
    run_id = find_run(folder, run) if run else None
    shown = ""
    while True:
        runs = views(folder, run_id)
        text = _json(runs, run_id, follow) if as_json else _text(runs, run_id)
        if text != shown:
            if shown and not as_json and sys.stdout.isatty():
                click.clear()
            echo(text)
        shown = text
        if not follow or not any(view.state == "running" for view in runs):
            return
        time.sleep(1.0)


def views(folder: Path, run: str | None = None) -> list[RunSummary]:
    """A summary of each run of the store, oldest first, or of one run with its stages. In a list,
    the events of finished runs are not read.
    """
    from toolkit_store import open_store

    rows = open_store(folder, read_only=True).run_states(run)
    brief = run is None
    return [
        _finished(folder, row) if brief and row.state == "done" else _view(folder, row)
        for row in rows
    ]


def _finished(folder: Path, row: RunRow) -> RunSummary:
    """A finished run, from its last row and its first event."""
    from toolkit._run.event_log import first_event
    from toolkit._run.run_folder import folder_bytes, run_folder

    files = run_folder(folder, row.run)
    first = first_event(files)
    return RunSummary(
        run=row.run,
        name=row.name,
        state=row.state,
        done=row.done,
        total=row.total,
        percent=100,
        rate=None,
        eta_s=None,
        bytes=folder_bytes(files),
        started=first.at if first else row.at,
        note=row.note,
    )


def _view(folder: Path, row: RunRow) -> RunSummary:
    from toolkit._run.event_log import read_events
    from toolkit._run.events import now
    from toolkit._run.progress import progress_of, seconds_between
    from toolkit._run.run_folder import folder_bytes, resume_command, run_folder

    files = run_folder(folder, row.run)
    progress = progress_of(read_events(files))
    state, note = row.state, row.note
    if state == "running" and not alive(row):
        state = "interrupted" if progress.state == "interrupted" else "dead"
        note = f"continue with: {resume_command(row.run, folder)}"
    running = state == "running"
    unfinished = row.state == "running"
    spent = seconds_between(progress.session, now() if running else progress.last)
    computed = progress.done_in_session
    return RunSummary(
        run=row.run,
        name=row.name,
        state=state,
        done=max(row.done, progress.done) if unfinished else row.done,
        total=row.total or _total(progress),
        percent=100 if state == "done" else int(100 * progress.share),
        rate=60 * computed / spent if computed and spent else None,
        eta_s=progress.seconds_left(now()) if running else None,
        bytes=folder_bytes(files),
        started=progress.started or row.at,
        note=note,
        phase=progress.phase if running else "",
        stages={name: _counts(stage) for name, stage in progress.stages.items()},
    )


def _total(progress: RunProgress) -> int | None:
    """The number of steps, once every stage is expanded."""
    return None if progress.open_stages or not progress.planned else progress.planned


def _counts(stage: StageCounts) -> dict[str, int]:
    names = ("planned", "computed", "reused", "running", "failed")
    return {name: getattr(stage, name) for name in names}


def _json(runs: list[RunSummary], run: str | None, lines: bool) -> str:
    data: Any = asdict(runs[0]) if run and runs else [asdict(view) for view in runs]
    return json.dumps(data, indent=None if lines else 1)


def _text(runs: list[RunSummary], run: str | None) -> str:
    if not runs:
        return (
            f"Run {run} has not written its state yet."
            if run
            else "No runs yet. Start one: toolkit run SPEC"
        )
    text = columns(HEADS, [_cells(view) for view in runs], right=("DONE", "%", "RATE", "SIZE"))
    return f"{text}\n\n{_detail(runs[0])}" if run else text


def _cells(view: RunSummary) -> tuple[str, ...]:
    return (
        view.run,
        view.state,
        f"{view.done}/{'?' if view.total is None else view.total}",
        f"{view.percent}",
        f"{view.rate:.1f}/min" if view.rate else "-",
        duration(view.eta_s),
        size(view.bytes),
        view.started[:16].replace("T", " "),
        view.note,
    )


def _detail(view: RunSummary) -> str:
    heads = ("STAGE", "STEPS", "COMPUTED", "REUSED", "RUNNING", "FAILED")
    rows = [
        (stage, *(str(count) for count in counts.values())) for stage, counts in view.stages.items()
    ]
    return (f"phase: {view.phase}\n" if view.phase else "") + columns(heads, rows, right=heads[1:])
