"""Job folders are emptied when a step is committed, and used again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from toolkit._plan.plan import Step
from toolkit._run.job_folders import JobFolders


def step(key: str) -> Step:
    return cast(Step, SimpleNamespace(key=key))


def test_an_emptied_folder_becomes_that_of_a_later_step(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path / "jobs")
    first = folders.make(step("k1"))
    (first / "done.json").write_text("{}")
    inode = first.stat().st_ino
    folders.empty(step("k1"))
    second = folders.make(step("k2"))
    assert (second.name, second.stat().st_ino) == ("k2", inode)
    assert os.listdir(second) == []
    assert os.listdir(tmp_path / "jobs") == ["k2"]


def test_files_of_an_earlier_attempt_are_removed(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path)
    (tmp_path / "k1").mkdir()
    (tmp_path / "k1" / "done.json").write_text("{}")
    assert os.listdir(folders.make(step("k1"))) == []


def test_a_folder_that_a_part_left_is_removed_with_its_step(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path)
    (folders.make(step("k1")) / "cache").mkdir()
    folders.empty(step("k1"))
    assert os.listdir(tmp_path) == []
    assert folders.make(step("k2")).is_dir()


def test_an_emptied_folder_may_be_removed_by_somebody(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path)
    first = folders.make(step("k1"))
    folders.empty(step("k1"))
    first.rmdir()
    folders.empty(step("k1"))
    assert os.listdir(folders.make(step("k2"))) == []
