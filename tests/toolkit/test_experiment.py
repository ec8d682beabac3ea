"""Experiments from Python: the same plan, run and errors as on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit as library
from toolkit.errors import SpecError

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


def test_a_mistake_is_an_error_with_its_place(toy) -> None:
    with pytest.raises(SpecError, match="sede"):
        library.load(toy(), sets=["sede=1"]).check()


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
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code.replace("specs/", f"{ROOT}/specs/"), "page", "exec"), {})
    assert Path(capsys.readouterr().out.splitlines()[-1]).is_file()
