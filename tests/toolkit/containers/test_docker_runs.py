"""Runs in containers on a real engine: the tables of a local run, limits, kills and leftovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.executors.interface import WorkerRequest
from toolkit_docker import _start
from toolkit_docker._leftovers import HOST, PROCESS, STARTED, WORKER
from toolkit_docker._params import Docker
from toolkit_store import open_store

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

HUNGRY = """
from collections.abc import Iterator
from toolkit import hookimpl
from toolkit.parts import NoParams, StagePart

def run(work):
    held = [bytearray(32 << 20) for _ in range(64)]
    raise RuntimeError(f"{len(held)} blocks fitted")

@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.hungry", help="Takes 2 GiB.", params=NoParams, run=run,
                    reads=("samples",), writes=("activations", "spaces"))
"""


ADAPTING = """
import pyarrow as pa
from toolkit import hookimpl
from pydantic import Field
from toolkit.parts import Estimates, Params, StagePart, Steps
from toolkit.tables import arrow_schema

class Hungry(Params):
    batch: int = Field(8, description="Samples of one step.")

def run(work):
    held = [bytearray(b"x" * (12 << 20)) for _ in range(work.batch["blocks"])]
    empty = pa.Table.from_pylist
    for table in ("activations", "spaces"):
        yield table, empty([], schema=arrow_schema(table))

def batch_plan(params, load, free, device):
    return {"blocks": 64}

@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.hungry", help="Takes what it gets.", params=Hungry, run=run,
                    reads=("samples",), writes=("activations", "spaces"), steps=Steps(size="batch"),
                    estimates=Estimates(batch_plan=batch_plan))
"""
SHARING = """
import mmap
from toolkit import hookimpl
from toolkit.parts import NoParams, StagePart

def run(work):
    with open("/dev/shm/large", "wb+") as file:
        file.truncate(8 << 20)
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[:] = b"x" * (8 << 20)
    raise RuntimeError("it fitted")

@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.hungry", help="Fills /dev/shm.", params=NoParams, run=run,
                    reads=("samples",), writes=("activations", "spaces"))
"""


@pytest.fixture(autouse=True)
def _pinned(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image))


def fingerprint(store: Path) -> Any:
    """The data tables of the store's newest run."""
    opened = open_store(store)
    state = opened.run_states()[-1]
    assert state.state == "done"
    return opened.fingerprint(state.steps)


def in_store(toolkit: Any, name: str, *words: str | Path) -> Any:
    """Run in a store of its own; returns its fingerprint."""
    before, toolkit.store = toolkit.store, toolkit.store.parent / name
    result = toolkit.run("run", *words)
    assert result.returncode == 0, result.stderr
    found, toolkit.store = fingerprint(toolkit.store), before
    return found


def test_docker_local_and_split_runs_leave_identical_tables(
    engine: Any, toolkit: Any, toy: Any, local_tables: Any
) -> None:
    spec = toy()
    local = local_tables(spec).fingerprint
    assert in_store(toolkit, "docker", spec, "--on", "docker") == local
    split = yaml.safe_load(spec.read_text())
    split["stages"][0]["on"] = "docker"
    spec.write_text(yaml.safe_dump(split))
    assert in_store(toolkit, "split", spec) == local
    assert engine.containers.list(all=True) == []


@pytest.mark.slow
def test_the_quickstart_in_a_container_leaves_the_tables_of_a_local_run(
    engine: Any, toolkit: Any, root: Path
) -> None:
    spec = root / "specs" / "quickstart.yaml"
    local = in_store(toolkit, "local", spec)
    assert in_store(toolkit, "docker", spec, "--on", "docker") == local


def wait_for(condition: Any, seconds: float = 180.0) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def running(engine: Any) -> list[Any]:
    return list(engine.containers.list(filters={"label": WORKER}))


def slow_spec(toy: Any) -> Path:
    path: Path = toy(features={"seconds": 0.4, "batch": 3})
    return path


def test_a_container_is_closed_to_all_but_its_folders(engine: Any, toolkit: Any, toy: Any) -> None:
    process = toolkit.start("run", slow_spec(toy), "--on", "docker")
    container = wait_for(lambda: running(engine))[0]
    facts = container.attrs
    host = facts["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "none"
    assert host["PidsLimit"] == 4096
    assert host["ShmSize"] == 2 << 30
    writable = {mount["Destination"] for mount in facts["Mounts"] if mount["RW"]}
    assert writable == {"/toolkit/jobs"}
    store = str(toolkit.store)
    outside = {mount["Source"] for mount in facts["Mounts"]}
    assert store not in outside
    assert {
        Path(path).relative_to(toolkit.store).parts[0] for path in outside if store in path
    } == {"runs"}
    environment = " ".join(facts["Config"]["Env"])
    assert "HF_TOKEN" not in environment
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert process.wait(timeout=300) == 0


def test_files_belong_to_the_caller(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller without rights, who owns the job folder; the container's inputs stay as they are."""
    monkeypatch.setattr(_start.os, "getuid", lambda: 1234)
    monkeypatch.setattr(_start.os, "getgid", lambda: 5678)
    request = WorkerRequest(
        name="docker-0",
        executor="docker",
        folder=tmp_path,
        jobs=tmp_path / "jobs",
        inputs=tmp_path / "inputs",
    )
    request.jobs.mkdir()
    os.chown(request.jobs, 1234, 5678)
    worker = _start.start(Docker(image="cpu"), request)
    try:
        container = running(engine)[0]
        write = "touch /toolkit/jobs/written; touch /toolkit/inputs/no; touch /opt/no"
        _, output = container.exec_run(["sh", "-c", write])
    finally:
        worker.stop(now=True)
    owner = (request.jobs / "written").stat()
    assert (owner.st_uid, owner.st_gid) == (1234, 5678)
    assert output.decode().count("Read-only file system") == 2
    assert list(request.inputs.iterdir()) == []


def worker_process(container: Any) -> int:
    """The worker's process id on this machine; the first process is the engine's own `init`."""
    shown = container.top()
    column = shown["Titles"].index("PID")
    (pid,) = (int(row[column]) for row in shown["Processes"] if row[-1].startswith("python "))
    return pid


@pytest.mark.parametrize("victim", ["worker", "container"])
def test_a_killed_container_costs_its_step_another_try(
    victim: str, engine: Any, toolkit: Any, toy: Any, local_tables: Any
) -> None:
    process = toolkit.start("run", slow_spec(toy), "--on", "docker")
    container = wait_for(lambda: running(engine))[0]
    wait_for(lambda: list(toolkit.store.glob("runs/*/jobs/*")))
    if victim == "worker":
        os.kill(worker_process(container), signal.SIGKILL)
    else:
        container.remove(force=True)
    assert process.wait(timeout=300) == 0
    assert fingerprint(toolkit.store) == local_tables(slow_spec(toy)).fingerprint


def test_a_memory_limit_that_is_hit_is_named(
    engine: Any, toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    path, plugin = hungry_spec(toy, tmp_path, memory="512m")
    plugin.write_text(HUNGRY)
    result = toolkit.run("run", path, "--on", "docker", "--plugin", plugin)
    assert result.returncode == 3
    assert "out of memory: it took more than 0.5 GiB" in result.stderr


def hungry_spec(toy: Any, folder: Path, **settings: str) -> tuple[Path, Path]:
    """A spec of one stage that does what a scratch plugin says, and the plugin's path."""
    plugin, path = folder / "hungry.py", folder / "hungry.yaml"
    spec = yaml.safe_load(toy(n=2).read_text())
    spec["stages"] = [{"id": "features", "uses": "extract.hungry"}]
    spec["executors"] = {"docker": settings}
    path.write_text(yaml.safe_dump(spec))
    return path, plugin


def test_a_step_that_hits_the_limit_is_tried_again_with_smaller_batches(
    engine: Any, toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    path, plugin = hungry_spec(toy, tmp_path, memory="512m")
    plugin.write_text(ADAPTING)
    result = toolkit.run("run", path, "--on", "docker", "--plugin", plugin)
    assert result.returncode == 0, result.stderr
    assert "out of memory: it took more than 0.5 GiB" in result.stderr
    assert "its batches are halved: blocks 32" in result.stderr


def test_shared_memory_that_is_too_small_is_named(
    engine: Any, toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    path, plugin = hungry_spec(toy, tmp_path, shm="1m")
    plugin.write_text(SHARING)
    result = toolkit.run("run", path, "--on", "docker", "--plugin", plugin)
    assert result.returncode == 3
    assert "/dev/shm may be too small; raise `shm` under executors.docker" in result.stderr


def test_the_line_of_a_dry_run_can_be_pasted(engine: Any, toolkit: Any, toy: Any) -> None:
    line = toolkit.run("run", toy(), "--on", "docker", "--dry-run").stdout.splitlines()[0]
    opening = '{"type": "open", "plugins": [], "secrets": {}}\n'
    with subprocess.Popen(
        ["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as pasted:
        assert pasted.stdin is not None
        assert pasted.stdout is not None
        pasted.stdin.write(opening)
        pasted.stdin.flush()
        output = next(text for text in pasted.stdout if '"event": "hello"' in text)
        pasted.stdin.close()
    assert json.loads(output)["versions"]["toolkit"]


def by_hand(root: Path, host: str, *words: str) -> str:
    """What `docker run` of the whole program says."""
    spec = root / "specs" / "toy.yaml"
    command = ["docker", "run", "--rm", "--network", "none", "-v", f"{spec}:/tmp/specs/toy.yaml:ro"]
    done = subprocess.run(
        [*command, *words], env={**os.environ, "DOCKER_HOST": host}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_whole_program_runs_in_the_image_by_hand(
    image: Path, engine: Any, root: Path, tmp_path: Path
) -> None:
    """For a caller without rights, who owns the folder of the store."""
    from toolkit.containers.images import read_lock

    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 1234, 5678)
    options = ("--user", "1234:5678", "-v", f"{folder}:/data", "-e", "HF_HOME=/data/hf")
    pin = read_lock(image)["cpu"].image
    run = ("toolkit", "run", "/tmp/specs/toy.yaml", "--store", "/data/store")
    assert "report.html" in by_hand(root, os.environ["DOCKER_HOST"], *options, pin, *run)
    assert (folder / "store").stat().st_uid == 1234


def test_by_hand_on_the_gpu_that_is_named(
    image_on_engine_with_gpus: Path, engine_with_gpus: Any, root: Path
) -> None:
    from toolkit.containers.images import read_lock

    pin = read_lock(image_on_engine_with_gpus)["cpu"].image
    run = "toolkit run /tmp/specs/toy.yaml --store /tmp/store && env"
    message = by_hand(root, os.environ["DOCKER_HOST"], "--gpus", "device=5", pin, "sh", "-c", run)
    assert "NVIDIA_VISIBLE_DEVICES=5" in message
    assert "report.html" in message


def test_interrupting_a_run_ends_its_container(engine: Any, toolkit: Any, toy: Any) -> None:
    process = toolkit.start("run", slow_spec(toy), "--on", "docker")
    wait_for(lambda: running(engine))
    wait_for(lambda: list(toolkit.store.glob("runs/*/jobs/*")))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=180) == 130
    assert engine.containers.list(all=True) == []


def test_the_container_of_a_dead_run_is_removed_by_the_next(
    engine: Any, toolkit: Any, toy: Any
) -> None:
    process = toolkit.start("run", slow_spec(toy), "--on", "docker")
    container = wait_for(lambda: running(engine))[0]
    process.kill()
    process.wait()
    assert toolkit.run("run", slow_spec(toy), "--on", "docker").returncode == 0
    assert container.id not in {listed.id for listed in engine.containers.list(all=True)}


def test_containers_of_living_runs_and_of_other_machines_are_left_alone(
    engine: Any, image: Path
) -> None:
    from toolkit.containers.images import read_lock
    from toolkit_docker._leftovers import remove_leftovers

    pin = read_lock(image)["cpu"].image
    labels = {WORKER: "x", HOST: "elsewhere", PROCESS: "1", STARTED: "0"}
    container = engine.containers.create(pin, ["true"], labels=labels, network_mode="none")
    try:
        assert remove_leftovers(engine) == []
    finally:
        container.remove()


def test_an_image_that_was_removed_is_named_with_the_fix(
    engine: Any, toolkit: Any, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "images.yaml"
    id = "sha256:" + "0" * 64
    gone = {"image": id, "toolkit": "0", "requirements": "0", "base": "rootfs", "packages": id}
    lock.write_text(yaml.safe_dump({"cpu": gone}))
    monkeypatch.setenv("TOOLKIT_IMAGES", str(lock))
    result = toolkit.run("run", toy(), "--on", "docker")
    assert result.returncode == 2
    assert "is not on this engine" in result.stderr
    assert "toolkit images build" in result.stderr


@pytest.fixture
def own_engine(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The engine with GPUs, and the script that starts it again: a test may kill it."""
    host = os.environ.get("TOOLKIT_TEST_ENGINE_GPU")
    if host is None:
        pytest.skip("no engine of the tests' own (TOOLKIT_TEST_ENGINE_GPU)")
    folder = host.removeprefix("unix://").removesuffix("/docker.sock")
    yield host, folder
    if not Path(folder, "docker.pid").exists():
        subprocess.run(["bash", root / "containers" / "engine.sh", "up", folder, "gpu"], check=True)


@pytest.mark.usefixtures("image_on_engine_with_gpus")
def test_an_engine_killed_in_the_middle_loses_no_step(
    own_engine: tuple[str, str], toolkit: Any, toy: Any, root: Path, local_tables: Any
) -> None:
    host, folder = own_engine
    process = toolkit.start("run", slow_spec(toy), "--on", "docker", DOCKER_HOST=host)
    wait_for(lambda: list(toolkit.store.glob("runs/*/jobs/*")))
    pid = int(Path(folder, "docker.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=300) in (2, 3)
    assert "No container engine answers" in process.stderr.read()
    script = root / "containers" / "engine.sh"
    subprocess.run(["bash", script, "up", folder, "gpu"], check=True)
    result = toolkit.run("run", slow_spec(toy), "--on", "docker", DOCKER_HOST=host)
    assert result.returncode == 0, result.stderr
    assert fingerprint(toolkit.store) == local_tables(slow_spec(toy)).fingerprint
