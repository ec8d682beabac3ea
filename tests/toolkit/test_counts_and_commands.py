"""Counts of steps in the report, and the commands that `plan`, `show` and the report print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml


@pytest.mark.slow
def test_the_report_counts_steps_that_another_experiment_computed_first(toolkit, toy):
    toolkit.run("run", toy())
    second = toy("second.yaml")
    second.write_text(second.read_text().replace("name: toy", "name: second"))
    report = Path(toolkit.run("run", second).stdout.splitlines()[-1])
    assert json.loads((report.parent / "manifest.json").read_text())["name"] == "second"
    assert re.findall(r"(\d+) of (\d+)</span>", report.read_text()) == [
        ("1", "1"),
        ("4", "4"),
        ("1", "1"),
    ]


@pytest.mark.slow
def test_the_report_counts_a_step_that_two_stages_share_for_both(toolkit, toy):
    path = toy()
    spec = yaml.safe_load(path.read_text())
    spec["stages"].append({"id": "twin", "uses": "compare.means", "needs": ["features"]})
    path.write_text(yaml.safe_dump(spec))
    done = toolkit.run("run", path)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.splitlines()[-1]).read_text()
    assert re.findall(r"(\d+) of (\d+)</span>", page) == [
        ("1", "1"),
        ("4", "4"),
        ("1", "1"),
        ("1", "1"),
    ]
    assert "<dt>steps done</dt><dd>7</dd>" in page
    assert "<dt>computed</dt><dd>6</dd>" in page


@pytest.mark.slow
def test_plan_names_the_command_that_does_what_was_planned(toolkit, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "over.yaml").write_text("seed: 8\n")
    arguments = (
        "toy.yaml",
        "--overlay",
        "over.yaml",
        "--set",
        "limit={units: 6}",
        "--store",
        "my store",
    )
    toy()
    planned = toolkit.run("plan", *arguments).stdout.splitlines()[0]
    command = planned.split("`")[1]
    assert shlex.split(command)[:3] == ["toolkit", "run", "toy.yaml"]
    assert planned.endswith("computes the missing steps.")
    run = planned.split()[1].rstrip(":")
    report = toolkit.run(*shlex.split(command)[1:]).stdout.splitlines()[-1]
    assert report == str(tmp_path / "my store" / "runs" / run / "report.html")
    assert (
        toolkit.run("plan", *arguments)
        .stdout.splitlines()[0]
        .endswith(f"3 stages; everything is in the store: `{command}` computes nothing.")
    )


@pytest.mark.slow
def test_the_report_repeats_a_run_from_any_folder(toolkit, toy, tmp_path, monkeypatch):
    report = Path(toolkit.run("run", toy(n=6)).stdout.splitlines()[-1])
    command = re.search(r'<pre class="command"[^>]*><code>(.*?)</code>', report.read_text())[1]
    assert command == f"toolkit run {report.parent.name} --store {toolkit.store}"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = toolkit.run(*command.split()[1:], TOOLKIT_STORE="")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(report))


@pytest.mark.slow
def test_the_default_store_needs_no_name(toolkit, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = Path(toolkit.run("run", toy(n=6), TOOLKIT_STORE="").stdout.splitlines()[-1])
    assert f"<code>toolkit run {report.parent.name}</code>" in report.read_text()


@pytest.mark.slow
def test_what_is_neither_a_file_nor_a_run_is_reported_with_the_store(
    toolkit, toy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    toy()
    empty = toolkit.run("run", "toy-8a3735c5")
    assert f"There is no file '{tmp_path}/toy-8a3735c5'." in empty.stderr
    assert (
        f"Nor is it a run: the store {toolkit.store} holds none. Another store: --store PATH"
        in empty.stderr
    )
    toolkit.run("run", "toy.yaml")
    other = toolkit.run("run", "toy-nothing")
    assert f"There is no run 'toy-nothing' in {toolkit.store}." in other.stderr
    assert (
        f"All runs: toolkit runs --store {toolkit.store}. Another store: --store PATH"
        in other.stderr
    )
    assert f"Nor is there a file '{tmp_path}/toy-nothing'." in other.stderr
