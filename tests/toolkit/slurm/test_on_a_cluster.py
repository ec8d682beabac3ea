"""Runs on a Slurm cluster of one machine: `cluster.sh up FOLDER`, then SLURM_CONF says where."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit_store import open_store

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(300),
    pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="SLURM_CONF names no cluster"),
]


@pytest.fixture
def spec(toy) -> Callable[..., Path]:
    """Writes the toy spec for the cluster."""

    def write(seconds: float = 0.3, n: int = 24, **params: object) -> Path:
        path = toy(n=n, features={"seconds": seconds, "batch": 3})
        settings = {"workers": 3, "poll": 1, "leave": 1, **params}
        words = ", ".join(f"{name}: {value}" for name, value in settings.items())
        path.write_text(path.read_text() + f"executors: {{slurm: {{{words}}}}}\n")
        return path

    return write


@pytest.fixture
def check(toolkit, local_tables) -> Callable[[Path], None]:
    """Checks that the tables are those of a local run, and that the queue is empty."""

    def compare(path: Path) -> None:
        keys, fingerprint = local_tables(path)
        store = open_store(toolkit.store)
        assert store.fingerprint(keys) == fingerprint
        assert {row.key for row in store.steps()} == set(keys)
        assert queue(toolkit) == []

    return compare


def queue(toolkit) -> list[str]:
    """The tasks of the test's run that have not ended, as `JOB_TASK STATE`."""
    folders = list((toolkit.store / "runs").glob("*/workers/slurm"))
    if not folders:
        return []
    script = (folders[0] / "task.sh").read_text()
    name = next(line for line in script.splitlines() if "--job-name=" in line).split("=")[1]
    words = ["squeue", "--me", "--array", "--noheader", f"--name={name}", "--format=%i %T"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def until(toolkit, text: str, count: int = 1) -> None:
    """Wait until the run's event log has a text so often."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        logs = (toolkit.store / "runs").glob("*/events.jsonl")
        if sum(log.read_text().count(text) for log in logs) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} x {text} in the log")


def until_published(toolkit, after: float) -> None:
    """Wait until a task has published a step that it finished after a moment of the clock."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        results = toolkit.store.glob("runs/*/jobs/[!.]*/done.json")
        if any(path.stat().st_mtime > after for path in results):
            return
        time.sleep(0.1)
    raise AssertionError("no task published a step")


def running(toolkit) -> str:
    """A task that is running."""
    return next(line.split()[0] for line in queue(toolkit) if line.endswith("RUNNING"))


def test_the_tables_are_those_of_a_local_run(toolkit, spec, check):
    path = spec(seconds=0.05, workers=5)
    done = toolkit.run("run", path, "--on", "slurm")
    assert done.returncode == 0, done.stderr
    check(path)


def test_a_requeued_task_costs_its_step_alone(toolkit, spec, check):
    path = spec()
    process = toolkit.start("run", path, "--on", "slurm")
    until(toolkit, '"step_started"', 3)
    subprocess.run(["scontrol", "requeue", running(toolkit)], check=True)
    assert process.wait(timeout=200) == 0, process.communicate()
    check(path)


def test_a_lost_task_is_replaced(toolkit, spec, check):
    path = spec()
    process = toolkit.start("run", path, "--on", "slurm")
    until(toolkit, '"step_started"', 3)
    subprocess.run(["scancel", "--signal=KILL", "--full", running(toolkit)], check=True)
    assert process.wait(timeout=200) == 0, process.communicate()
    check(path)


def test_a_killed_host_is_issued_again(toolkit, spec, check):
    """Tasks finish the step in hand without a host, and the next host takes it over."""
    path = spec(seconds=0.5)
    process = toolkit.start("run", path, "--on", "slurm")
    until(toolkit, '"step_done"', 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = time.time()
    tasks = queue(toolkit)
    assert tasks, "the tasks outlive their host"
    until_published(toolkit, killed_at)
    again = toolkit.start("run", path, "--on", "slurm")
    assert again.wait(timeout=200) == 0, again.communicate()
    until(toolkit, '"step_recovered"')
    check(path)


def test_ctrl_c_leaves_no_task(toolkit, spec, check):
    path = spec(seconds=0.2, n=60, workers=9)
    process = toolkit.start("run", path, "--on", "slurm")
    until(toolkit, '"step_done"', 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=100) == 130
    assert queue(toolkit) == []
    assert toolkit.run("run", path, "--on", "slurm").returncode == 0
    check(path)


def test_a_task_leaves_before_its_time_limit(toolkit, spec, check):
    """Slurm counts limits in minutes; the warning comes so long before the end that it comes at
    once. One worker: tasks that begin together would leave together, each with the same step.
    """
    path = spec(seconds=4, n=12, workers=1, time='"00:01:00"', leave=50)
    done = toolkit.run("run", path, "--on", "slurm")
    assert done.returncode == 0, done.stderr
    logs = (toolkit.store / "runs").glob("*/workers/slurm/*/*.out")
    assert any("left before the time limit" in log.read_text() for log in logs)
    check(path)


def test_no_secret_is_in_the_files(toolkit, spec):
    path = spec(seconds=0)
    path.write_text(path.read_text().replace("salt: 1\n", "salt: ${env:LICENCE}\n"))
    done = toolkit.run("run", path, "--on", "slurm", LICENCE="987654321")
    assert done.returncode == 0, done.stderr
    files = [file for file in toolkit.store.glob("runs/*/workers/**/*") if file.is_file()]
    assert files
    assert not [file for file in files if b"987654321" in file.read_bytes()]


def test_a_refused_script_is_reported(toolkit, spec):
    path = spec(partition="nowhere")
    done = toolkit.run("run", path, "--on", "slurm")
    assert done.returncode == 2
    assert "partition" in done.stderr
    assert queue(toolkit) == []
