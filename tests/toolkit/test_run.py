"""Runs through the real command: reuse, reasons, continuing, retries, interrupts, two at once, and
what a user reads.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toolkit as package
from toolkit._plan.versions import torch_cuda
from toolkit.executors.gpus import driver_cuda
from toolkit_store import open_store
from toolkit_store.interchange import import_run, run_tables


def events(store: Path) -> list[dict[str, Any]]:
    """Every event of the only run in the store."""
    (path,) = (store / "runs").glob("*/events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(store: Path, event: str, seconds: float = 60) -> dict[str, Any]:
    """The first event of that name, once it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in (store / "runs").glob("*/events.jsonl"):
            results = [
                json.loads(line) for line in path.read_text().splitlines() if f'"{event}"' in line
            ]
            if results:
                return results[0]
        time.sleep(0.05)
    raise AssertionError(f"no {event} within {seconds} s")


@pytest.mark.slow
def test_a_run_ends_in_a_report_whose_path_is_the_last_line(toolkit, toy):
    result = toolkit.run("run", toy())
    assert result.returncode == 0, result.stderr
    report = Path(result.stdout.splitlines()[-1])
    assert report.name == "report.html"
    assert report.parent.parent.parent == toolkit.store
    assert "stage features (extract.hash): 4 steps, 0 reused, 4 to compute" in result.stderr


def test_the_same_command_again_computes_nothing(toolkit, toy):
    toolkit.run("run", toy())
    result = toolkit.run("run", toy())
    assert result.returncode == 0
    assert "stage features (extract.hash): 4 steps, 4 reused, 0 to compute" in result.stderr
    assert not [event for event in events(toolkit.store)[-9:] if event["event"] == "worker_ready"]


@pytest.mark.slow
def test_a_report_of_an_unfinished_run_is_not_kept_as_that_of_the_finished_one(toolkit, toy):
    report = Path(toolkit.run("run", toy()).stdout.splitlines()[-1])
    store = open_store(toolkit.store)
    with store.writer():
        store.record_run(run=report.parent.name, name="toy", state="interrupted", steps=[])
    report.write_text("made while the run was under way")
    assert toolkit.run("run", toy()).returncode == 0
    assert "<html" in report.read_text()
    report.write_text("whole")
    toolkit.run("run", toy())
    assert report.read_text() == "whole"


@pytest.mark.slow
def test_a_change_recomputes_what_it_touches_and_says_why(toolkit, toy):
    toolkit.run("run", toy())
    plan = toolkit.run("plan", toy(), "--set", "stages.features.with.active=4")
    rows = {line.split()[0]: line for line in plan.stdout.splitlines() if line}
    assert "changed: params.active 3 -> 4" in rows["features"]
    assert rows["samples"].split()[-3:] == ["1", "-", "-"]
    assert "waits for features" in rows["groups"]


@pytest.mark.slow
def test_more_samples_reuse_the_steps_of_the_same_content(toolkit, toy):
    toolkit.run("run", toy(n=12))
    result = toolkit.run("run", toy(n=24))
    assert "stage features (extract.hash): 4 steps, 2 reused, 2 to compute" in result.stderr


@pytest.mark.slow
def test_how_many_samples_share_a_step_changes_no_result(toolkit, toy):
    prints = set()
    for batch in (6, 5, 24):
        toolkit.run("run", toy(features={"batch": batch}))
        store = open_store(toolkit.store, read_only=True)
        keys = max(store.run_states(), key=lambda row: row.at).steps
        result = store.fingerprint(keys)
        prints.add((result["activations"], result["features"]))
    assert len(prints) == 1


@pytest.mark.slow
def test_a_run_is_repeated_by_its_id_after_the_spec_is_gone(toolkit, toy):
    path = toy()
    run = json.loads(toolkit.run("check", path, "--json").stdout)["run"]
    toolkit.run("run", path)
    path.unlink()
    result = toolkit.run("run", run)
    assert result.returncode == 0, result.stderr
    assert "4 reused" in result.stderr


@pytest.mark.slow
def test_samples_may_come_from_a_stage_of_another_experiment(toolkit, toy, tmp_path):
    toy("first.yaml")
    second = tmp_path / "second.yaml"
    (tmp_path / "plug.py").write_text(_DRAWS)
    second.write_text(
        "version: 1\n"
        "name: second\n"
        "samples: {uses: again, from: {spec: first.yaml, stage: groups}}\n"
        "stages:\n"
        "  - {id: more, uses: extract.hash}\n"
        "model: {uses: toy}\n"
        "saes: {uses: toy}\n"
    )
    result = toolkit.run("run", second, "--plugin", tmp_path / "plug.py")
    assert result.returncode == 0, result.stderr
    for stage in ("toy/samples", "toy/features", "toy/groups", "samples", "more"):
        assert f"stage {stage} " in result.stderr


@pytest.mark.slow
def test_a_stage_may_need_a_stage_of_another_experiment(toolkit, toy, tmp_path):
    """Its tables are those of the other experiment, which is not computed again, and what they hold
    enters the key.
    """
    first = toy("first.yaml")
    plugin = ("--plugin", tmp_path / "plug.py")
    (tmp_path / "plug.py").write_text(_COUNTS)
    second = tmp_path / "second.yaml"
    second.write_text(
        "version: 1\n"
        "name: second\n"
        "stages:\n"
        "  - {id: count, uses: measure.features, needs: [{spec: first.yaml, stage: groups}]}\n"
    )
    assert toolkit.run("run", first).returncode == 0
    result = toolkit.run("run", second, *plugin)
    assert result.returncode == 0, result.stderr
    assert "stage toy/groups (compare.means): 1 step, 1 reused, 0 to compute" in result.stderr
    assert "stage count (measure.features): 1 step, 0 reused, 1 to compute" in result.stderr
    toy("first.yaml", n=20)
    changed = toolkit.run("plan", second, *plugin).stdout
    assert "waits for toy/groups" in changed


_COUNTS = """
from toolkit import hookimpl
from toolkit.parts import StagePart

def count(work):
    yield "features", work.inputs.read("features").slice(0, 1)

@hookimpl
def toolkit_parts():
    tables = ("features",)
    yield StagePart(name="measure.features", help="x", run=count, reads=tables, writes=tables)
"""

_DRAWS = """
import hashlib
import pyarrow as pa
from toolkit import hookimpl
from toolkit.parts import SourcePart
from toolkit.tables import arrow_schema

def again(work):
    ids = [f"f{n}" for n in sorted(set(work.inputs.read("features").column("feature").to_pylist()))]
    hashes = [hashlib.sha256(i.encode()).hexdigest() for i in ids]
    empty = [[] for _ in ids]
    columns = [ids, ids, ids, ids, empty, empty, empty, hashes, [None] * len(ids)]
    yield "samples", pa.table(columns, schema=arrow_schema("samples"))

@hookimpl
def toolkit_parts():
    yield SourcePart(
        name="again", help="A sample for each feature.", run=again, reads=("features",)
    )
"""


def test_a_failing_step_stops_the_run_and_keeps_the_others(toolkit, toy):
    result = toolkit.run("run", toy(features={"fail_on": "number 13"}))
    assert result.returncode == 3
    assert (
        "stage 'features', step 2 (extract.hash): sample 'number 13': asked to fail here"
        in result.stderr
    )
    assert "Traceback" not in result.stderr
    again = toolkit.run("run", toy())
    assert (
        "stage features (extract.hash): 4 steps, 0 reused" in again.stderr
    )  # fail_on is a param: another key


def test_a_worker_that_dies_is_replaced_and_its_step_retried(toolkit, toy, tmp_path):
    crash = tmp_path / "crash"
    crash.touch()
    result = toolkit.run("run", toy(features={"crash_once": str(crash)}))
    assert result.returncode == 0, result.stderr
    assert (
        "died (killed by signal 9; out of memory?); trying again on a new worker (2 of 3)"
        in result.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(("fits", "attempts"), [(8, 2), (4, 3)])
def test_a_step_that_runs_out_of_memory_is_tried_again_with_smaller_batches(
    toolkit, toy, tmp_path, fits, attempts
):
    (tmp_path / "hungry.py").write_text(HUNGRY.replace("FITS", str(fits)))
    spec = toy()
    spec.write_text(spec.read_text().replace("extract.hash", "extract.hungry"))
    result = toolkit.run("run", spec, "--plugin", tmp_path / "hungry.py")
    assert result.returncode == 0, result.stderr
    assert f"out of memory; its batches are halved: rows {fits} on local-0" in result.stderr
    retried = [event for event in events(toolkit.store) if event["event"].startswith("step_ret")]
    assert [event["attempt"] for event in retried] == list(range(2, attempts + 1))
    (plans,) = (toolkit.store / "runs").glob("*/batches.json")
    assert json.loads(plans.read_text()) == {"features": {"rows": fits}}


def test_a_step_that_fits_in_no_batch_fails_and_says_so(toolkit, toy, tmp_path):
    (tmp_path / "hungry.py").write_text(HUNGRY.replace("FITS", "0"))
    spec = toy()
    spec.write_text(spec.read_text().replace("extract.hash", "extract.hungry"))
    result = toolkit.run("run", spec, "--plugin", tmp_path / "hungry.py")
    assert result.returncode == 3
    assert (
        "step 0 (extract.hungry): MemoryError: 4 rows do not fit (3 attempts, each with smaller "
        "batches)" in result.stderr
    )


HUNGRY = """
from toolkit import hookimpl
from toolkit.parts import Estimates, StagePart, Steps
from toolkit_toy._parts import Hash, extract_hash

def run(work):
    if work.batch["rows"] > FITS:
        raise MemoryError(f"{work.batch['rows']} rows do not fit")
    yield from extract_hash(work)

def batch_plan(params, load, free, device):
    return {"rows": 16}

@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.hungry", help="Takes what it gets.", params=Hash, run=run,
                    reads=("samples",), writes=("activations", "spaces"), steps=Steps(size="batch"),
                    uses_model=True, uses_saes=True, estimates=Estimates(batch_plan=batch_plan))
"""


@pytest.mark.slow
def test_ctrl_c_once_finishes_the_step_in_flight_and_says_how_to_continue(toolkit, toy):
    process = toolkit.start("run", toy(features={"seconds": 0.2}))
    wait_for(toolkit.store, "step_started")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "in flight; Ctrl-C again stops at once" in err
    run = next(iter((toolkit.store / "runs").iterdir())).name
    assert re.search(rf"steps? (is|are) safe\. Continue with: toolkit run {run}", err)
    assert toolkit.run("run", run).returncode == 0


def test_ctrl_c_twice_stops_at_once_and_nothing_is_lost(toolkit, toy):
    process = toolkit.start("run", toy(features={"hang_seconds": 60, "batch": 24}))
    wait_for(toolkit.store, "step_done")
    time.sleep(0.5)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert open_store(toolkit.store).orphans() == {}


@pytest.mark.slow
def test_a_silent_worker_is_reported_with_phase_and_stack_and_not_killed(toolkit, toy):
    path = toy(features={"hang_seconds": 8, "batch": 24})
    result = toolkit.run("run", path, TOOLKIT_STALL_SECONDS="1")
    assert result.returncode == 0, result.stderr
    assert "in phase 'compute' of features[0] (slow, or stuck; nothing is killed)" in result.stderr
    assert "time.sleep(params.hang_seconds)" in result.stderr


@pytest.mark.slow
def test_a_second_run_of_the_same_spec_waits_and_computes_nothing_twice(toolkit, toy):
    path = toy(features={"seconds": 0.2})
    first = toolkit.start("run", path)
    wait_for(toolkit.store, "step_started")
    second = toolkit.run("run", path)
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert f"is being computed by process {first.pid} on " in second.stderr
    done = [event["key"] for event in events(toolkit.store) if event["event"] == "step_done"]
    assert len(done) == len(set(done)) == 6


@pytest.mark.slow
def test_several_workers_give_the_same_tables_as_one(toolkit, toy):
    toolkit.run("run", toy())
    keys = open_store(toolkit.store).run_states()[0].steps
    fingerprint = open_store(toolkit.store).fingerprint(keys)
    toolkit.store = toolkit.store.parent / "other"
    result = toolkit.run("run", toy(), "--set", "executors.local.workers=2")
    assert result.returncode == 0, result.stderr
    assert open_store(toolkit.store).fingerprint(keys) == fingerprint


def test_the_event_stream_is_json_on_stdout(toolkit, toy):
    result = toolkit.run("run", toy(), "--json")
    names = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert names[0] == "run_started"
    assert names[-2:] == ["run_done", "report_written"]


@pytest.mark.slow
def test_a_dead_drivers_workers_end_with_it(toolkit, toy):
    process = toolkit.start("run", toy(features={"hang_seconds": 60}))
    worker = wait_for(toolkit.store, "worker_ready")["pid"]
    process.kill()
    end = time.monotonic() + 10
    while (
        Path(f"/proc/{worker}").exists()
        and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]
    ):
        assert time.monotonic() < end, "the worker lives on"
        time.sleep(0.1)


def test_a_worker_of_another_version_is_refused(toolkit, toy, tmp_path):
    (tmp_path / "other.py").write_text(_OTHER)
    result = toolkit.run("run", toy(), "--plugin", tmp_path / "other.py", "--on", "other")
    assert result.returncode == 2
    assert (
        f"toolkit is 0.0.1 there and {package.__version__} here. Install the same version on both "
        "sides" in result.stderr
    )


_OTHER = """
import json, sys
from toolkit import hookimpl
from toolkit.executors.processes import PipedWorker
from toolkit.parts import ExecutorPart

HELLO = '''
import json, sys
sys.stdin.readline()
hello = {"event": "hello", "pid": 1, "host": "here", "versions": {"toolkit": "0.0.1"}}
print(json.dumps(hello), flush=True)
sys.stdin.read()
'''

def start(params, request):
    import os
    log = request.folder / "w.log"
    return PipedWorker(request.name, [sys.executable, "-c", HELLO], log, os.environ)

@hookimpl
def toolkit_parts():
    yield ExecutorPart(name="other", help="Old workers.", start=start)
"""


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nothing.yaml"], 2, "nothing.yaml"),
        (
            ["{spec}", "--set", "stages.features.uses=extract.hsh"],
            2,
            "There is no stage part 'extract.hsh'. Did you mean 'extract.hash'?",
        ),
        (["{spec}", "--set", "stages.features.with.widht=3"], 2, "Did you mean 'width'?"),
        (["{spec}", "--set", "stages.features.with.width=wide"], 2, "stages.0.with.width"),
        (
            ["{spec}", "--set", "stages.groups.needs=[]"],
            2,
            "reads table 'activations'. Add one of these to its needs: features.",
        ),
        (["{spec}", "--on", "moon"], 2, "--on moon: There is no executor 'moon'."),
        (["{spec}", "--gpu", "one"], 2, "--gpu one: write physical indices or UUIDs"),
        (
            ["{spec}", "--set", "stages.groups.with.by=colour"],
            3,
            "by: no sample has metadata 'colour'. The samples have: group.",
        ),
        (["{spec}", "--plugin", "gone.py"], 2, "--plugin gone.py: cannot be read"),
    ],
)
def test_wrong_input_gets_one_clear_message(toolkit, toy: Callable[..., Path], args, code, message):
    spec = toy()
    result = toolkit.run("run", *[str(spec) if arg == "{spec}" else arg for arg in args])
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_foreign_folder_is_not_taken_for_a_store(toolkit, toy):
    toolkit.store.mkdir()
    (toolkit.store / "thesis.tex").write_text("mine")
    result = toolkit.run("run", toy())
    assert result.returncode == 2
    assert "thesis.tex" in result.stderr


@pytest.mark.slow
def test_a_newer_store_is_refused(toolkit, toy):
    toolkit.run("run", toy())
    (toolkit.store / "toolkit-store.json").write_text(
        json.dumps({"format": 99, "made_by": "sae-toolkit 9", "made_at": "later"})
    )
    result = toolkit.run("run", toy())
    assert result.returncode == 2
    assert "99" in result.stderr
    assert "pip install -U sae-toolkit" in result.stderr


@pytest.mark.slow
def test_env_values_are_used_and_not_recorded(toolkit, toy):
    path = toy()
    path.write_text(path.read_text().replace("salt: 1", "salt: ${env:TOY_SALT}"))
    missing = toolkit.run("check", path)
    assert "TOY_SALT" in missing.stderr
    result = toolkit.run("run", path, TOY_SALT="31337")
    assert result.returncode == 0, result.stderr
    (manifest,) = (toolkit.store / "runs").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["spec"]["model"]["with"]["salt"] == "${env:TOY_SALT}"


@pytest.mark.slow
def test_a_worker_keeps_model_and_saes_loaded_over_its_steps(toolkit, toy):
    toolkit.run("run", toy())
    loads = [
        event["phase"]
        for event in events(toolkit.store)
        if event["event"] == "phase" and event["phase"].startswith("load")
    ]
    assert loads == ["load model", "load sae"]


@pytest.mark.slow
def test_a_gpu_is_passed_by_uuid_checked_and_recorded(toolkit, toy, nvidia_smi):
    path = nvidia_smi(6)
    result = toolkit.run("run", toy(), "--gpu", "5", CUDA_VISIBLE_DEVICES="4,5", PATH=path)
    assert result.returncode == 0, result.stderr
    ready = wait_for(toolkit.store, "worker_ready")
    assert [gpu["uuid"] for gpu in ready["gpus"]] == ["GPU-uuid-5"]
    assert ready["torch_cuda"] == torch_cuda()
    (manifest,) = (toolkit.store / "runs").glob("*/manifest.json")
    (pool,) = json.loads(manifest.read_text())["executors"]
    assert pool["gpus"][0] == {
        "index": 5,
        "uuid": "GPU-uuid-5",
        "pci": "00000000:05:00.0",
        "name": "Test GPU",
        "driver": "999.1",
        "cuda": driver_cuda(),
        "total_bytes": 80 << 30,
    }


@pytest.mark.slow
def test_several_gpus_have_a_worker_each_and_leave_the_tables_of_one(
    toolkit, toy, tmp_path, nvidia_smi
):
    path = toy(features={"batch": 3, "seconds": 0.5})
    result = toolkit.run("run", path, "--gpu", "2,5,6,7", PATH=nvidia_smi(8))
    assert result.returncode == 0, result.stderr
    ready = {
        event["worker"]: [gpu["uuid"] for gpu in event["gpus"]]
        for event in events(toolkit.store)
        if event["event"] == "worker_ready"
    }
    assert sorted(ready.values()) == [[f"GPU-uuid-{index}"] for index in (2, 5, 6, 7)]
    elsewhere = tmp_path / "one"
    assert toolkit.run("run", path, TOOLKIT_STORE=str(elsewhere)).returncode == 0
    alone = open_store(elsewhere)
    keys = alone.run_states()[0].steps
    assert open_store(toolkit.store).fingerprint(keys) == alone.fingerprint(keys)


def test_a_worker_that_sees_another_gpu_stops_the_run(toolkit, toy, tmp_path, nvidia_smi):
    (tmp_path / "blind.py").write_text(_BLIND)
    args = ("run", toy(), "--plugin", tmp_path / "blind.py", "--on", "blind", "--gpu", "1")
    result = toolkit.run(*args, PATH=nvidia_smi(2))
    assert result.returncode == 2
    assert (
        "blind-0 should have 1 (Test GPU, GPU-uuid-1) at PCI 00000000:01:00.0, but sees 0 (Test GPU"
        in result.stderr
    )


_BLIND = """
import os, sys
from toolkit import hookimpl
from toolkit.executors.processes import PipedWorker
from toolkit.parts import ExecutorPart

def start(params, request):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    words = [sys.executable, "-m", "toolkit.worker"]
    return PipedWorker(request.name, words, request.folder / "w.log", env)

@hookimpl
def toolkit_parts():
    yield ExecutorPart(name="blind", help="Passes on the wrong GPU.", start=start)
"""


def test_gpus_of_the_spec_are_honoured(toolkit, toy, nvidia_smi):
    gpus = ("--set", "executors.local.gpus=[0, 2]", "--dry-run")
    result = toolkit.run("run", toy(), *gpus, PATH=nvidia_smi(3))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "CUDA_VISIBLE_DEVICES=GPU-uuid-0",
        "CUDA_VISIBLE_DEVICES=GPU-uuid-2",
    ]
    assert not toolkit.store.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--gpu", "5"), "--gpu 5: there is no such GPU. This machine offers no GPU"),
        (("--set", "executors.local.gpus=[1]"), "--gpu 1: there is no such GPU."),
        (("--set", "executors.moon={}"), "executors.moon: There is no executor part 'moon'."),
        (("--set", "stages.groups.on=moon"), "stages.1.on: There is no executor 'moon'."),
    ],
)
def test_what_no_worker_can_have_is_refused(toolkit, toy, tmp_path, args, message):
    result = toolkit.run("run", toy(), *args, PATH=str(tmp_path))
    assert result.returncode == 2
    assert message in result.stderr
    assert not (toolkit.store / "runs").exists()


@pytest.mark.slow
def test_stages_of_one_run_may_have_different_executors(toolkit, toy, tmp_path):
    (tmp_path / "second.py").write_text(_SECOND)
    plugin = ("--plugin", tmp_path / "second.py")
    args = (*plugin, "--set", "stages.groups.on=second")
    result = toolkit.run("run", toy(), *args)
    assert result.returncode == 0, result.stderr
    started = [event for event in events(toolkit.store) if event["event"] == "step_started"]
    workers = {event["stage"]: event["worker"] for event in started}
    assert workers == {"samples": "local-0", "features": "local-0", "groups": "second-0"}
    again = toolkit.run("run", toy(), *plugin)
    assert "stage groups (compare.means): 1 step, 1 reused" in again.stderr, "the same run"
    assert len(list((toolkit.store / "runs").iterdir())) == 1


_SECOND = """
import os, sys
from toolkit import hookimpl
from toolkit.executors.processes import PipedWorker
from toolkit.parts import ExecutorPart

def start(params, request):
    words = [sys.executable, "-m", "toolkit.worker"]
    return PipedWorker(request.name, words, request.folder / "w.log", os.environ)

@hookimpl
def toolkit_parts():
    yield ExecutorPart(name="second", help="Other processes.", start=start)
"""


@pytest.mark.slow
def test_a_fact_that_several_steps_state_is_read_once(toolkit, toy):
    toolkit.run("run", toy())
    store = open_store(toolkit.store)
    assert store.read("spaces", store.run_states()[0].steps).num_rows == 1


@pytest.mark.slow
def test_two_stages_that_ask_for_the_same_are_computed_once(toolkit, toy):
    path = toy()
    twin = "stages:\n- {id: twin, uses: extract.hash, with: {width: 32, active: 3, batch: 6}}\n"
    path.write_text(path.read_text().replace("stages:\n", twin))
    result = toolkit.run("run", path, "--set", "executors.local.workers=2")
    assert result.returncode == 0, result.stderr
    done = [event["key"] for event in events(toolkit.store) if event["event"] == "step_done"]
    assert len(done) == len(set(done)) == 6
    assert "stage twin (extract.hash): 4 steps" in result.stderr


@pytest.mark.slow
def test_what_was_imported_stays_with_a_run_that_is_run_again_or_goes_on(toolkit, toy, tmp_path):
    toolkit.run("run", toy())
    store = open_store(toolkit.store)
    before = run_tables(store, store.run_states()[0].run)
    for name, index in (("mine", 1), ("yours", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text(f"[{index}]")
    (space,) = before.spaces
    assert (
        toolkit.run("store", "import", "lists", tmp_path / "mine", "--space", space).returncode == 0
    )
    with store.writer():
        store.record_run(
            run=before.id, name="toy", state="running", done=2, steps=store.run_states()[0].steps
        )
    import_run(store, "lists", tmp_path / "yours", run=before, space=space)
    assert [(row.state, row.done) for row in store.run_states()] == [("running", 2)], (
        "not the state that it had before"
    )
    again = toolkit.run("run", toy())
    assert again.returncode == 0, again.stderr
    shown = toolkit.run("query", "features", "--stage", "import.lists", "--json")
    assert sorted(row["address"] for row in json.loads(shown.stdout)) == ["0/1", "0/2"]
    (state,) = store.run_states()
    assert (state.state, state.done, len(state.steps)) == (
        "done",
        len(before.steps),
        len(before.steps) + 2,
    )
