"""`toolkit init`: an experiment of one's own, from what every installation carries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from toolkit._spec.shipped import begin, run_command, shipped_specs
from toolkit._spec.spec_names import shipped_folder
from toolkit.errors import BadInput

NAMES = [spec.name for spec in shipped_specs()]


def test_the_studies_and_a_first_experiment_are_shipped() -> None:
    assert {"quickstart", "two_groups", "exp1_sae_l1_31", "gemma_top_features"} <= set(NAMES)
    assert all(len(spec.summary) > 20 for spec in shipped_specs())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_right_in_its_own_folder(toolkit, tmp_path: Path, name: str) -> None:
    done = toolkit.run("init", "mine", "--from", name, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mine"
    assert {"mine.yaml", "README.md", "spec.schema.json"} <= set(json.loads(done.stdout)["files"])
    overlay = ["--overlay", folder / "lab.yaml"] if (folder / "lab.yaml").exists() else []
    checked = toolkit.run("check", folder / "mine.yaml", *overlay)
    assert checked.returncode == 0, checked.stderr
    text = (folder / "mine.yaml").read_text()
    assert "specs/" not in text
    assert "../" not in text
    readme = (folder / "README.md").read_text()
    assert run_command("mine", name) in readme
    assert len(json.loads((folder / "spec.schema.json").read_text())["properties"]) > 5


@pytest.mark.slow
def test_the_first_experiment_runs_as_its_readme_says(toolkit, tmp_path: Path) -> None:
    folder = begin("mine", "two_groups", tmp_path)
    commands = re.findall(
        r"^toolkit (\w+) (\S+)$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert [verb for verb, _ in commands] == ["check", "plan", "run"]
    for verb, spec in commands:
        done = toolkit.run(verb, folder / spec)
        assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_file()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="exists and is not empty"):
        begin("mine", "two_groups", tmp_path)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "x" * 65])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="cannot name an experiment"):
        begin(name, "two_groups", tmp_path)


def test_an_unknown_spec_names_the_nearest(toolkit, tmp_path: Path) -> None:
    done = toolkit.run("init", "mine", "--from", "quikstart", "--out", tmp_path)
    assert done.returncode == 2
    assert "There is no shipped spec 'quikstart'. Did you mean 'quickstart'?" in done.stderr


def test_the_list_says_what_each_does(toolkit) -> None:
    done = toolkit.run("init", "--list")
    assert all(name in done.stdout for name in NAMES)
    assert toolkit.run("init").returncode == 2


def test_every_shipped_spec_names_its_schema() -> None:
    for spec in shipped_specs():
        first = spec.path.read_text(encoding="utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=spec.schema.json"
    assert shipped_folder().is_dir()
