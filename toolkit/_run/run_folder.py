"""Where a store's runs lie on disk, and what the events of a run add up to.

Light on purpose (json and paths only): this much can be said of a run even when the store's tables
cannot be opened.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput

DEFAULT_STORE = "toolkit-runs"
REPORT = "report.html"


def store_folder(option: str | None) -> Path:
    """The store's folder: `--store`, else `TOOLKIT_STORE`, else `./toolkit-runs`. Of a URI it is
    the part that is kept here.
    """
    where = option or os.environ.get("TOOLKIT_STORE") or DEFAULT_STORE
    if "://" not in where:
        return Path(where)
    from toolkit_store import local_part

    return local_part(where)


def at_uri(store: Path) -> bool:
    """Whether a store's folder is the part kept here of one whose tables are at a URI."""
    from toolkit_store import uri_of

    return uri_of(store) is not None


def again(run: str, store: Path) -> str:
    """The command that runs a run again or goes on with it."""
    return shlex.join(["toolkit", "run", run, *_named(store)])


def _named(store: Path) -> list[str]:
    """The option that names a store, unless it is the default of this folder."""
    from toolkit_store import uri_of

    where = uri_of(store) or str(store.absolute())
    return [] if where == str(Path(DEFAULT_STORE).absolute()) else ["--store", where]


def run_folder(store: Path, run: str) -> Path:
    """The folder with the files of one run."""
    return store / "runs" / run


def run_ids(store: Path) -> list[str]:
    """Ids of all runs that have a manifest, oldest id first."""
    return sorted(path.parent.name for path in (store / "runs").glob("*/manifest.json"))


def find_run(store: Path, text: str) -> str:
    """The run id that `text` names: the id itself or the beginning of exactly one."""
    known = run_ids(store)
    if text in known:
        return text
    if not known:
        raise BadInput(
            f"There is no run '{text}': {store} holds no runs. Another store: --store PATH or "
            "TOOLKIT_STORE."
        )
    found = [run for run in known if text and run.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(
            f"'{text}' is the beginning of {len(found)} runs: {_some(found)}. Give more letters."
        )
    near = difflib.get_close_matches(text, known, n=5, cutoff=0.4) or known[-5:]
    listing = shlex.join(["toolkit", "runs", *_named(store)])
    raise BadInput(
        f"There is no run '{text}' in {store}. Nearest: {_some(near)}. All runs: {listing}. "
        "Another store: --store PATH or TOOLKIT_STORE."
    )


def _some(runs: Sequence[str], most: int = 8) -> str:
    more = f" and {len(runs) - most} more" if len(runs) > most else ""
    return ", ".join(runs[:most]) + more


def folder_bytes(folder: Path) -> int:
    """Size of all files under `folder`; files that vanish meanwhile count as nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def seconds_between(first: str, last: str) -> float:
    """Seconds from one ISO time to another; 0 if either cannot be read."""
    try:
        return max(
            0.0, (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
        )
    except (TypeError, ValueError):
        return 0.0


@dataclass
class StepTally:
    """What the events say about one step. `state`: reused, running, computed or failed; the last
    event counts.
    """

    key: str
    stage: str
    index: int
    state: str = "running"
    seconds: float = 0.0
    worker: str = ""
    reason: str = ""
    error: str = ""
    rows: dict[str, int] = field(default_factory=dict)


@dataclass
class Tally:
    """What the events of a run add up to, over all its sessions (a continued run has several).
    `planned`: steps per stage.

    A step is told by its stage and key: two stages of equal content share a key, and each has it.
    """

    state: str = "running"
    steps: dict[tuple[str, str], StepTally] = field(default_factory=dict)
    total: int | None = None
    planned: dict[str, int] = field(default_factory=dict)
    started: str = ""
    session: str = ""
    last: str = ""
    sessions: int = 0
    done_in_session: int = 0
    phase: str = ""
    troubles: list[dict[str, Any]] = field(default_factory=list)
    foretold: dict[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Steps whose rows exist: computed here or reused."""
        return sum(step.state in ("computed", "reused") for step in self.steps.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the steps whose rows exist."""
        return tuple(
            dict.fromkeys(
                step.key for step in self.steps.values() if step.state in ("computed", "reused")
            )
        )

    def count(self, state: str, stage: str | None = None) -> int:
        """How many steps are in `state`, in one stage or in all."""
        return sum(
            step.state == state and stage in (None, step.stage) for step in self.steps.values()
        )


_ENDS = {"run_done": "done", "run_failed": "failed", "run_interrupted": "interrupted"}
_STEP = {
    "step_reused": "reused",
    "step_found": "computed",
    "step_started": "running",
    "step_done": "computed",
    "step_failed": "failed",
}
_TROUBLE = (
    "step_failed",
    "stalled",
    "run_failed",
    "run_interrupted",
    "step_retried",
    "sae_does_not_fit",
    "warning",
)


def tally(events: Iterable[Mapping[str, Any]]) -> Tally:
    """Add up a run's events. Events of kinds unknown here are passed over."""
    out = Tally()
    for event in events:
        kind, at = str(event.get("event")), str(event.get("at", ""))
        out.last = at or out.last
        if isinstance(event.get("total"), int) and kind.startswith("run_"):
            out.total = event["total"]
        if kind == "stage_ready":
            out.planned[str(event.get("stage", ""))] = int(event.get("steps") or 0)
        if kind == "stage_foretold":
            out.foretold[str(event.get("stage"))] = (
                float(event.get("seconds") or 0.0),
                str(event.get("basis")),
            )
        if kind == "run_started":
            out.started, out.session = out.started or at, at
            out.state, out.sessions, out.done_in_session, out.phase = (
                "running",
                out.sessions + 1,
                0,
                "",
            )
        elif kind in _ENDS:
            out.state, out.phase = _ENDS[kind], ""
        elif kind in _STEP:
            _count_step(out, kind, event)
        if isinstance(event.get("phase"), str):
            out.phase = event["phase"]
        if kind in _TROUBLE:
            out.troubles.append(dict(event))
    return out


def _count_step(out: Tally, kind: str, event: Mapping[str, Any]) -> None:
    stage, key = str(event.get("stage", "")), str(event.get("key", ""))
    step = out.steps.setdefault((stage, key), StepTally(key, stage, int(event.get("index") or 0)))
    out.done_in_session += kind == "step_done"
    if kind == "step_reused" and step.state == "computed":
        return  # computed by an earlier session of this very run: still computed here
    step.state = _STEP[kind]
    step.worker = str(event.get("worker") or step.worker)
    step.reason = str(event.get("reason") or step.reason)
    if kind == "step_failed":
        step.error = str(event.get("error", ""))
    if kind == "step_done":
        step.seconds = float(event.get("seconds") or 0.0)
    if isinstance(event.get("rows"), Mapping):
        step.rows = {str(table): int(count) for table, count in event["rows"].items()}
