"""A run of games that is killed in the middle and continued leaves the very games of a run that was
not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit_store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SPEC = """\
version: 1
name: games
seed: 5
model: {uses: huggingface, with: {path: "package:toolkit_lab/files/model"}}
stages:
  - id: play
    uses: play.games
    with:
      game: {uses: slot_machine, with: {components: ["", G, P], max_rounds: 5}}
      reps: 6
      batch: 6
      temperature: 1.0
"""


def command(spec: Path, store: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    args = [sys.executable, "-m", "toolkit", "run", str(spec), "--store", str(store)]
    return subprocess.Popen(
        args, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )


def tables(store: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of both tables in the order of their keys."""
    opened = open_store(store, read_only=True)
    keys = [row.key for row in opened.steps(stage="play")]
    read = {name: opened.read(name, keys).to_pylist() for name in ("games", "rounds")}
    for rows in read.values():
        rows.sort(key=lambda row: json.dumps([row["game"], row.get("round"), row.get("attempt")]))
    return read


def committed(store: Path) -> int:
    """How many steps a killed run has left."""
    if not (store / "runs").exists():
        return 0
    logs = (store / "runs").glob("games-*/events.jsonl")
    return sum(path.read_text(encoding="utf-8").count('"step_done"') for path in logs)


def test_killed_and_continued_is_the_same(tmp_path: Path) -> None:
    spec = tmp_path / "games.yaml"
    spec.write_text(SPEC)
    assert command(spec, tmp_path / "whole").wait() == 0
    broken = tmp_path / "broken"
    running = command(spec, broken)
    until = time.monotonic() + 120
    while committed(broken) < 2 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = committed(broken)
    assert 2 <= before
    assert command(spec, broken).wait() == 0
    assert tables(broken) == tables(tmp_path / "whole")


def test_two_workers_leave_the_games_of_one(tmp_path: Path) -> None:
    """Other steps in other processes, and other games are under way at the same time."""
    spec, shared = tmp_path / "games.yaml", tmp_path / "shared.yaml"
    spec.write_text(SPEC)
    two = "executors: {local: {workers: 2, threads: 1}}\n"
    shared.write_text(SPEC.replace("batch: 6", "batch: 9") + two)
    assert command(spec, tmp_path / "one").wait() == 0
    assert command(shared, tmp_path / "two").wait() == 0
    logs = (tmp_path / "two" / "runs").glob("games-*/events.jsonl")
    events = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    assert len({event["worker"] for event in events if event.get("worker")}) == 2
    assert tables(tmp_path / "two") == tables(tmp_path / "one")
