"""The store: a finished run, one that goes on, one that only compares toys, and one without
rows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.toolkit.query.asked import (
    EFFECTS,
    FEATURES,
    FIRED,
    OTHER,
    SAMPLES,
    SPACES,
    STAGES,
    TOY,
    VERDICTS,
    begin,
    commit,
)
from toolkit_store import open_store


def step_done(at: str, key: str, stage: str) -> dict[str, object]:
    """An event of a journal: a step was committed."""
    done = {"event": "step_done", "index": 0, "worker": "w", "seconds": 1.0, "rows": {}}
    return {"at": at, "key": key, "stage": stage, **done}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by all tests, written by none."""
    store = open_store(tmp_path_factory.mktemp("query") / "store", create=True)
    with store.writer():
        commit(store, "k1", "prompts", "full-1", {"samples": SAMPLES})
        commit(store, "k2", "extract", "full-1", {"activations": FIRED[:3], "spaces": SPACES})
        commit(store, "k3", "extract", "full-1", {"activations": FIRED[2:], "spaces": SPACES})
        commit(store, "k4", "groups", "full-1", {"features": [*FEATURES, *OTHER]})
        commit(store, "k5", "cause", "full-1", {"features": VERDICTS, "effects": EFFECTS})
        commit(store, "k6", "means", "toy-1", {"features": TOY, "spaces": SPACES[:1]})
        commit(store, "k7", "groups", "none-1", {})
        begin(store, "none-1", "2026-01-01", "done", ["k7"], [STAGES[2], STAGES[3]])
        begin(
            store,
            "toy-1",
            "2026-01-02",
            "done",
            ["k6"],
            [{"id": "means", "part": "compare.means", "writes": ["features"]}],
        )
        begin(store, "part-1", "2026-01-03", "interrupted", ["k1", "k2", "never"], STAGES)
        begin(store, "full-1", "2026-01-04", "done", ["k1", "k2", "k3", "k4", "k5"], STAGES)
    events = [step_done("2026-01-03", "k1", "prompts")]
    (store.folder / "runs" / "part-1" / "events.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in events)
    )
    return store.folder


@pytest.fixture
def begun(folder: Path, tmp_path: Path) -> Path:
    """The store with a run that uses steps of others, has entered one state or none, and is known
    by its journal alone.
    """
    shutil.copytree(folder, tmp_path / "store")
    for run in ("begun-1", "begun-2"):
        at = tmp_path / "store" / "runs" / run
        at.mkdir()
        (at / "manifest.json").write_text(json.dumps({"run": run, "stages": STAGES}))
        events = [step_done("2026-01-05", key, "extract") for key in ("k1", "k2")]
        (at / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    open_store(tmp_path / "store").record_run(
        run="begun-2", name="begun", state="running", at="2026-01-05"
    )
    return tmp_path / "store"


@pytest.fixture(scope="module")
def indexed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store with the index of a finished run."""
    copy = tmp_path_factory.mktemp("indexed") / "store"
    shutil.copytree(folder, copy)
    assert open_store(copy).index(["k1", "k2", "k3"], run="full-1") > 0
    return copy
