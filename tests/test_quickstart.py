"""The README's main job, whole: what the quickstart leaves is right, and the same command again
computes nothing.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit_store import open_store

pytestmark = pytest.mark.slow
CAUSES: dict[str, Callable[[float], bool]] = {
    "poor": lambda balance: balance <= 50,
    "rich": lambda balance: balance >= 150,
}


@pytest.fixture(scope="module")
def quickstart(root, tmp_path_factory):
    """The store of one run, the spec and a function that issues the command again."""
    store = tmp_path_factory.mktemp("quickstart") / "store"

    def command(*args: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOOLKIT_STORE": str(store)}
        return subprocess.run(
            [sys.executable, "-m", "toolkit", *args],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    done = command("run", str(root / "specs" / "quickstart.yaml"))
    assert done.returncode == 0, done.stderr
    return store, command, done


def rows(store: Path, table: str, stage: str) -> list[dict[str, Any]]:
    opened = open_store(store, read_only=True)
    return opened.read(table, [row.key for row in opened.steps(stage=stage)]).to_pylist()


def test_it_ends_with_a_report_of_every_section(quickstart):
    _, _, done = quickstart
    page = Path(done.stdout.splitlines()[-1]).read_text()
    for title in (
        "Examination of the SAEs",
        "Layers",
        "Effect and evidence",
        "Top features",
        "Patch effects against their controls",
        "Methods",
        "Forecast against actual",
        "Provenance",
    ):
        assert f">{title}</h2>" in page or f">{title}</h3>" in page
    assert "Done." in page
    assert "This section failed" not in page


def test_games_are_played_and_read(quickstart):
    store, _, _ = quickstart
    games = rows(store, "games", "play")
    assert len(games) == 384
    outcomes = {game["outcome"] for game in games}
    assert outcomes >= {"voluntary_stop", "bankruptcy"}
    rounds = rows(store, "rounds", "play")
    assert np.mean([row["parse"] == "ok" for row in rounds]) > 0.99


def test_every_sae_fits(quickstart):
    store, _, _ = quickstart
    lines = [
        row for row in rows(store, "saes", "examine") if row["verdict"] in ("fits", "does not fit")
    ]
    assert [row["verdict"] for row in lines] == ["fits"] * 4


def test_significant_features_include_readers_of_the_documented_causes(quickstart):
    """A reader tells decisions where the cause holds from the others, by its activation alone
    (AUROC above 0.9 or below 0.1).
    """
    store, _, _ = quickstart
    balance = {
        row["sample"]: row["number"]
        for row in rows(store, "sample_meta", "samples")
        if row["key"] == "balance"
    }
    names = sorted(balance)
    significant = {
        (row["space"], row["feature"])
        for row in rows(store, "features", "groups")
        if row["stat"] == "significant" and row["number"]
    }
    values = {key: np.zeros(len(names)) for key in significant}
    place = {name: index for index, name in enumerate(names)}
    for row in rows(store, "activations", "features"):
        for feature, value in zip(row["features"], row["values"], strict=True):
            if (row["space"], feature) in values:
                values[row["space"], feature][place[row["sample"]]] = value
    for cause, holds in CAUSES.items():
        present = np.array([holds(balance[name]) for name in names])
        assert max(abs(auroc(result, present) - 0.5) for result in values.values()) > 0.4, cause


def auroc(values: np.ndarray[Any, Any], positive: np.ndarray[Any, Any]) -> float:
    from scipy.stats import mannwhitneyu

    return float(
        mannwhitneyu(values[positive], values[~positive]).statistic
        / (positive.sum() * (~positive).sum())
    )


def test_every_screened_feature_has_a_verdict_with_its_reason(quickstart):
    store, _, _ = quickstart
    judged = rows(store, "verdicts", "verdicts")
    assert len(judged) == 16
    assert "causal" not in {row["verdict"] for row in judged}
    for row in judged:
        if row["verdict"] == "unspecific":
            assert "other features move it as much" in row["reason"]
            assert "over 16 features" in row["reason"]
    points = {row["sample"] for row in rows(store, "effects", "causes")} - {"*"}
    assert len(points) >= 200


def test_the_same_command_again_computes_nothing_and_says_so(quickstart, root):
    _, command, _ = quickstart
    again = command("run", str(root / "specs" / "quickstart.yaml"))
    assert again.returncode == 0
    lines = [line for line in again.stderr.splitlines() if line.startswith("stage ")]
    assert len(lines) == 10
    assert all(line.endswith(" 0 to compute") for line in lines)


def test_it_can_be_asked(quickstart):
    _, command, _ = quickstart
    result = json.loads(command("query", "features", "--significant", "--k", "3", "--json").stdout)
    assert len(result) == 3
    top = json.loads(command("query", "top", result[0]["address"], "--k", "2", "--json").stdout)
    assert len(top) == 2
    assert top[0]["value"] >= top[1]["value"]


def test_the_notebook_of_results_runs_on_it(quickstart, root, monkeypatch):
    """In the store of the run, so that it computes nothing."""
    store, _, _ = quickstart
    monkeypatch.chdir(root)
    monkeypatch.setenv("TOOLKIT_STORE", str(store))
    notebooks = root / "docs" / "notebooks"
    execute = runpy.run_path(str(notebooks / "execute.py"))["execute"]
    cells = execute(notebooks / "results.ipynb")["cells"]
    shown = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])
    assert "background:rgba" in shown
    assert "verdict" in shown


def test_every_chart_is_a_file_with_its_data(quickstart, tmp_path):
    _, command, done = quickstart
    run = Path(done.stdout.splitlines()[-1]).parent.name
    written = command("report", run, "--figures", str(tmp_path))
    assert written.returncode == 0, written.stderr
    charts = {path.stem for path in tmp_path.glob("*.svg")}
    assert len(charts) >= 4
    assert {stem for stem in charts if not (tmp_path / f"{stem}.csv").exists()} == set()
    assert not any("var(" in path.read_text() for path in tmp_path.glob("*.svg"))
