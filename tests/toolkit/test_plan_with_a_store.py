"""What `toolkit plan` and a run count as left to do when a store has some of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit._plan import costs as _costs
from toolkit._run import disk as _disk
from toolkit._run import expansion as _expansion
from toolkit._run.history import rows_per_unit
from toolkit.costs import Cost
from toolkit_store import open_store


def priced(stage: Any, load: Any) -> Cost | None:
    return Cost(disk=load.samples) if load and stage.id == "features" else None


@pytest.mark.slow
def test_what_is_there_needs_no_room_in_the_store(
    toolkit: Any, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert toolkit.run("run", toy(n=12)).returncode == 0
    monkeypatch.setattr(_disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    for module in (_costs, _expansion):
        monkeypatch.setattr(module, "cost_of", priced)
    results = toolkit.run("plan", toy(n=12), "--json")
    rows = {row["stage"]: row for row in json.loads(results.stdout)["stages"]}
    assert (results.returncode, rows["features"]["cost"], rows["features"]["whole"]["disk"]) == (
        0,
        None,
        12,
    )
    assert toolkit.run("run", toy(n=12)).returncode == 0
    refused = toolkit.run("run", toy(n=15))
    assert refused.returncode == 4
    assert "the store would take about 2.79e-09 GiB" in refused.stderr  # the three that are new


@pytest.mark.slow
def test_a_store_at_a_uri_is_seen_from_any_folder(
    toolkit: Any, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, uri = toy(n=6), (tmp_path / "bucket").as_uri()
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    new = json.loads(toolkit.run("plan", spec, "--store", uri, "--json").stdout)["stages"]
    assert {row["why"] for row in new} == {"new: there is no store yet"}
    assert toolkit.run("run", spec, "--store", uri).returncode == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    rows = json.loads(toolkit.run("plan", spec, "--store", uri, "--json").stdout)["stages"]
    assert [row["there"] for row in rows] == [1, 1, 1]


@pytest.mark.slow
def test_imported_steps_are_reused_and_named_so(toolkit: Any, toy: Any, tmp_path: Path) -> None:
    spec = toy(n=6)
    assert toolkit.run("run", spec).returncode == 0
    assert "(imported)" not in toolkit.run("plan", spec).stdout
    run = json.loads(toolkit.run("plan", spec, "--json").stdout)["run"]
    assert toolkit.run("store", "export", "parquet", tmp_path / "out", "--run", run).returncode == 0
    other = tmp_path / "other"
    result = toolkit.run("store", "import", "parquet", tmp_path / "out", "--store", other)
    assert result.returncode == 0, result.stderr
    planned = toolkit.run("plan", spec, "--store", other)
    assert planned.returncode == 0, planned.stderr
    assert "1 (imported)" in planned.stdout
    assert "Imported steps are reused as they came" in planned.stdout
    rows = json.loads(toolkit.run("plan", spec, "--store", other, "--json").stdout)["stages"]
    assert [(row["there"], row["imported"]) for row in rows] == [(1, 1), (1, 1), (1, 1)]


@pytest.mark.slow
def test_a_plan_of_another_seed_forecasts_the_recorded_durations(
    toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    """A stage whose steps are as many as those of the run takes as long as these took."""
    spec = toy(n=6)
    assert toolkit.run("run", spec).returncode == 0
    store = open_store(toolkit.store, read_only=True)
    recorded = {
        stage: sum(row.seconds for row in store.steps(stage=stage))
        for stage in ("samples", "features")
    }
    again = toolkit.run("plan", spec, "--set", "seed=99", "--json")
    rows = {row["stage"]: row for row in json.loads(again.stdout)["stages"]}
    assert rows["samples"]["why"].startswith("changed: seed")
    assert rows["samples"]["seconds"] == pytest.approx(recorded["samples"])
    assert recorded["samples"] > 0


def test_rows_are_expected_as_earlier_steps_on_the_same_model_wrote_them() -> None:
    def step(model: str, params: int, units: int, rounds: int) -> SimpleNamespace:
        material = json.dumps({"model": model, "saes": None, "params": params})
        tables = {"games": units, "rounds": rounds}
        return SimpleNamespace(
            part="play", material=material, tables=tables, first=4, last=4 + units
        )

    def rates(params: int) -> dict[str, float]:
        material = {"model": "m", "saes": None, "params": params}
        stage: Any = SimpleNamespace(part=SimpleNamespace(name="play"), material=lambda: material)
        return rows_per_unit(stage, earlier)

    earlier: Any = [step("m", 1, 10, 30), step("m", 1, 10, 50), step("m", 2, 5, 45)]
    earlier += [step("other", 1, 10, 1000)]
    assert rates(1) == {"games": 1.0, "rounds": 4.0}
    assert rates(3) == {"games": 1.0, "rounds": 5.0}
    earlier.clear()
    assert rates(1) == {}
