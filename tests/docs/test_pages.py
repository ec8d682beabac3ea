"""What the first pages say is true: their specs run when pasted, their commands and messages are
those of the program.
"""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.toolkit.conftest import Toolkit, toolkit  # noqa: F401
from toolkit._cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOW_TO = (ROOT / "docs" / "how-to" / "my-csv-two-groups.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def readme_spec(tmp_path: Path) -> Path:
    (text,) = blocks(README, "yaml")
    path = tmp_path / "ruin.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_spec_of_the_readme_is_right_when_pasted(
    toolkit: Toolkit,  # noqa: F811
    readme_spec: Path,
) -> None:
    done = toolkit.run("check", readme_spec)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_spec_of_the_readme_runs_when_pasted(
    toolkit: Toolkit,  # noqa: F811
    readme_spec: Path,
) -> None:
    done = toolkit.run("run", readme_spec)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_file()


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"])
def test_every_command_of_a_page_exists(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8"), "bash"):
        for line in block.splitlines():
            for words in re.findall(r"(?:^|&& )toolkit ([a-z][\w-]*)", line):
                assert words in COMMANDS, f"{path.name}: toolkit {words}"


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"])
def test_every_column_of_a_table_has_a_header(path: Path) -> None:
    """A screen reader reads a cell out with its header."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for header, below in itertools.pairwise(lines):
        if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", below.strip()):
            cells = header.strip().strip("|").split("|")
            assert all(cell.strip() for cell in cells), f"{path.name}: {header}"


def test_every_page_is_listed(tmp_path: Path) -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT / "docs"))
        if name != "index.md" and path.name != "README.md":
            assert f"({name})" in index, name
            assert f": {name}\n" in navigation, f"mkdocs.yml: nav: {name}"


@pytest.mark.slow
def test_my_csv_two_groups_step_by_step(
    toolkit: Toolkit,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    begin, check, _, read = blocks(HOW_TO, "bash")
    commands = [shlex.split(line, comments=True) for line in begin.splitlines()]
    assert [words[:2] for words in commands] == [
        ["toolkit", "init"],
        ["cd", "my_texts"],
        ["toolkit", "run"],
    ]
    for words in commands:
        if words[0] == "cd":
            monkeypatch.chdir(tmp_path / words[1])
            continue
        done = toolkit.run(*words[1:])
        assert done.returncode == 0, done.stderr
    for line in (*check.splitlines(), *read.splitlines()):
        done = toolkit.run(*shlex.split(line, comments=True)[1:])
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_error_of_the_how_to_is_what_check_says(
    toolkit: Toolkit,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    toolkit.run("init", "my_texts")
    monkeypatch.chdir(tmp_path / "my_texts")
    spec = Path("my_texts.yaml")
    spec.write_text(
        spec.read_text().replace(
            "between: [bold, calm]}}\n  # For comparison",
            "between: [bolt, calm]}}\n  # For comparison",
        )
    )
    (message,) = re.findall(r"^error: .*$", HOW_TO, re.MULTILINE)
    assert message in toolkit.run("check", spec).stderr


def test_the_columns_of_the_how_to_are_those_of_the_file() -> None:
    (example,) = blocks(HOW_TO, "csv")
    file = (ROOT / "specs" / "data" / "two_groups.csv").read_text(encoding="utf-8").splitlines()
    assert set(example.splitlines()) <= set(file)


def test_the_models_of_the_how_to_are_planned_without_files(
    toolkit: Toolkit,  # noqa: F811
    tmp_path: Path,
) -> None:
    (models,) = blocks(HOW_TO, "yaml")
    toolkit.run("init", "my_texts", "--out", tmp_path)
    path = tmp_path / "my_texts" / "my_texts.yaml"
    spec = {**yaml.safe_load(path.read_text()), **yaml.safe_load(models)}
    path.write_text(yaml.safe_dump(spec))
    done = toolkit.run("plan", path)
    assert done.returncode == 0, done.stderr
    assert " ?" not in done.stdout.split("COSTS")[1].split("\n\n")[0]


def test_the_changelog_is_one_entry_of_at_most_60_lines() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert [line for line in lines if line.startswith("## ")] == ["## 0.1.0 (unreleased)"]
