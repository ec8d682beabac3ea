"""What `check` refuses in the params of executors in containers, and paths with separators."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

PIN = "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def _a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock with an image of the user's own."""
    image = {"image": PIN, "toolkit": "0.1.0", "requirements": "b", "base": PIN, "packages": PIN}
    lock = tmp_path / "images.yaml"
    lock.write_text(yaml.safe_dump({"mine": image}))
    monkeypatch.setenv("TOOLKIT_IMAGES", str(lock))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def checked(toolkit: Any, spec: Path, executor: str, params: dict[str, Any]) -> Any:
    block = f"executors={json.dumps({executor: params})}"
    return toolkit.run("check", spec, "--on", executor, "--set", block)


@pytest.mark.parametrize(
    ("executor", "params", "sentence"),
    [
        ("docker", {"gpus": ["foo"]}, "docker.gpus.0: must be a whole number or text that"),
        ("docker", {"gpus": [""]}, "docker.gpus.0: must be a whole number or text that"),
        ("apptainer", {"gpus": ["GPU-"]}, "apptainer.gpus.0: must be a whole number or text"),
        ("docker", {"gpus": [5, 5]}, "docker.gpus: name each GPU once."),
        ("docker", {"gpus": [5, "5"]}, "docker.gpus: name each GPU once."),
        ("local", {"gpus": ["GPU-a", "GPU-a"]}, "local.gpus: name each GPU once."),
        ("docker", {"cdi": [""]}, "docker.cdi.0: must be text of at least 1 characters"),
        ("docker", {"memory": "1m"}, "docker.memory: 1m is less than 6m"),
        ("docker", {"memory": "6143k"}, "docker.memory: 6143k is less than 6m"),
        (
            "docker",
            {"image": "cdua"},
            "docker.image: there is no image 'cdua'. Images: cpu, cuda, mine. Did you mean 'cuda'?",
        ),
        (
            "apptainer",
            {"image": "a b"},
            "apptainer.image: there is no image 'a b'. Images: cpu, cuda, mine.",
        ),
    ],
)
def test_check_names_the_param_that_no_container_can_have(
    executor: str, params: dict[str, Any], sentence: str, toolkit: Any, toy: Any
) -> None:
    result = checked(toolkit, toy(), executor, params)
    assert result.returncode == 2
    assert f"executors.{sentence}" in result.stderr


@pytest.mark.parametrize(
    ("executor", "params"),
    [
        ("docker", {"gpus": [5, "6", "GPU-1b2c", "MIG-3d"], "memory": "6m", "image": "cuda"}),
        ("docker", {"gpus": {"count": 2}, "image": "mine", "cdi": ["nvidia.com/gpu=5"]}),
        ("docker", {"gpus": "all", "image": PIN}),
        ("apptainer", {"gpus": "none", "image": "mine"}),
    ],
)
def test_check_accepts_what_an_engine_could(
    executor: str, params: dict[str, Any], toolkit: Any, toy: Any
) -> None:
    result = checked(toolkit, toy(), executor, params)
    assert result.returncode == 0, result.stderr


def test_a_path_with_a_comma_is_quoted_in_the_docker_line(
    toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    store = tmp_path / 'a,b:"c"'
    block = f"executors={json.dumps({'docker': {'image': PIN}})}"
    words = ("run", toy(), "--on", "docker", "--dry-run", "--set", block, "--store", store)
    result = toolkit.run(*words)
    assert result.returncode == 0, result.stderr
    line = shlex.split(result.stdout.splitlines()[0])
    rows = [line[at + 1] for at, word in enumerate(line) if word == "--mount"]
    mounts = list(csv.reader(rows))
    (jobs,) = (fields for fields in mounts if "target=/toolkit/jobs" in fields)
    assert jobs[0] == "type=bind"
    assert jobs[1].startswith(f"source={store}/runs/")
    assert len(jobs) == 3
    (inputs,) = (fields for fields in mounts if "target=/toolkit/inputs" in fields)
    assert inputs[3:] == ["readonly"]


@pytest.mark.parametrize("name", ["a:b", "a,b"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_path_that_apptainer_would_split_is_refused(
    name: str, dry: bool, toolkit: Any, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, sif = tmp_path / "apptainer", tmp_path / "cpu.sif"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    sif.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    block = f"executors={json.dumps({'apptainer': {'sif': str(sif)}})}"
    words = ["run", toy(), "--on", "apptainer", "--set", block, "--store", tmp_path / name]
    result = toolkit.run(*words, *(["--dry-run"] if dry else []))
    assert result.returncode == 2
    assert f"Apptainer cannot mount {tmp_path / name}/runs/" in result.stderr
    assert "`--store` names the store" in result.stderr
