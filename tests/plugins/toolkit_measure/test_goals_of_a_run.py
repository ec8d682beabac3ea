"""The goal metrics of a whole run: of a player that states goals where the prompt asks for one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit_store import open_store

RESOURCES = Path(__file__).parents[2] / "resources"
SPEC = """
version: 1
name: goals
seed: 3
model: {uses: goals}
stages:
  - id: play
    uses: play.games
    with:
      game: {uses: slot_machine, with: {design: corrected_64, components: ["", G], modes: [fixed]}}
      reps: 40
      max_new_tokens: 100
  - {id: behaviour, uses: measure.games, needs: [play]}
sinks:
  - {uses: measures, with: {path: out/}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("goals")
    (folder / "goals.yaml").write_text(SPEC, encoding="utf-8")
    args = ["run", str(folder / "goals.yaml"), "--plugin", str(RESOURCES / "goal_model.py")]
    subprocess.run(
        [sys.executable, "-m", "toolkit", *args, "--store", str(folder / "store")],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return folder


def means(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The means of indices, by subject and scope."""
    store = open_store(folder / "store", read_only=True)
    rows = store.read("measures", [step.key for step in store.steps(stage="behaviour")]).to_pylist()
    return {(row["subject"], row["condition"]): row for row in rows if row["measure"] == "mean"}


@pytest.mark.slow
def test_goal_metrics_are_those_of_the_games_that_stated_a_goal(folder: Path) -> None:
    rows = means(folder)
    store = open_store(folder / "store", read_only=True)
    steps = [step.key for step in store.steps(stage="play")]
    rounds = store.read("rounds", steps).to_pylist()
    reached = {
        row["game"]
        for row in rounds
        if "target amount is $200" in row["reply"] and "Stop" not in row["reply"]
    }
    assert 0 < len(reached) < 40
    beyond = rows["I_GV", "all"]
    assert 0 < beyond["value"] <= 1
    assert beyond["low"] <= beyond["value"] <= beyond["high"]
    assert 0 < beyond["n"] < 80
    assert 0 < rows["I_TI", "all"]["value"] < 1
    conditions = {condition for subject, condition in rows if subject == "I_TI"}
    assert any("-c01" in name for name in conditions) != any("-c00" in name for name in conditions)


def test_goal_metrics_are_in_the_export_and_in_the_report(folder: Path) -> None:
    with (folder / "out" / "measures.csv").open(newline="", encoding="utf-8") as file:
        exported = {row["subject"] for row in csv.DictReader(file)}
    assert {"I_GV", "I_TI"} <= exported
    (page,) = (folder / "store" / "runs").glob("goals-*/report.html")
    shown = page.read_text(encoding="utf-8")
    assert "went on beyond the goal" in shown
    assert "raised the goal" in shown
