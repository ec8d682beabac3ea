"""`preregister: true`: frozen before data are read, kept, checked, shown; another family is another
run that names the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit._plan.make_plan import make_plan
from toolkit._plan.plan import Plan
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._run.preregister import _digest, describe, register
from toolkit._spec.load import load_spec
from toolkit.errors import Refused
from toolkit_store import open_store


@pytest.fixture
def frozen(toy: Callable[..., Path]) -> Callable[..., Path]:
    """The toy spec, preregistered."""

    def write(**changes: Any) -> Path:
        spec = toy(n=12, **changes)
        spec.write_text(spec.read_text() + "preregister: true\n")
        return spec

    return write


def ran(toolkit: Any, spec: Path, *args: str) -> Path:
    """The folder of a run that has to succeed."""
    done = toolkit.run("run", spec, *args)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]).parent


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "preregistration.json").read_text())


@pytest.mark.slow
def test_family_and_split_are_written_first_and_another_family_is_another_run(
    toolkit, frozen
) -> None:
    folder = ran(toolkit, frozen())
    result = record(folder)
    assert result["steps_before"] == 0
    assert result["earlier"] == []
    assert list(result["frozen"]["tests"]) == ["groups"]
    assert result["frozen"]["tests"]["groups"]["part"] == "compare.means"
    assert set(result["frozen"]["data"]) == {"samples", "features"}
    assert result["frozen"]["split"] == {
        "seed": 7,
        "rule": "toolkit.statistics.halves.in_half(seed, samples)",
    }
    first = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
    assert result["registered_at"] <= first["at"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["preregistration"] == {
        name: value for name, value in result.items() if name != "frozen"
    }
    page = (folder / "report.html").read_text()
    assert (
        f"frozen on {result['registered_at'][:19].replace('T', ' ')} UTC, before any step of this "
        "experiment was in the store" in page
    )
    assert result["sha256"][:16] in page

    # Another family is another run, which names the first.
    second = ran(toolkit, frozen(features={"active": 2}))
    assert folder != second
    result = record(second)
    assert (result["steps_before"], result["results_before"]) == (1, [])  # its samples
    assert [entry["run"] for entry in result["earlier"]] == [folder.name]
    assert "data.features.params.active 3 -> 2" in result["earlier"][0]["changed"]
    page = (second / "report.html").read_text()
    assert "Its data may have been seen by then: read the results as exploration." in page
    assert f"registered before, as run {folder.name}" in page

    # The first one's test under another name: its result is there.
    renamed = frozen()
    renamed.write_text(renamed.read_text().replace("name: toy", "name: fresh"))
    result = record(ran(toolkit, renamed))
    assert (result["steps_before"], result["results_before"]) == (1 + 2 + 1, ["groups"])
    assert {entry["run"] for entry in result["earlier"]} == {folder.name, second.name}
    assert 'changed: experiment "toy" -> "fresh"' in describe(result)
    assert "The test's result already existed (groups): nothing was decided before it." in describe(
        result
    )


def plan_of(spec: Path) -> Plan:
    parts = load_parts([])
    return make_plan(resolve(load_spec(spec), parts), parts)


@pytest.fixture
def registered(frozen: Callable[..., Path], tmp_path: Path) -> tuple[Plan, Any, Path]:
    """A plan whose family was just frozen, its store and the record's file."""
    plan, store = plan_of(frozen()), open_store(tmp_path / "own", create=True)
    (tmp_path / "own" / "runs" / plan.run).mkdir(parents=True)
    assert register(plan, store) is not None
    return plan, store, tmp_path / "own" / "runs" / plan.run / "preregistration.json"


def test_the_record_has_the_family_of_trends_rankings_and_several_groups_too(
    frozen: Callable[..., Path], tmp_path: Path
) -> None:
    spec = frozen()
    with_ = "needs: [features], with: {by: group}"
    more = "".join(
        f"- {{id: {id}, uses: compare.{id}, {with_}}}\n"
        for id in ("correlation", "kruskal", "anova", "ranking")
    )
    spec.write_text(spec.read_text().replace("- id: groups", f"{more}- id: groups"))
    result = register(plan_of(spec), open_store(tmp_path / "own", create=True))
    assert result is not None
    assert set(result["families"]) == {"correlation", "kruskal", "anova", "ranking"}
    assert {"correlation", "kruskal", "anova", "ranking", "groups"} == set(
        result["frozen"]["tests"]
    )


def test_the_record_stays_when_the_run_goes_on(registered: tuple[Plan, Any, Path]) -> None:
    plan, store, path = registered
    before = path.read_bytes()
    assert register(plan, store) == json.loads(before)
    assert path.read_bytes() == before


def test_a_record_that_was_changed_stops_the_run(registered: tuple[Plan, Any, Path]) -> None:
    plan, store, path = registered
    result = json.loads(path.read_text())
    result["frozen"]["tests"]["groups"]["params"]["by"] = "other"
    path.write_text(json.dumps(result))
    with pytest.raises(
        Refused, match="was changed after it was written: its hash is not that of what it holds"
    ):
        register(plan, store)
    path.write_text("{")
    with pytest.raises(Refused, match="the preregistration cannot be read"):
        register(plan, store)
    assert Refused.exit_code == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("registered_at", "2020-01-01T00:00:00.000+00:00"),
        ("steps_before", 3),
        ("results_before", ["groups"]),
    ],
)
def test_a_record_that_was_dated_back_or_cleared_of_what_was_there_stops_the_run(
    registered: tuple[Plan, Any, Path], name: str, value: Any
) -> None:
    plan, store, path = registered
    result = json.loads(path.read_text())
    assert result[name] != value
    path.write_text(json.dumps({**result, name: value}))
    with pytest.raises(
        Refused, match="was changed after it was written: its hash is not that of what it holds"
    ):
        register(plan, store)


def test_a_record_of_another_family_in_the_runs_folder_says_what_differs(
    registered: tuple[Plan, Any, Path],
) -> None:
    plan, store, path = registered
    result = json.loads(path.read_text())
    result["frozen"]["tests"]["groups"]["version"] = "0"
    result["sha256"] = _digest(result)
    path.write_text(json.dumps(result))
    with pytest.raises(Refused, match=r'changed since: tests\.groups\.version "0" -> '):
        register(plan, store)


def test_an_earlier_record_that_cannot_be_read_is_named(
    registered: tuple[Plan, Any, Path], frozen: Callable[..., Path]
) -> None:
    plan, store, path = registered
    path.write_text("{")
    other = plan_of(frozen(features={"active": 2}))
    (path.parent.parent / other.run).mkdir()
    result = register(other, store)
    assert result is not None
    assert (
        f"The record of run {plan.run} cannot be read, so it is unknown whether it is about the "
        "same data." in describe(result)
    )
    assert "registered before" not in describe(result)


def test_nothing_is_registered_unasked(toy: Callable[..., Path], tmp_path: Path) -> None:
    assert register(plan_of(toy(n=6)), open_store(tmp_path / "own", create=True)) is None
    assert not list(tmp_path.glob("own/runs/*/preregistration.json"))
