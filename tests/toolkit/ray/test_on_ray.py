"""Runs on a Ray cluster of three nodes: tables of a local run, lost nodes, a killed driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit_store import open_store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture
def spec(toy) -> Callable[..., Path]:
    """Writes the toy spec for the cluster."""

    def write(seconds: float = 0.2, n: int = 24, **params: object) -> Path:
        path = toy(n=n, features={"seconds": seconds, "batch": 3})
        settings = {"workers": 3, "gpus": 1, **params}
        path.write_text(path.read_text() + f"executors: {json.dumps({'ray': settings})}\n")
        return path

    return write


def run(toolkit, path: Path, nodes, *args: str) -> subprocess.CompletedProcess[str]:
    """A whole run on the cluster, in a process of its own."""
    process = toolkit.start("run", path, "--on", "ray", *args, **nodes.env)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess([], process.returncode, out, err)


def check(toolkit, path: Path, *args: str) -> None:
    """The tables are those of a local run."""
    elsewhere = toolkit.store.parent / "local"
    assert toolkit.run("run", path, *args, TOOLKIT_STORE=str(elsewhere)).returncode == 0
    quiet, store = open_store(elsewhere), open_store(toolkit.store)
    keys = quiet.run_states()[0].steps
    assert store.fingerprint(keys) == quiet.fingerprint(keys)
    assert {row.key for row in store.steps()} == set(keys)


def events(toolkit) -> list[dict]:
    """The events of the run so far."""
    logs = (toolkit.store / "runs").glob("*/events.jsonl")
    lines = [line for log in logs for line in log.read_text().splitlines() if line.endswith("}")]
    return [json.loads(line) for line in lines]


def until(toolkit, name: str, count: int = 1) -> None:
    """Wait until there are so many events of a name."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if sum(event.get("event") == name for event in events(toolkit)) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} x {name}: {events(toolkit)[-3:]}")


@pytest.mark.parametrize("where", ["object_store", "shared"])
def test_the_tables_are_those_of_a_local_run(toolkit, spec, three_nodes, where):
    path = spec(seconds=0.0, where=where)
    done = run(toolkit, path, three_nodes)
    assert done.returncode == 0, done.stderr
    check(toolkit, path)
    address = three_nodes.env["RAY_ADDRESS"].encode()
    for file in toolkit.store.glob("runs/**/*"):
        assert not file.is_file() or address not in file.read_bytes(), file


def test_two_actors_share_a_gpu(toolkit, spec, three_nodes):
    small = three_nodes.add(num_cpus=1, num_gpus=1, resources={"small": 1})
    path = spec(seconds=1.0, workers=2, gpus=0.5, resources={"small": 0.1})
    done = run(toolkit, path, three_nodes)
    three_nodes.lose(small)
    assert done.returncode == 0, done.stderr
    ready = [event for event in events(toolkit) if event.get("event") == "worker_ready"]
    assert {event["worker"] for event in ready} == {"ray-0", "ray-1"}
    check(toolkit, path)


def test_a_lost_node_costs_its_steps_alone(toolkit, spec, three_nodes):
    spot = three_nodes.add(num_cpus=2, num_gpus=2, resources={"spot": 2})
    path = spec(seconds=1.0, workers=2, gpus=0, cpus=0, resources={"spot": 1})
    process = toolkit.start("run", path, "--on", "ray", **three_nodes.env)
    until(toolkit, "step_done", 2)
    three_nodes.lose(spot)
    other = three_nodes.add(num_cpus=2, num_gpus=2, resources={"spot": 2})
    out, err = process.communicate(timeout=300)
    three_nodes.lose(other)
    assert process.returncode == 0, out + err
    retried = [event for event in events(toolkit) if event.get("event") == "step_retried"]
    assert 1 <= len(retried) <= 2
    check(toolkit, path)


def test_a_killed_driver_is_issued_again(toolkit, spec, three_nodes):
    path = spec(seconds=0.5)
    process = toolkit.start("run", path, "--on", "ray", **three_nodes.env)
    until(toolkit, "step_done", 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = run(toolkit, path, three_nodes)
    assert done.returncode == 0, done.stderr
    reused = [event for event in events(toolkit) if event.get("event") == "step_reused"]
    assert len(reused) >= 3
    check(toolkit, path)


def test_ctrl_c_lets_the_actors_go(toolkit, spec, three_nodes):
    path = spec(seconds=0.5)
    process = toolkit.start("run", path, "--on", "ray", **three_nodes.env)
    until(toolkit, "step_done", 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, out + err
    done = run(toolkit, path, three_nodes)
    assert done.returncode == 0, done.stderr
    check(toolkit, path)


def test_a_hanging_actor_is_told_and_not_killed(toolkit, toy, three_nodes):
    path = toy(n=3, features={"batch": 3, "hang_seconds": 12})
    path.write_text(path.read_text() + "executors: {ray: {}}\n")
    env = {**three_nodes.env, "TOOLKIT_STALL_SECONDS": "4"}
    process = toolkit.start("run", path, "--on", "ray", **env)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    stalled = [event for event in events(toolkit) if event.get("event") == "stalled"]
    assert any("thread MainThread" in event["stack"] for event in stalled)
    assert not [event for event in events(toolkit) if event.get("event") == "step_retried"]


def test_what_no_node_has_is_refused(toolkit, spec, three_nodes):
    done = run(toolkit, spec(gpus=16), three_nodes)
    assert done.returncode == 2
    assert "No node of the cluster can hold" in done.stderr


def test_a_ray_of_its_own(toolkit, spec, three_nodes):
    """Without RAY_ADDRESS Ray starts on this machine, listens on loopback and leaves nothing."""
    path = spec(seconds=0.0, workers=1, gpus=0)
    process = toolkit.start("run", path, "--on", "ray")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    check(toolkit, path)
