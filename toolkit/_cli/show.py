"""`toolkit show`: one run in detail: stages, rows, files and sinks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import columns, json_option, size, store_option
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._run.progress import RunProgress
    from toolkit.ledger import StepRow

RECORDED = ("run", "name", "created_at", "toolkit", "spec_path", "seed", "host")
"""Fields of the manifest that are shown as they are."""
COUNTED = ("COMPUTED", "REUSED", "FAILED")
"""Headings of the numbers of a stage's steps."""


@click.command("show")
@click.argument("run")
@json_option
@store_option
def command(run: str, as_json: bool, store: str | None) -> None:
    """Show one RUN (its id or the beginning of it): stages, rows, files."""
    from toolkit._run.run_folder import find_run, store_folder

    folder = store_folder(store)
    facts = describe(folder, find_run(folder, run))
    echo(json.dumps(facts, indent=1) if as_json else _text(facts))


def describe(store: Path, run: str) -> dict[str, Any]:
    """The facts of a run, as `--json` prints them."""
    from toolkit._run.event_log import read_events
    from toolkit._run.manifest import read_manifest
    from toolkit._run.progress import progress_of
    from toolkit._run.run_folder import run_folder
    from toolkit_store import open_store

    folder = run_folder(store, run)
    manifest, progress = read_manifest(folder), progress_of(read_events(folder))
    opened = open_store(store, read_only=True)
    states = opened.run_states(run)
    steps = opened.steps(sorted({key for row in states for key in row.steps} | {*progress.keys}))
    return {
        **{key: manifest.get(key) for key in RECORDED},
        "executors": ", ".join(map(_executor, manifest.get("executors") or ())),
        "state": states[-1].state if states else progress.state,
        "model": (manifest.get("model") or {}).get("name"),
        "saes": (manifest.get("saes") or {}).get("name"),
        "stages": [_stage(stage, progress) for stage in manifest.get("stages") or ()],
        "rows": _row_counts(steps),
        "files": {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        "sinks": [
            {"sink": event.sink, "folder": event.folder, "hashes": dict(event.hashes)}
            for event in progress.sinks
        ],
        "folder": str(folder),
        "command": manifest.get("command") or f"toolkit run {run}",
    }


def _executor(pool: Mapping[str, Any]) -> str:
    """The name of an executor in the spec, with its part if that has a different name."""
    part = str(pool.get("executor"))
    name = str(pool.get("name") or part)
    return name if name == part else f"{name} ({part})"


def _stage(recorded: Mapping[str, Any], progress: RunProgress) -> dict[str, Any]:
    facts = {key: recorded.get(key) for key in ("id", "part", "version", "on", "needs", "key")}
    states = ("computed", "reused", "failed")
    return facts | {state: progress.count(state, str(recorded.get("id"))) for state in states}


def _row_counts(steps: Iterable[StepRow]) -> dict[str, int]:
    """The rows that these steps wrote to each table."""
    rows: Counter[str] = Counter()
    for step in steps:
        rows.update(step.tables)
    return dict(sorted(rows.items()))


def _text(facts: dict[str, Any]) -> str:
    lists = ("stages", "rows", "files", "sinks")
    plain = [
        (key.replace("_", " "), str(value))
        for key, value in facts.items()
        if key not in lists and value is not None
    ]
    wide = max(len(key) for key, _ in plain)
    several = len({stage["on"] for stage in facts["stages"]}) > 1
    stage_rows = [
        (
            str(stage["id"]),
            str(stage["part"]),
            *((str(stage["on"]),) if several else ()),
            *(str(stage[state]) for state in ("computed", "reused", "failed")),
        )
        for stage in facts["stages"]
    ]
    heads = ("STAGE", "PART", *(("ON",) if several else ()), *COUNTED)
    blocks = [
        "\n".join(f"{key.ljust(wide)}  {value}" for key, value in plain),
        columns(heads, stage_rows, right=COUNTED),
        columns(
            ("TABLE", "ROWS"),
            [(name, f"{count:,}") for name, count in facts["rows"].items()],
            right=("ROWS",),
        ),
        columns(
            ("FILE", "SIZE"),
            [(name, size(count)) for name, count in facts["files"].items()],
            right=("SIZE",),
        ),
    ]
    if facts["sinks"]:
        sinks = [
            (str(sink["sink"]), str(len(sink["hashes"] or ())), str(sink["folder"]))
            for sink in facts["sinks"]
        ]
        blocks.append(columns(("SINK", "FILES", "FOLDER"), sinks, right=("FILES",)))
    return "\n\n".join(blocks)
