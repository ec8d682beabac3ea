"""The executor `slurm` without a cluster: the script, the files, the seats, the queue's answers."""

from __future__ import annotations

import itertools
import json
import os
import stat
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import BadInput
from toolkit.executors.interface import WorkerRequest
from toolkit.executors.protocol import Failed, Phase, as_json
from toolkit.secrets import Secrets
from toolkit_slurm import _commands, _script
from toolkit_slurm._events import read_line
from toolkit_slurm._params import Slurm
from toolkit_slurm._seats import LineReader, Seat, Seats, append, read_message
from toolkit_slurm._session import holds_node, start_all
from toolkit_slurm.task import HostWatch, task_name


@pytest.fixture
def request_(tmp_path: Path) -> WorkerRequest:
    run = tmp_path / "store" / "runs" / "toy-1"
    return WorkerRequest(
        name="slurm-0",
        executor="slurm",
        folder=run / "workers",
        jobs=run / "jobs",
        inputs=run / "inputs",
        secrets={"LICENCE": "a long secret"},
    )


def seat(name: str) -> Seat:
    return Seat(name=name, worker="w", command=["true"], log="log", jobs="jobs")


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put stand-ins for Slurm's programs first on the PATH."""
    folder.mkdir(exist_ok=True)
    for name, body in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


# --- params and script ---


def test_the_script_asks_for_what_the_params_say(request_):
    params = Slurm(
        time="2-00:00",
        gpus=1,
        cpus=8,
        memory="64G",
        partition="gpu",
        account="lab",
        leave=300,
        sbatch={"constraint": "a100", "exclusive": ""},
        setup=("module load cuda",),
    )
    lines = _script.script(params, _script.seats_folder(request_)).splitlines()
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"requeue", "signal=B:USR1@300", "time=2-00:00", "gpus-per-task=1"} < options
    assert {"cpus-per-task=8", "mem=64G", "partition=gpu", "account=lab"} < options
    assert {"constraint=a100", "exclusive"} < options
    assert lines[0] == "#!/bin/bash"
    assert lines[-2] == "module load cuda"
    assert lines[-1].startswith("exec ")
    assert "-m toolkit_slurm.task" in lines[-1]


def test_a_value_with_a_blank_or_a_mark_is_quoted_as_sbatch_reads_it(request_):
    values = {"comment": """two "words" # \\""", "constraint": "a100|h200"}
    folder = _script.seats_folder(request_)
    script = _script.script(Slurm(partition="my gpus", sbatch=values), folder)
    assert r'''#SBATCH --comment="two \"words\" # \\"''' in script.splitlines()
    assert "#SBATCH --constraint=a100|h200" in script.splitlines()
    assert '#SBATCH --partition="my gpus"' in script.splitlines()


def test_the_folder_of_a_store_at_a_uri_is_no_pattern_of_sbatch(request_, tmp_path):
    """Its name has %3A and %2F; sbatch replaces %3A by the job's id, and %% by a percent sign."""
    run = tmp_path / "toolkit-runs@s3%3A%2F%2Fbucket" / "runs" / "toy-1"
    script = _script.script(
        Slurm(), _script.seats_folder(replace(request_, folder=run / "workers"))
    )
    output = next(line for line in script.splitlines() if "--output=" in line)
    assert "/toolkit-runs@s3%%3A%%2F%%2Fbucket/" in output
    assert output.endswith("/task-%A_%a.log")


def test_two_stores_with_the_same_run_have_jobs_of_different_names(request_, tmp_path):
    other = replace(request_, folder=tmp_path / "other" / "runs" / "toy-1" / "workers")
    names = {_script.job_name(_script.seats_folder(request)) for request in (request_, other)}
    assert len(names) == 2
    assert all(name.startswith("toolkit-toy-1-") for name in names)


def test_a_container_gets_the_folders_and_nothing_else(request_, tmp_path):
    sif = tmp_path / "image.sif"
    result = _script.seat_for(Slurm(sif=str(sif), gpus=1), request_, "slurm-0-0")
    words = result.command
    assert words[:2] == ["apptainer", "exec"]
    assert "--nv" in words
    assert words[-4:] == [str(sif), "python", "-m", "toolkit.worker"]
    assert result.folders[str(request_.jobs)] == "/toolkit/jobs"
    assert "a long secret" not in json.dumps(result.__dict__)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sbatch": {"--qos": "x"}}, "without dashes"),
        ({"sbatch": {"array": "0-3"}}, "and not array"),
        ({"sbatch": {"qos": "x\n#SBATCH --array=1"}}, "one line"),
        ({"sbatch": {"q": "x"}}, "long names"),
        ({"sbatch": {"two words": "x"}}, "long names"),
        ({"sbatch": {"": "x"}}, "long names"),
        ({"sbatch": {"time": "10"}}, "write 'time' beside"),
        ({"sbatch": {"mem": "1G"}}, "write 'memory' beside"),
        ({"partition": "x\n#SBATCH --array=1"}, "pattern"),
        ({"account": ""}, "at least 1"),
        ({"time": "60", "leave": 3600}, "'leave' is 3600 s and 'time' is 3600 s"),
        ({"time": "00:02:00"}, "would take no step"),
        ({"time": "0-1", "leave": 3600}, "'time' is 3600 s"),
        ({"time": "an hour"}, "pattern"),
        ({"memory": "lots"}, "pattern"),
        ({"workers": 0}, "greater than"),
    ],
)
def test_params_that_are_invalid_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        Slurm(**params)


@pytest.mark.parametrize("time", ["0", "3", "2:01", "00:02:01", "1-0", "1-00:00", "0-00:02:01"])
def test_a_task_that_leaves_after_its_start_is_not_refused(time):
    assert Slurm(time=time, leave=120).time == time


def test_a_dry_run_contacts_nothing(toolkit, toy, monkeypatch, tmp_path):
    spec = toy()
    spec.write_text(spec.read_text() + "executors: {slurm: {workers: 3}}\n")
    failing = "echo contacted >&2; exit 1"
    programs(tmp_path / "bin", monkeypatch, sbatch=failing, squeue=failing, scontrol=failing)
    done = toolkit.run("run", spec, "--on", "slurm", "--dry-run")
    assert done.returncode == 0
    assert "--array=0-2" in done.stdout
    assert "#SBATCH --requeue" in done.stdout
    assert not (toolkit.store / "runs").exists()


def test_without_slurm_the_run_says_so(toolkit, toy, monkeypatch, tmp_path):
    spec = toy()
    monkeypatch.setenv("PATH", str(tmp_path))
    done = toolkit.run("run", spec, "--on", "slurm")
    assert done.returncode == 2
    assert "this is not a login node" in done.stderr


# --- the queue ---


@given(st.integers(0, 5000), st.integers(0, 1001))
def test_arrays_stay_below_the_limit(tasks, limit):
    result = _commands.chunks(tasks, limit)
    assert sum(result) == tasks
    assert all(0 < count <= max(1, limit - 1) for count in result)


def test_the_queue_is_read(monkeypatch, tmp_path):
    lines = "7_0 RUNNING 0\n7_1 PENDING 2\n8_0 COMPLETED 0\n7_2 TIMEOUT 0"
    config = "Configuration data\nMaxArraySize            = 1001\nMaxDBDMsgs = 20"
    programs(
        tmp_path / "bin",
        monkeypatch,
        squeue=f"printf '{lines}'",
        scontrol=f'echo "{config}"',
    )
    tasks = _commands.tasks_named("x")
    assert sorted(tasks) == ["7_0", "7_1"]
    assert tasks["7_1"] == _commands.TaskState("PENDING", 2)
    assert _commands.max_array_size() == 1001
    assert holds_node("7_0.0", tasks)
    assert not holds_node("7_0.1", tasks), "another incarnation"
    assert not holds_node("7_1.1", tasks), "requeued, and waits"
    assert not holds_node("9_0.0", tasks), "not in the queue"


def test_a_refusal_of_sbatch_is_reported(monkeypatch, tmp_path):
    refusal = "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1"
    programs(tmp_path / "bin", monkeypatch, sbatch=refusal)
    with pytest.raises(BadInput, match=r"invalid partition.*executors\.large"):
        _commands.submit(tmp_path / "task.sh", 2, {}, "large")


def test_a_job_inherits_no_token(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("SOME_PASSWORD", "hf_x")
    programs(tmp_path / "bin", monkeypatch, sbatch=f"env > {tmp_path}/env; echo '12;cluster'")
    assert _commands.submit(tmp_path / "task.sh", 1, {"LICENCE": "it"}, "slurm") == "12"
    inherited = (tmp_path / "env").read_text()
    assert "hf_x" not in inherited
    assert "LICENCE=it" in inherited


def test_tasks_that_end_before_they_take_a_worker_are_not_submitted_forever(
    request_, monkeypatch, tmp_path
):
    programs(
        tmp_path / "bin",
        monkeypatch,
        sbatch=f"echo x >> {tmp_path}/jobs; wc -l < {tmp_path}/jobs",
        squeue="",
        scancel="",
        scontrol='[ "$2" = config ] && echo "MaxArraySize = 9" || '
        'echo "JobState=FAILED Reason=NonZeroExitCode"',
    )
    request_.folder.joinpath("slurm").mkdir(parents=True)
    (worker,) = start_all(Slurm(poll=0.01), [request_])
    (event,) = itertools.islice(worker.events(), 1)
    worker.stop(now=True)
    assert isinstance(event, Failed)
    assert event.job is None
    assert "its task 4_0 ended: FAILED, NonZeroExitCode before it took the worker" in event.message
    assert "executors.slurm.setup" in event.message
    assert len((tmp_path / "jobs").read_text().splitlines()) == 4


# --- files ---


def test_a_seat_is_claimed_once(tmp_path):
    seats = Seats(tmp_path)
    seats.open_session("s")
    for number in range(40):
        seats.offer("s", seat(f"seat-{number}"))
    claimed: list[str] = []

    def claim(task: str) -> None:
        while (result := seats.claim("s", task)) is not None:
            claimed.append(result.name)

    threads = [threading.Thread(target=claim, args=(f"1_{n}.0",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"seat-{number}" for number in range(40))
    assert set(seats.owners("s")) == set(claimed)


def test_a_seat_is_withdrawn_or_claimed(tmp_path):
    seats = Seats(tmp_path)
    seats.open_session("s")
    seats.offer("s", seat("a"))
    seats.offer("s", seat("b"))
    assert seats.claim("s", "1_0.0") == seat("a")
    assert not seats.withdraw("s", "a")
    assert seats.withdraw("s", "b")
    assert seats.claim("s", "1_1.0") is None
    assert seats.owners("s") == {"a": "1_0.0"}


def test_a_line_counts_once_it_is_whole(tmp_path):
    path = tmp_path / "lines"
    reader = LineReader(path)
    assert reader.lines() == []
    append(path, [{"a": 1}, {"b": 2}])
    with path.open("a") as file:
        file.write('{"half')
    assert [json.loads(line) for line in reader.lines()] == [{"a": 1}, {"b": 2}]
    assert reader.lines() == []
    with path.open("a") as file:
        file.write('": 3}\n')
    assert [json.loads(line) for line in reader.lines()] == [{"half": 3}]


@given(st.text(min_size=4), st.integers(1000, 10**12))
def test_a_secret_crosses_as_a_reference(text, number):
    values = {"TEXT": text, "NUMBER": str(number)}
    message = {"type": "job", "params": {"a": f"<{text}>", "b": number, "c": [text]}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        append(path, [message], Secrets(values))
        (line,) = LineReader(path).lines()
    assert str(number) not in line.decode()
    assert read_message(line, values, values) == message


def test_events_and_ends_are_told_apart():
    phase = Phase(job="k", phase="compute")
    assert read_line(json.dumps(as_json(phase)).encode()) == (phase, None)
    assert read_line(b'{"event": "ended", "how": "exit status 1"}') == (None, "exit status 1")
    for nonsense in (b"", b"[]", b"{", b'{"event": "other"}', b"7"):
        assert read_line(nonsense) == (None, None)


def test_the_host_is_silent_when_its_heartbeat_does_not_change(tmp_path, monkeypatch):
    moments = iter([0.0, 1.0, 1.0, 50.0, 60.0, 60.0])
    monkeypatch.setattr("toolkit_slurm.task.time.monotonic", lambda: next(moments))
    seats = Seats(tmp_path)
    seats.beat(1)
    watch = HostWatch(seats, _changed_at=0.0)
    next(moments)
    assert watch.silent_seconds() == 0.0  # heard at 1.0
    assert watch.silent_seconds() == 49.0
    seats.beat(2)
    assert watch.silent_seconds() == 0.0


def test_a_requeued_task_is_another_owner():
    env = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert task_name(env) == "7_3.0"
    assert task_name({**env, "SLURM_RESTART_COUNT": "2"}) == "7_3.2"


def test_two_executors_of_one_run_share_neither_folder_nor_jobs(request_):
    large = replace(request_, name="large-0", executor="large")
    folders = [_script.seats_folder(one) for one in (request_, large)]
    assert [folder.name for folder in folders] == ["slurm", "large"]
    assert len({_script.job_name(folder) for folder in folders}) == 2
