"""A wall clock that jumps changes no result and ends no run."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.scripts import load_benchmark
from toolkit import _flow
from toolkit._run import events as ev
from toolkit._run.display import status_line
from toolkit._run.options import RunOptions
from toolkit._run.progress import progress_of
from toolkit_store import open_store

steps = load_benchmark("steps")
silent = steps.silent
spec_of = steps.spec_of

YEARS = 20 * 365


def run(folder: Path) -> tuple[str, dict[str, str], str]:
    """The state of a toy run, the hashes of its tables, and its report."""
    folder.mkdir()
    options = RunOptions(store=str(folder / "store"), gpu="none")
    outcome = _flow.run(_flow.plan(str(spec_of(folder, 4)), options), silent)
    store = open_store(folder / "store", read_only=True)
    (state,) = store.run_states()
    return state.state, store.fingerprint(state.steps), outcome.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_clock_that_jumps_by_years_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, hashes, _ = run(tmp_path / "steady")
    jumps = itertools.cycle((0, -YEARS, YEARS, -1, 3))

    def jumping() -> str:
        return (datetime.now(UTC) + timedelta(days=next(jumps))).isoformat()

    for name, module in list(sys.modules.items()):
        if name.startswith(("toolkit", "toolkit_store")) and vars(module).get("now") is ev.now:
            monkeypatch.setattr(module, "now", jumping)
    assert ev.now is jumping
    jumped, hashes_then, page = run(tmp_path / "jumping")
    assert (jumped, hashes_then) == (state, hashes)
    assert "</html>" in page


@pytest.mark.parametrize("days", [-YEARS, -1, YEARS])
def test_progress_of_a_clock_that_jumped_is_still_a_line(days: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    later = (start + timedelta(days=days)).isoformat()
    place = {"key": "a", "stage": "s", "index": 0, "worker": "w"}
    events: list[ev.RunEvent] = [
        ev.RunStarted(at=start.isoformat(), run="r", stages=1, log="log.txt"),
        ev.StageReady(at=start.isoformat(), stage="s", part="p", steps=9, reused=0, todo=9),
        ev.StepStarted(at=start.isoformat(), reason="new", **place),
        ev.StepDone(at=later, seconds=1.0, rows={}, **place),
        ev.StepStarted(at=start.isoformat(), reason="new", **{**place, "key": "b", "index": 1}),
    ]
    line = status_line(progress_of(events))
    assert line.startswith("1/9 steps")
    assert "-" not in line.replace(" · ", " ")
