"""Job folders are emptied when a step is committed, and used again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from toolkit._plan.plan import Step
from toolkit._run.job_folder import JobWriter, collect
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


def test_what_a_worker_that_was_given_up_writes_is_not_taken_for_a_later_step(
    tmp_path: Path,
) -> None:
    folders = JobFolders(tmp_path)
    first = folders.make(step("k1"))
    folders.empty(step("k1"))
    write_result(first, key="k1")
    assert os.listdir(folders.make(step("k2"))) == []


def test_a_result_of_another_step_is_not_collected(tmp_path: Path) -> None:
    folder = tmp_path / "k1"
    folder.mkdir()
    write_result(folder, key="k1")
    assert collect(folder) is not None
    assert collect(folder.rename(tmp_path / "k2")) is None


def test_a_file_that_a_power_failure_cut_off_is_not_collected(tmp_path: Path) -> None:
    folder = tmp_path / "k1"
    folder.mkdir()
    write_result(folder, key="k1")
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(whole) == 2
    for path, content in whole.items():
        for size in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:size])
            assert collect(folder) is None, (path.name, size)
        path.write_bytes(content)
    assert collect(folder) is not None


def write_result(folder: Path, key: str) -> None:
    """A job folder as a worker leaves it."""
    writer = JobWriter(folder, "extract.part", ("samples",))
    writer.finish({"key": key, "seconds": 0.0})
