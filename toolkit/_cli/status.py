"""`toolkit status`: how far runs are, whether they still live, and when they will be done."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import columns, duration, json_option, size, store_option

if TYPE_CHECKING:
    from toolkit.ledger import RunRow

HEADS = ("RUN", "STATE", "DONE", "%", "RATE", "ETA", "SIZE", "STARTED", "NOTE")


@dataclass(frozen=True)
class RunView:
    """One run as `status` and `runs` show it. `rate` is steps a minute in this session, reused ones
    left out.
    """

    run: str
    name: str
    state: str
    done: int
    total: int | None
    rate: float | None
    eta_s: float | None
    bytes: int
    started: str
    note: str
    phase: str = ""
    stages: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def percent(self) -> str:
        """Share of the steps that are done, or `-` while their number is unknown."""
        return f"{100 * self.done / self.total:.0f}" if self.total else "-"


@click.command("status")
@click.argument("run", required=False)
@click.option("--follow", is_flag=True, help="Show it again every second until no run is running.")
@json_option
@store_option
def command(run: str | None, follow: bool, as_json: bool, store: str | None) -> None:
    """Show how far all runs are, or one RUN (its id or the beginning of it) with its stages."""
    from toolkit._run.run_folder import find_run, store_folder

    folder = store_folder(store)
    wanted = find_run(folder, run) if run else None
    shown = ""
    while True:
        found = views(folder, wanted)
        text = _json(found, wanted, follow) if as_json else _text(found, wanted)
        if text != shown:
            if shown and not as_json and sys.stdout.isatty():
                click.echo("\x1b[2J\x1b[H", nl=False)
            click.echo(text)
        shown = text
        if not follow or not any(view.state == "running" for view in found):
            return
        time.sleep(1.0)


def views(folder: Path, run: str | None = None) -> list[RunView]:
    """What there is to say about each run of the store, oldest first; or about one."""
    from toolkit_store import open_store

    return [_view(folder, row) for row in open_store(folder, read_only=True).run_states(run)]


def alive(row: RunRow) -> bool:
    """Whether the process behind a run's last row may still be there. Of other hosts that is not
    known: then yes.
    """
    import psutil

    if row.host != socket.gethostname() or row.pid == os.getpid():
        return True
    try:
        process = psutil.Process(row.pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _view(folder: Path, row: RunRow) -> RunView:
    from datetime import UTC, datetime

    from toolkit._run.events import read_events
    from toolkit._run.run_folder import again, folder_bytes, run_folder, seconds_between, tally

    files = run_folder(folder, row.run)
    told = tally(read_events(files))
    dead = row.state == "running" and not alive(row)
    running = row.state == "running" and not dead
    done = max(row.done, told.done) if running or dead else row.done
    total = row.total or told.total or (sum(told.planned.values()) or None)
    spent = seconds_between(told.session, datetime.now(UTC).isoformat() if running else told.last)
    rate = 60 * told.done_in_session / spent if told.done_in_session and spent else None
    stages = {
        stage: {"planned": told.planned.get(stage, 0)}
        | {state: told.count(state, stage) for state in ("computed", "reused", "running", "failed")}
        for stage in dict.fromkeys([*told.planned, *(step.stage for step in told.steps.values())])
    }
    return RunView(
        run=row.run,
        name=row.name,
        state="dead" if dead else row.state,
        done=done,
        total=total,
        rate=rate,
        eta_s=60 * (total - done) / rate if running and total and rate else None,
        bytes=folder_bytes(files),
        started=told.started or row.at,
        note=f"continue with: {again(row.run, folder)}" if dead else row.note,
        phase=told.phase if running else "",
        stages=stages,
    )


def _json(found: list[RunView], wanted: str | None, lines: bool) -> str:
    data: Any = asdict(found[0]) if wanted and found else [asdict(view) for view in found]
    return json.dumps(data, indent=None if lines else 1)


def _text(found: list[RunView], wanted: str | None) -> str:
    if not found:
        return (
            f"Run {wanted} has not written its state yet."
            if wanted
            else "No runs yet. Start one: toolkit run SPEC"
        )
    text = columns(HEADS, [_cells(view) for view in found], right=("DONE", "%", "RATE", "SIZE"))
    return f"{text}\n\n{_detail(found[0])}" if wanted else text


def _cells(view: RunView) -> tuple[str, ...]:
    return (
        view.run,
        view.state,
        f"{view.done}/{view.total if view.total is not None else '?'}",
        view.percent,
        f"{view.rate:.1f}/min" if view.rate else "-",
        duration(view.eta_s),
        size(view.bytes),
        view.started[:16].replace("T", " "),
        view.note,
    )


def _detail(view: RunView) -> str:
    heads = ("STAGE", "STEPS", "COMPUTED", "REUSED", "RUNNING", "FAILED")
    rows = [
        (stage, *(str(count) for count in counts.values())) for stage, counts in view.stages.items()
    ]
    return (f"phase: {view.phase}\n" if view.phase else "") + columns(heads, rows, right=heads[1:])
