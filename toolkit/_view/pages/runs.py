"""The runs of a store, and one run: its question, plan, progress and findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit._query import answers
from toolkit._view.grid import Grid
from toolkit._view.library import Library
from toolkit._view.page import Page
from toolkit._view.pages.links import run_href
from toolkit._view.pages.run_facts import comparisons_of, tables_of
from toolkit._view.request import Query

FINDINGS_ROWS = 1_000_000
"""The most rows, besides activations, of a run whose findings are computed for its page: its
sections read whole tables. The report of a larger run has them.
"""


def runs(library: Library, query: Query) -> Page:
    """All runs of the store."""
    frame = answers.runs_frame(library.states())
    grid = Grid("runs", "Runs, the newest first", frame, {"run": lambda row: run_href(row["run"])})
    names = frame["run"].to_list()
    return Page("runs.html", "Runs", {"store": library.uri, "names": names}, [grid])


def run(library: Library, query: Query, name: str) -> Page:
    """One run: its question, plan, progress and tables."""
    opened, progress = library.run(name), library.progress(name)
    library.prepare(opened)
    manifest = opened.manifest
    spec = manifest.get("spec") if isinstance(manifest.get("spec"), Mapping) else {}
    stages = [
        {
            "stage": stage.get("id"),
            "part": stage.get("part"),
            "needs": ", ".join(stage.get("needs") or ()),
            **{state: progress.count(state, str(stage.get("id"))) for state in STATES},
            "key": stage.get("key"),
        }
        for stage in manifest.get("stages") or ()
    ]
    grids = [
        Grid(
            "stages", "The plan", answers.frame(stages, ("stage", "part", "needs", *STATES, "key"))
        ),
        Grid("tables", "Rows by table", tables_of(opened)),
    ]
    facts = {
        "question": (spec or {}).get("question") or "",
        "description": (spec or {}).get("description") or "",
        "command": manifest.get("command") or f"toolkit run {name}",
        "spec": _yaml(spec or {}),
        "progress": progress_facts(library, name),
        "notes": opened.notes,
        "comparisons": comparisons_of(opened),
        "has": {table: bool(opened.stages(table)) for table in LISTED},
    }
    return Page("run.html", name, facts, grids, name)


STATES = ("computed", "reused", "failed")
LISTED = ("features", "samples", "games", "effects", "verdicts")


def progress_facts(library: Library, name: str) -> dict[str, Any]:
    """The progress of a run, for its page and for the script that updates the page."""
    from toolkit._query.run import state_of

    progress = library.progress(name)
    row = next((row for row in library.states() if row.run == name), None)
    state = state_of(row) if row else progress.state
    total = (row.total if row else None) or progress.planned
    done = max(progress.done, row.done if row else 0)
    percent = 100 if state == "done" else round(100 * progress.share)
    busy = [f"{entry.step.stage} [{entry.step.index}]" for entry in progress.busy.values()]
    return {
        "state": state,
        "running": state == "running",
        "percent": percent,
        "text": f"{done:,} of {total or '?'} steps",
        "busy": ", ".join(busy) if state == "running" else "",
    }


def findings(library: Library, query: Query, name: str) -> Page:
    """The findings of a run: a part of its page that is loaded later, since it takes longer."""
    with library.lock:
        opened = library.run(name)
    rows = sum(row["rows"] for row in tables_of(opened).to_dicts() if row["table"] != "activations")
    if rows > FINDINGS_ROWS:
        facts = {"findings": [], "rows": rows, "report": run_href(name, "report")}
        return Page("findings.html", name, facts, (), name)
    return Page("findings.html", name, {"findings": library.findings(opened), "rows": 0}, (), name)


def _yaml(spec: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True) if spec else ""
