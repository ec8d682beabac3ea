"""Experiments from Python: the same plan, run and errors as on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit as library
from tests.toolkit.conftest import TOY
from toolkit import StageEntry, Uses
from toolkit.errors import BadInput, SpecError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "from-python.md").read_text(encoding="utf-8")


def test_it_plans_and_runs_as_the_command_line_does(toolkit, toy) -> None:
    spec = toy()
    experiment = library.load(spec, store=toolkit.store)
    run = experiment.check()
    planned = json.loads(toolkit.run("plan", spec, "--json").stdout)
    plan = experiment.plan()
    assert (plan.run, run) == (planned["run"], planned["run"])
    assert [row["stage"] for row in plan.stages] == [row["stage"] for row in planned["stages"]]
    assert plan.total.memory == planned["total"]["memory"]
    outcome = experiment.run(quiet=True)
    assert outcome.run == run
    assert outcome.report.is_file()
    assert all(row["why"] == "-" for row in experiment.plan().stages)


def test_sets_and_overlays_change_the_run(toolkit, toy, tmp_path: Path) -> None:
    spec, overlay = toy(), tmp_path / "small.yaml"
    overlay.write_text("limit: {units: 2}\n")
    whole, small = library.load(spec), library.load(spec, overlay=overlay)
    changed = library.load(spec, overlay=[overlay], sets=["seed=1234"])
    assert len({whole.check(), small.check(), changed.check()}) == 3
    assert library.load(spec, overlay=overlay, sets="seed=1234").check() == changed.check()


def test_a_mistake_is_an_error_with_its_location(toy) -> None:
    with pytest.raises(SpecError, match="sede"):
        library.load(toy(), sets=["sede=1"]).check()


def built(store: Path, **changes: object) -> library.Experiment:
    """The toy spec from objects."""
    stages = [
        StageEntry(id="features", part=Uses("extract.hash", width=32, active=3, batch=6)),
        StageEntry(id="groups", part=Uses("compare.means"), needs=["features"]),
    ]
    params = {"samples": Uses("count", n=24), "stages": stages, "seed": 7, "store": store}
    return library.build(
        "toy", model=Uses("toy", salt=1), saes=Uses("toy", salt=2), **(params | changes)
    )


@pytest.mark.slow
def test_objects_give_the_keys_of_the_file(toolkit, toy) -> None:
    """What the file has computed is there for the objects: nothing is computed twice."""
    from_file = library.load(toy(), store=toolkit.store)
    from_objects = built(toolkit.store)
    assert from_objects.target.data == TOY
    from_file.run(quiet=True)
    assert all(row["why"] == "-" for row in from_objects.plan().stages)


@pytest.mark.slow
def test_what_objects_have_computed_is_repeated_by_id(toolkit, toy) -> None:
    outcome = built(toolkit.store).run(quiet=True)
    again = library.load(outcome.run, store=toolkit.store)
    assert again.check() == outcome.run
    assert all(row["why"] == "-" for row in library.load(toy(), store=toolkit.store).plan().stages)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": Uses("count", m=24)}, r"samples.with.m"),
        ({"samples": Uses("coutn")}, "Did you mean 'count'"),
        (
            {"stages": [StageEntry(id="features", part=Uses("extract.hash"), needs=["x"])]},
            "no stage",
        ),
        ({"more": {"limmit": {"units": 1}}}, "limmit"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_objects_are_checked_as_a_file_is(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        built(tmp_path, **changes).check()
    assert "toy (built in Python)" in str(caught.value)


def test_what_a_spec_cannot_hold_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"samples.with.n: a set cannot be written"):
        built(tmp_path, samples=Uses("count", n={24}))


def test_every_field_of_a_stage_is_written_as_in_a_file(tmp_path: Path) -> None:
    stage = StageEntry(
        id="x",
        part=Uses("extract.hash", width=8),
        needs=["y"],
        seed=0,
        on="local",
        samples=Uses("games", pick="last").of_stage("play", "other.yaml"),
    )
    assert stage.entry() == {
        "id": "x",
        "uses": "extract.hash",
        "with": {"width": 8},
        "needs": ["y"],
        "seed": 0,
        "on": "local",
        "samples": {
            "uses": "games",
            "with": {"pick": "last"},
            "from": {"stage": "play", "spec": "other.yaml"},
        },
    }


def test_importing_it_is_light() -> None:
    program = (
        "import sys, toolkit; toolkit.load('x.yaml'); print(sorted({'torch', 'lancedb', "
        "'transformers', 'polars', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    exec(compile(code.replace("specs/", f"{ROOT}/specs/"), "page", "exec"), {})
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert "shape: (5," in printed
