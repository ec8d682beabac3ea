"""What executors in containers ask for, as text: no engine, no GPU, no image is touched."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from toolkit.executors import WorkerRequest
from toolkit_docker._failures import ending

PIN = "sha256:" + "a" * 64


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that pins the CUDA image, with an Apptainer file."""
    sif = tmp_path / "cuda.sif"
    sif.write_bytes(b"an image")
    image = {"image": PIN, "toolkit": "0.1.0", "requirements": "b", "base": "rootfs"}
    lock = tmp_path / "images.yaml"
    lock.write_text(yaml.safe_dump({"cuda": {**image, "sif": str(sif)}, "cpu": image}))
    monkeypatch.setenv("TOOLKIT_IMAGES", str(lock))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return sif


def rendered(toolkit: Any, root: Path, executor: str, gpus: str) -> list[str]:
    spec = root / "specs" / "exp1_sae_l1_31.yaml"
    block = f"executors={{{executor}: {{gpus: {gpus}}}}}"
    result = toolkit.run("run", spec, "--on", executor, "--dry-run", "--set", block)
    assert result.returncode == 0, result.stderr
    return shlex.split(result.stdout.splitlines()[0])


def test_a_dry_run_prints_the_docker_line_with_digest_and_device(
    toolkit: Any, root: Path, pinned: Path
) -> None:
    words = rendered(toolkit, root, "docker", "[5]")
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[words.index("--gpus") + 1] == '"device=5"'
    assert PIN in words
    assert words[-3:] == ["python", "-m", "toolkit.worker"]
    assert not toolkit.store.exists()


def test_a_dry_run_prints_the_apptainer_line_without_engine_or_gpu(
    toolkit: Any, root: Path, pinned: Path
) -> None:
    words = rendered(toolkit, root, "apptainer", "[5]")
    assert words[:3] == ["apptainer", "exec", "--contain"]
    assert "--nv" in words
    assert "CUDA_VISIBLE_DEVICES=5" in words
    assert str(pinned) in words


def test_on_docker_without_an_engine_exits_with_2_and_names_local(
    toolkit: Any, toy: Any, pinned: Path
) -> None:
    result = toolkit.run("run", toy(), "--on", "docker")
    assert result.returncode == 2
    assert "No container engine answers" in result.stderr
    assert "`--on local`" in result.stderr


def test_on_apptainer_without_the_program_says_how_to_get_it(
    toolkit: Any, toy: Any, pinned: Path
) -> None:
    spec = toy()
    spec.write_text(spec.read_text() + "executors: {apptainer: {image: cuda}}\n")
    result = toolkit.run("run", spec, "--on", "apptainer")
    assert result.returncode == 2
    assert "module load apptainer" in result.stderr


@pytest.mark.parametrize(
    ("status", "out_of_memory", "text"),
    [
        (137, True, "out of memory: it took more than 0.5 GiB"),
        (137, False, "killed by signal 9"),
        (135, False, "/dev/shm may be too small; raise executors.docker.shm"),
        (143, False, "killed by signal 15"),
        (1, False, "exit status 1"),
    ],
)
def test_how_a_container_ended_is_said(status: int, out_of_memory: bool, text: str) -> None:
    assert text in ending(status, out_of_memory=out_of_memory, limit=512 << 20)


def test_podman_is_refused_where_a_gpu_is_asked_for(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.errors import BadInput
    from toolkit_docker import _start
    from toolkit_docker._params import Docker

    podman = SimpleNamespace(version=lambda: {"Components": [{"Name": "Podman Engine"}]})
    request = WorkerRequest(
        name="docker-1", folder=tmp_path, jobs=tmp_path / "jobs", inputs=tmp_path / "inputs"
    )
    with pytest.raises(BadInput, match="ignores requests for GPUs without a word"):
        _start._started(podman, Docker(cdi=("nvidia.com/gpu=5",)), request)  # type: ignore[arg-type]


def test_the_choice_of_numeric_kernels_reaches_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.containers import environment_for

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    request = WorkerRequest(
        name="docker-1", folder=tmp_path, jobs=tmp_path / "jobs", inputs=tmp_path / "inputs"
    )
    environment = environment_for(request, 2)
    assert environment["OPENBLAS_CORETYPE"] == "Haswell"
    assert "MKL_CBWR" not in environment
    assert "hf_secret" not in environment.values()
