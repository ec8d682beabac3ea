"""Runs on a Ray cluster of three nodes: tables of a local run, lost nodes, a killed driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolkit.test_run import HUNGRY
from toolkit_store import open_store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def run(toolkit, path: Path, nodes, *args: str) -> subprocess.CompletedProcess[str]:
    """A whole run on the cluster, in a process of its own."""
    process = toolkit.start("run", path, "--on", "ray", *args, **nodes.env)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.fixture
def check(toolkit, local_tables) -> Callable[..., None]:
    """Checks that the tables are those of a local run."""

    def compare(path: Path, *words: str) -> None:
        keys, fingerprint = local_tables(path, *words)
        store = open_store(toolkit.store)
        assert store.fingerprint(keys) == fingerprint
        assert {row.key for row in store.steps()} == set(keys)

    return compare


def events(toolkit) -> list[dict]:
    """The events of the run so far."""
    logs = (toolkit.store / "runs").glob("*/events.jsonl")
    lines = [line for log in logs for line in log.read_text().splitlines() if line.endswith("}")]
    return [json.loads(line) for line in lines]


def until(toolkit, name: str, count: int = 1, **fields: str) -> None:
    """Wait until there are so many events of a name, with these fields."""
    wanted = {"event": name, **fields}.items()
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline:
        if sum(all(event.get(k) == v for k, v in wanted) for event in events(toolkit)) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} x {name}: {events(toolkit)[-3:]}")


@pytest.mark.parametrize("where", ["object_store", "shared"])
def test_the_tables_are_those_of_a_local_run(toolkit, spec, three_nodes, check, where):
    path = spec(seconds=0.0, where=where)
    done = run(toolkit, path, three_nodes)
    assert done.returncode == 0, done.stderr
    check(path)
    address = three_nodes.env["RAY_ADDRESS"].encode()
    for file in toolkit.store.glob("runs/**/*"):
        assert not file.is_file() or address not in file.read_bytes(), file


EXP2 = (
    "limit.units=200",
    "stages.causes.with.points=12",
    "stages.causes.with.directions=40",
    "stages.causes.with.direction_points=4",
    "stages.causes.with.step=8",
    "stages.causes.with.candidates={top: 4, by: abs_d, per: layer, max_q: null, min_abs_d: 0}",
    "stages.joint.with.top=4",
    "stages.joint.with.points=6",
    "stages.gradients.with.points=8",
)
"""Games enough for both outcomes, and few of everything else."""


def study(root: Path, name: str, *sets: str) -> tuple[str | Path, ...]:
    """The words for a spec of the studies on the lab's model."""
    specs = root / "specs"
    pairs = (word for text in sets for word in ("--set", text))
    return (specs / f"{name}.yaml", "--overlay", specs / "lab.yaml", *pairs)


QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ACTORS = ("--on", "ray", "--set", "executors.ray={workers: 2, gpus: 1}")
HERE = ("--set", "executors.local={workers: 2, threads: 1}")
"""Two workers, as on Ray, of one thread, as in an actor: with more, last bits differ."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of local runs of studies: what one test has computed, another one reuses."""
    return tmp_path_factory.mktemp("studies") / "store"


def run_study(toolkit, words: tuple[str | Path, ...], *more: str, **env: str) -> None:
    """A whole run of a study."""
    process = toolkit.start("run", *words, *more, **QUIET, **env)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err


def run_both(toolkit, three_nodes, words: tuple[str | Path, ...], local: Path) -> None:
    """The run of a study on Ray, and the same in a local store."""
    run_study(toolkit, words, *ACTORS, **three_nodes.env)
    run_study(toolkit, words, *HERE, TOOLKIT_STORE=str(local))


def check_both(toolkit, local: Path, *names: str) -> set[tuple[str, str]]:
    """The tables on Ray are those of the local runs with these names; gives their experiments and
    stages.
    """
    here, store = open_store(local), open_store(toolkit.store)
    keys = [key for run in here.run_states() if run.name in names for key in run.steps]
    assert store.fingerprint(keys) == here.fingerprint(keys)
    return {(row.experiment, row.stage) for row in here.steps() if row.key in keys}


@pytest.mark.timeout(900)
def test_exp0_leaves_the_tables_of_a_local_run(toolkit, three_nodes, root, tmp_path):
    """All of its stages: the games in three designs, and the measures of all of them."""
    path = f"sinks.published.with.path={tmp_path / 'exp0'}"
    words, local = study(root, "exp0_llama", "limit.units=24", path), tmp_path / "local"
    run_both(toolkit, three_nodes, words, local)
    stages = {"play", "corrected", "matched_cap", "behaviour"}
    assert {("exp0_llama", stage) for stage in stages} <= check_both(toolkit, local, "exp0_llama")


def kill_driver(toolkit, three_nodes, words: tuple[str | Path, ...], stage: str) -> None:
    """Start the run of a study on Ray, and kill it when it has committed a step of a stage."""
    process = toolkit.start("run", *words, *ACTORS, **three_nodes.env, **QUIET)
    until(toolkit, "step_done", stage=stage)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def keys_of(toolkit, name: str, stage: str) -> set[str]:
    """The steps of a stage that have had an event of a name."""
    told = [event for event in events(toolkit) if event.get("event") == name]
    return {event["key"] for event in told if event["stage"] == stage}


@pytest.mark.timeout(900)
def test_the_studies_leave_the_tables_of_a_local_run(toolkit, three_nodes, root, studies, tmp_path):
    """Exp1 and exp2 share the games of exp0. The driver of exp1 is killed in the middle of
    `features`, and the same command takes over the steps that it had committed.
    """
    path = f"sinks.published.with.path={tmp_path / 'exp1'}"
    exp1 = study(root, "exp1_sae_l1_31", path)
    kill_driver(toolkit, three_nodes, exp1, "features")
    committed = keys_of(toolkit, "step_done", "features")
    run_both(toolkit, three_nodes, exp1, studies)
    assert committed <= keys_of(toolkit, "step_reused", "features")
    assert keys_of(toolkit, "step_done", "features") > committed
    run_both(toolkit, three_nodes, study(root, "exp2_patching_l1_31", *EXP2), studies)
    compared = check_both(toolkit, studies, "exp1_sae_l1_31", "exp2_patching_l1_31")
    experiments = {experiment for experiment, _ in compared}
    assert {"exp0_llama", "exp1_sae_l1_31", "exp2_patching_l1_31"} <= experiments


@pytest.mark.timeout(900)
def test_exp1_with_a_lost_node_leaves_the_tables_of_a_local_run(
    toolkit, three_nodes, root, studies, tmp_path
):
    """The node with both actors is lost while it computes a step of `features`, and another one
    comes.
    """
    words = study(root, "exp1_sae_l1_31", f"sinks.published.with.path={tmp_path / 'exp1'}")
    settings = "executors.ray={workers: 2, cpus: 0, resources: {spot: 1}}"
    spot = three_nodes.add(num_cpus=2, resources={"spot": 2})
    on_ray = ("--on", "ray", "--set", settings)
    process = toolkit.start("run", *words, *on_ray, **three_nodes.env, **QUIET)
    until(toolkit, "step_started", stage="features")
    three_nodes.lose(spot)
    other = three_nodes.add(num_cpus=2, resources={"spot": 2})
    out, err = process.communicate(timeout=600)
    three_nodes.lose(other)
    assert process.returncode == 0, out + err
    retried = [event["stage"] for event in events(toolkit) if event.get("event") == "step_retried"]
    assert "features" in retried
    run_study(toolkit, words, *HERE, TOOLKIT_STORE=str(studies))
    assert ("exp1_sae_l1_31", "features") in check_both(toolkit, studies, "exp1_sae_l1_31")


def test_two_actors_share_a_gpu(toolkit, spec, three_nodes, check):
    small = three_nodes.add(num_cpus=1, num_gpus=1, resources={"small": 1})
    path = spec(seconds=1.0, workers=2, gpus=0.5, resources={"small": 0.1})
    done = run(toolkit, path, three_nodes)
    three_nodes.lose(small)
    assert done.returncode == 0, done.stderr
    ready = [event for event in events(toolkit) if event.get("event") == "worker_ready"]
    assert {event["worker"] for event in ready} == {"ray-0", "ray-1"}
    check(path)


ZONE = """
import os
from toolkit import hookimpl
from toolkit.parts import StagePart, Steps
from toolkit_toy._parts import Hash, extract_hash

def run(work):
    print("zone:", os.environ.get("TEST_ZONE"), os.environ.get("TEST_RUNTIME"), flush=True)
    yield from extract_hash(work)

@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.zone", help="Says where it runs.", params=Hash, run=run,
                    reads=("samples",), writes=("activations", "spaces"), steps=Steps(size="batch"),
                    uses_model=True, uses_saes=True)
"""


def test_actors_run_on_the_labelled_node_in_the_runtime_env(
    toolkit, spec, three_nodes, check, tmp_path
):
    """Nodes without the label have room, too."""
    labelled = three_nodes.add(num_cpus=2, labels={"zone": "a"}, env_vars={"TEST_ZONE": "a"})
    runtime_env = {"env_vars": {"TEST_RUNTIME": "given"}}
    path = spec(seconds=0.2, workers=2, gpus=0, labels={"zone": "a"}, runtime_env=runtime_env)
    path.write_text(path.read_text().replace("extract.hash", "extract.zone"))
    plugin = tmp_path / "zone.py"
    plugin.write_text(ZONE)
    done = run(toolkit, path, three_nodes, "--plugin", str(plugin))
    three_nodes.lose(labelled)
    assert done.returncode == 0, done.stderr
    logs = "\n".join(log.read_text() for log in toolkit.store.glob("runs/*/workers/ray-*.log"))
    told = [line for line in logs.splitlines() if line.startswith("zone:")]
    assert len(told) == 8
    assert set(told) == {"zone: a given"}
    check(path, "--plugin", str(plugin))


def test_a_lost_node_costs_its_steps_alone(toolkit, spec, three_nodes, check):
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
    check(path)


def test_a_killed_driver_is_issued_again(toolkit, spec, three_nodes, check):
    path = spec(seconds=0.5)
    process = toolkit.start("run", path, "--on", "ray", **three_nodes.env)
    until(toolkit, "step_done", 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = run(toolkit, path, three_nodes)
    assert done.returncode == 0, done.stderr
    reused = [event for event in events(toolkit) if event.get("event") == "step_reused"]
    assert len(reused) >= 3
    check(path)


def test_ctrl_c_lets_the_actors_go(toolkit, spec, three_nodes, check):
    path = spec(seconds=0.5)
    process = toolkit.start("run", path, "--on", "ray", **three_nodes.env)
    until(toolkit, "step_done", 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, out + err
    done = run(toolkit, path, three_nodes)
    assert done.returncode == 0, done.stderr
    check(path)


def test_a_hanging_actor_is_reported_and_not_killed(toolkit, toy, three_nodes):
    path = toy(n=3, features={"batch": 3, "hang_seconds": 12})
    path.write_text(path.read_text() + "executors: {ray: {}}\n")
    env = {**three_nodes.env, "TOOLKIT_STALL_SECONDS": "4"}
    process = toolkit.start("run", path, "--on", "ray", **env)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    stalled = [event for event in events(toolkit) if event.get("event") == "stalled"]
    assert any("thread MainThread" in event["stack"] for event in stalled)
    assert not [event for event in events(toolkit) if event.get("event") == "step_retried"]


SLOW = """
import os, time
from toolkit import hookimpl
from toolkit.parts import StagePart, Steps
from toolkit_toy._parts import Hash, extract_hash

def run(work):
    time.sleep(6.0 if "TEST_SLOW_NODE" in os.environ else 0.0)
    yield from extract_hash(work)

@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.slow", help="Slow on a slow node.", params=Hash, run=run,
                    reads=("samples",), writes=("activations", "spaces"), steps=Steps(size="batch"),
                    uses_model=True, uses_saes=True)
"""


def test_a_slow_node_gets_fewer_steps(toolkit, spec, three_nodes, check, tmp_path):
    """No step waits for the slow node that another could take."""
    nodes = [
        three_nodes.add(num_cpus=1, resources={"pair": 1}, env_vars=env)
        for env in ({"TEST_SLOW_NODE": "1"}, None)
    ]
    path = spec(seconds=0.3, n=36, workers=2, gpus=0, cpus=0, resources={"pair": 1})
    path.write_text(path.read_text().replace("extract.hash", "extract.slow"))
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW)
    done = run(toolkit, path, three_nodes, "--plugin", str(plugin))
    for node in nodes:
        three_nodes.lose(node)
    assert done.returncode == 0, done.stderr
    took = Counter(
        event["worker"]
        for event in events(toolkit)
        if event.get("event") == "step_done" and event["stage"] == "features"
    )
    assert sum(took.values()) == 12
    assert max(took.values()) > 2 * min(took.values()), took
    check(path, "--plugin", str(plugin))


def test_a_node_out_of_memory_is_reported(toolkit, spec, three_nodes):
    """Ray's monitor ends the actors of a node that it holds to be full."""
    full = three_nodes.add(
        num_cpus=1,
        resources={"full": 1},
        env_vars={"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"},
    )
    path = spec(seconds=1.0, n=6, workers=1, gpus=0, cpus=0, resources={"full": 1})
    refused = run(toolkit, path, three_nodes)
    three_nodes.lose(full)
    assert refused.returncode == 3, refused.stderr
    assert "out of memory: its node ran low on memory, and Ray ended its actor" in refused.stderr


def test_a_step_that_runs_out_of_memory_is_tried_again_with_smaller_batches(
    toolkit, spec, three_nodes, tmp_path
):
    plugin = tmp_path / "hungry.py"
    plugin.write_text(HUNGRY.replace("FITS", "8"))
    path = spec(seconds=0.0, workers=1)
    path.write_text(path.read_text().replace("extract.hash", "extract.hungry"))
    done = run(toolkit, path, three_nodes, "--plugin", str(plugin))
    assert done.returncode == 0, done.stderr
    assert "out of memory; its batches are halved: rows 8 on ray-0" in done.stderr


def test_what_no_node_has_is_refused(toolkit, spec, three_nodes):
    done = run(toolkit, spec(gpus=16), three_nodes)
    assert done.returncode == 2
    assert "No node of the cluster can hold" in done.stderr
