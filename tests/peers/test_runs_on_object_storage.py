"""A whole run into a store in object storage that fails on purpose."""

from __future__ import annotations

import importlib.util
import sys
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from toolkit._cli import main
from toolkit._run import pending
from toolkit_store import open_store

HERE = Path(__file__).parent
SPEC = {
    "version": 1,
    "name": "toy",
    "seed": 7,
    "model": {"uses": "toy", "with": {"salt": 1}},
    "saes": {"uses": "toy", "with": {"salt": 2}},
    "samples": {"uses": "count", "with": {"n": 8}},
    "stages": [
        {
            "id": "features",
            "uses": "extract.hash",
            "with": {"width": 32, "active": 3, "batch": 2, "seconds": 0.1},
        },
        {"id": "groups", "uses": "compare.means", "needs": ["features"]},
    ],
}
SHARE = 0.08
"""Of the requests that fail."""
ISSUES = 20
"""How often the command is issued at most; a fault that outlasts every retry stops a run."""


def module_here(name: str):
    """A module in this folder."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


storage_faults = module_here("test_object_storage_faults")
bucket, proxy = storage_faults.bucket, storage_faults.proxy
pytestmark = [pytest.mark.peer, pytest.mark.timeout(1800)]


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each commit began."""
    begun: list[float] = []
    writing = pending.PendingCommits.writing

    def recorded(self: pending.PendingCommits):
        begun.append(time.monotonic())
        return writing(self)

    monkeypatch.setattr(pending.PendingCommits, "writing", recorded)
    return begun


def run(spec: Path, store: str) -> int:
    """The command's exit status."""
    try:
        main(["run", str(spec), "--store", store])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_run_through_faults_leaves_the_tables_of_a_local_run(
    bucket: str, proxy, commits: list[float], tmp_path: Path
) -> None:
    spec = tmp_path / "toy.yaml"
    spec.write_text(yaml.safe_dump(SPEC))
    assert run(spec, str(tmp_path / "local")) == 0
    local = open_store(tmp_path / "local")
    keys = local.run_states()[0].steps
    proxy.share = SHARE
    statuses = []
    while len(statuses) < ISSUES and 0 not in statuses:
        commits.clear()
        statuses.append(run(spec, bucket))
        gaps = [later - start for start, later in pairwise(commits)]
        assert all(gap >= pending.URI_SECONDS for gap in gaps), gaps
    proxy.share = 0.0
    assert statuses[-1] == 0, statuses
    assert len(proxy.injected) >= 4, proxy.injected
    store = open_store(bucket)
    assert sorted(row.key for row in store.steps()) == sorted(keys)
    assert store.fingerprint(keys) == local.fingerprint(keys)
    assert store.check().problems == []
    assert (tmp_path / f"toolkit-runs@{quote(bucket, safe='')}").is_dir()
