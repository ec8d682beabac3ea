"""What executors in containers ask for, as text: no engine, no GPU, no image is touched."""

from __future__ import annotations

import shlex
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from docker.errors import APIError

from toolkit._run.workers import _check_versions
from toolkit.containers.engines import unreachable
from toolkit.containers.mounts import environment_for, make_folders, mounts_for, token_mounts
from toolkit.errors import BadInput
from toolkit.executors.gpus import Gpu
from toolkit.executors.interface import WorkerRequest
from toolkit_apptainer._start import Apptainer
from toolkit_apptainer._start import command as apptainer_command
from toolkit_docker import _start
from toolkit_docker._failures import create_failure, ending, start_failure
from toolkit_docker._params import Docker

PIN = "sha256:" + "a" * 64


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that pins the CUDA image, with an Apptainer file."""
    sif = tmp_path / "cuda.sif"
    sif.write_bytes(b"an image")
    image = {"image": PIN, "toolkit": "0.1.0", "requirements": "b", "base": PIN, "packages": PIN}
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
    words = shlex.split(result.stdout.splitlines()[0])
    assert words[:2] == ["mkdir", "-p"], "what the line mounts has to be there when it is pasted"
    return words[words.index("&&") + 1 :]


def test_a_dry_run_prints_the_docker_line_with_digest_and_device(
    toolkit: Any, root: Path, pinned: Path
) -> None:
    words = rendered(toolkit, root, "docker", "[5]")
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[words.index("--gpus") + 1] == '"device=5"'
    assert PIN in words
    assert words[-3:] == ["python", "-m", "toolkit.worker"]
    assert not toolkit.store.exists()


@pytest.mark.parametrize("executor", ["docker", "apptainer"])
def test_a_machine_with_gpus_asks_whether_a_container_gets_one(
    toolkit: Any, toy: Any, pinned: Path, nvidia_smi: Any, executor: str
) -> None:
    words = ("run", toy(), "--on", executor, "--dry-run")
    image = ("--set", f"executors={{{executor}: {{image: cuda}}}}")
    silent = toolkit.run(*words, *image, PATH=nvidia_smi(2))
    assert silent.returncode == 2
    assert "This machine has GPUs (0 (" in silent.stderr
    assert f"--gpu 0, or `gpus: [0]` under executors.{executor}; or take the CPU" in silent.stderr
    on_cpu = toolkit.run(*words, *image, "--gpu", "none", PATH=nvidia_smi(2))
    assert on_cpu.returncode == 0, on_cpu.stderr


def test_a_dry_run_prints_the_apptainer_line_without_engine_or_gpu(
    toolkit: Any, root: Path, pinned: Path
) -> None:
    words = rendered(toolkit, root, "apptainer", "[5]")
    assert words[:3] == ["apptainer", "exec", "--contain"]
    assert "--nv" in words
    assert "CUDA_VISIBLE_DEVICES=5" in words
    assert str(pinned) in words


def test_all_gpus_are_rendered_as_all_or_left_to_the_driver(
    toolkit: Any, root: Path, pinned: Path
) -> None:
    """On a machine without GPUs: `all` is a device for Docker, and no device for CUDA."""
    docker = rendered(toolkit, root, "docker", "all")
    assert docker[docker.index("--gpus") + 1] == '"device=all"'
    apptainer = rendered(toolkit, root, "apptainer", "all")
    assert "--nv" in apptainer
    assert not [word for word in apptainer if word.startswith("CUDA_VISIBLE_DEVICES")]


def test_a_gpu_of_this_machine_is_rendered_by_its_uuid(
    toolkit: Any, toy: Any, pinned: Path, nvidia_smi: Any
) -> None:
    words = ("run", toy(), "--dry-run", "--set", "executors={EXECUTOR: {gpus: {count: 2}}}")
    for executor, argument in (
        ("docker", "--gpus '\"device={}\"'"),
        ("apptainer", "--env CUDA_VISIBLE_DEVICES={}"),
    ):
        choice = words[-1].replace("EXECUTOR", executor)
        result = toolkit.run(*words[:-1], choice, "--on", executor, PATH=nvidia_smi(6))
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        expected = [argument.format(f"GPU-uuid-{index}") for index in (0, 1)]
        assert [text in line for text, line in zip(expected, lines, strict=True)] == [True, True]
        lines = toolkit.run(*words[:-2], "--on", executor, "--gpu", "5", PATH=nvidia_smi(6)).stdout
        assert argument.format("GPU-uuid-5") in lines


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_nothing_asks_the_engine_before_a_run(
    toolkit: Any, toy: Any, pinned: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="tk-") as short,
        socket.socket(socket.AF_UNIX) as engine,
    ):
        engine.bind(f"{short}/s")
        engine.listen()
        engine.setblocking(False)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{short}/s")
        dry = ("--dry-run",) if command == "run" else ()
        result = toolkit.run(command, toy(), "--on", "docker", *dry)
        assert result.returncode == 0, result.stderr
        with pytest.raises(BlockingIOError):
            engine.accept()


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
        (137, True, "it took more than 0.5 GiB; raise `memory` under executors.slim"),
        (137, False, "killed by signal 9"),
        (135, False, "/dev/shm may be too small; raise `shm` under executors.slim"),
        (143, False, "killed by signal 15"),
        (1, False, "exit status 1"),
    ],
)
def test_how_a_container_ended_is_said(status: int, out_of_memory: bool, text: str) -> None:
    end = ending(status, out_of_memory=out_of_memory, limit=512 << 20, executor="slim")
    assert text in end.text
    assert end.out_of_memory == out_of_memory


def test_podman_is_refused_where_a_gpu_is_asked_for(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman = SimpleNamespace(version=lambda: {"Components": [{"Name": "Podman Engine"}]})
    request = WorkerRequest(
        name="docker-1",
        executor="docker",
        folder=tmp_path,
        jobs=tmp_path / "jobs",
        inputs=tmp_path / "inputs",
    )
    with pytest.raises(BadInput, match="silently ignores requests for GPUs"):
        _start._create_and_start(podman, Docker(cdi=("nvidia.com/gpu=5",)), request)  # type: ignore[arg-type]


def test_the_choice_of_numeric_kernels_reaches_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    request = WorkerRequest(
        name="docker-1",
        executor="docker",
        folder=tmp_path,
        jobs=tmp_path / "jobs",
        inputs=tmp_path / "inputs",
    )
    environment = environment_for(request, 2)
    assert environment["OPENBLAS_CORETYPE"] == "Haswell"
    assert "MKL_CBWR" not in environment
    assert "hf_secret" not in environment.values()


def downloading(folder: Path) -> WorkerRequest:
    return WorkerRequest(
        name="docker-1",
        executor="docker",
        folder=folder,
        jobs=folder / "jobs",
        inputs=folder / "inputs",
        network=True,
    )


def test_a_token_reaches_a_container_that_downloads_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the hub's own file, else of HF_TOKEN in a private file; only where a stage downloads."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    request = downloading(tmp_path)
    assert token_mounts(request, starting=True) == []
    (tmp_path / "token").write_text("hf_filed")
    (mount,) = token_mounts(request, starting=False)
    assert (mount.outside.read_text(), mount.writable) == ("hf_filed", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert token_mounts(request, starting=False) == [], "rendering a line writes no file"
    (mount,) = token_mounts(request, starting=True)
    assert mount.outside.read_text() == "hf_secret"
    assert mount.outside.stat().st_mode & 0o777 == 0o600
    assert mount.outside.parent.stat().st_mode & 0o777 == 0o700
    environment = environment_for(request, 2)
    assert environment["HF_TOKEN_PATH"] == str(mount.inside)
    assert "hf_secret" not in environment.values()
    closed = replace(request, network=False)
    assert token_mounts(closed, starting=True) == []
    assert "HF_TOKEN_PATH" not in environment_for(closed, 2)


def test_a_container_that_downloads_fills_the_model_cache_even_if_there_is_none_yet(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "hub"
    request = replace(downloading(tmp_path), model_cache=cache)
    (mount,) = (mount for mount in mounts_for(request) if mount.outside == cache)
    assert mount.writable
    assert not cache.exists(), "rendering a line creates nothing"
    assert str(cache) in _start.command(Docker(image=PIN), request).partition("&&")[0]
    make_folders(request)
    assert cache.is_dir()
    closed = replace(request, network=False)
    assert not any(mount.writable for mount in mounts_for(closed) if mount.outside == cache)


def test_no_line_that_is_rendered_holds_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    request = downloading(tmp_path)
    assert "hf_secret" not in _start.command(Docker(image=PIN), request)
    assert "hf_secret" not in apptainer_command(Apptainer(sif="x.sif"), request)


CDI = ("nvidia.com/gpu=5", "vendor.example/net=a")


def test_cdi_names_are_taken_as_they_are_and_recorded(tmp_path: Path) -> None:
    request = downloading(tmp_path)
    params = Docker(image=PIN, cdi=CDI)
    (asked,) = _start.device_requests(params, request)
    assert (asked["Driver"], asked["DeviceIDs"]) == ("cdi", list(CDI))
    words = shlex.split(_start.command(params, request))
    assert [words[at + 1] for at, word in enumerate(words) if word == "--device"] == list(CDI)
    assert _start.record(params, request) == {"image": PIN, "cdi": list(CDI)}
    assert _start.record(Docker(image=PIN), request) == {"image": PIN}
    assert _start.device_requests(Docker(image=PIN), request) == []


def api_error(message: str) -> APIError:
    return APIError("500", explanation=message)


@pytest.mark.parametrize(
    ("stated", "sentences"),
    [
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            ("cannot give a container a GPU", "Install the NVIDIA Container Toolkit"),
        ),
        (
            "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=5",
            ("knows no such CDI device", "`nvidia-ctk cdi generate`", "under executors.docker"),
        ),
        (
            'could not select device driver "cdi" with capabilities: []',
            ("knows no such CDI device", "`features: {cdi: true}`"),
        ),
        (
            "nvidia-container-cli: device error: GPU-5a: unknown device: unknown",
            ("the engine has no such GPU: 5 (H200, GPU-5a)", "`nvidia-smi -L` lists them"),
        ),
        ("write /x: no space left on device", ("disk is full", "`docker system df`")),
        ("something else", ("refused to start the container: something else",)),
    ],
)
def test_why_a_container_does_not_start_is_said_with_the_fix(
    stated: str, sentences: tuple[str, ...], tmp_path: Path
) -> None:
    card = Gpu(
        index=5, uuid="GPU-5a", pci="0:5", name="H200", driver="9", total_bytes=2, free_bytes=1
    )
    request = replace(downloading(tmp_path), gpus=(card,))
    text = str(start_failure(api_error(stated), request))
    assert all(sentence in text for sentence in sentences), text


@pytest.mark.parametrize(
    ("sentences", "image", "sentence"),
    [
        ("No such image: x", PIN, "Build it again: `toolkit images build`"),
        ("manifest unknown: No such image", f"r/x@{PIN}", f"`docker pull r/x@{PIN}`"),
        ("bind source path does not exist: /x", PIN, "Is it remote?"),
        ("Unknown runtime specified nvidia", PIN, "Install the NVIDIA Container Toolkit"),
        ("something else", PIN, "refused to create the container: something else"),
    ],
)
def test_why_a_container_is_not_created_is_said_with_the_fix(
    sentences: str, image: str, sentence: str
) -> None:
    assert sentence in str(create_failure(api_error(sentences), image))


def test_a_socket_that_this_user_may_not_open_is_told_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/x.sock")
    text = unreachable(PermissionError(13, "Permission denied"))
    assert "does not accept this user" in text
    assert "the group `docker`" in text
    assert "`--on local`" in text
    assert "No container engine answers" in unreachable(FileNotFoundError(2, "No such file"))


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        ({"toolkit": "0.0.9", "plugin mine": "2"}, "toolkit is 0.0.9 there and 0.1.0 here"),
        ({"toolkit": "0.1.0"}, "plugin mine is not installed there and 2 here"),
    ],
)
def test_a_worker_of_another_version_is_refused_with_the_fix(
    there: dict[str, str], sentence: str
) -> None:
    here = {"toolkit": "0.1.0", "plugin mine": "2"}
    with pytest.raises(BadInput, match=r"docker-0 has another version") as error:
        _check_versions("docker-0", here, there)
    assert sentence in str(error.value)
    assert "`toolkit images build`" in str(error.value)
    _check_versions("docker-0", here, here)


@pytest.mark.parametrize("image", ["python:3.11", "sha256:12", "python@sha256:zz"])
def test_check_refuses_an_image_that_is_no_pin(toolkit: Any, toy: Any, image: str) -> None:
    result = toolkit.run(
        "check", toy(), "--on", "docker", "--set", f'executors={{docker: {{image: "{image}"}}}}'
    )
    assert result.returncode == 2
    assert "executors.docker.image: write a name that `toolkit images list` shows" in result.stderr
