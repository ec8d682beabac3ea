"""What comes from a worker's pipe: events are read in one place, and nothing else stops a run."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import FUZZ_COUNT
from toolkit.executors.interface import translate_paths
from toolkit.executors.protocol import (
    MAX_LINE,
    Alive,
    Done,
    Failed,
    Hello,
    JobReport,
    Phase,
    Progress,
    Stack,
    as_json,
    read_event,
    read_events,
)

EVENTS = [
    Hello(pid=1, host="here", versions={"toolkit": "1"}),
    Phase(job="k", phase="compute"),
    Progress(job="k", done=1, total=None),
    Alive(host_bytes=1),
    JobReport(job="k", name="x", facts={"a": [1, {"b": None}], "c": 0.5}),
    Done(job="k", rows={"samples": 1}, seconds=1.5),
    Failed(job=None, kind="E", message="lone \\ud800 surrogate"),
    Stack(text="here"),
]
NOISE = [
    b"Pulling image\n",
    b"3\n",
    b"[1, 2]\n",
    b"null\n",
    b'{"event": 3}\n',
    b'{"event": ["done"]}\n',
    b'{"event": "run_done"}\n',
    b'{"event": "hello", "pid": 1}\n',
    b'{"event": "done", "job": "k", "rows": {"samples": "many"}, "seconds": 1}\n',
    b'{"event": "progress", "job": "k", "done": true}\n',
    b"\xff\xfe\n",
    b"[" * 5000 + b"\n",
]
Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(as_json(event)).encode() + b"\n" for event in events)


def test_events_are_read_as_they_were_written() -> None:
    log = io.BytesIO()
    assert list(read_events(io.BytesIO(lines(*EVENTS)), log)) == EVENTS
    assert log.getvalue() == b""


def test_what_is_no_event_goes_to_the_log() -> None:
    log = io.BytesIO()
    text = b"".join(noise + lines(event) for noise, event in zip(NOISE, EVENTS * 2, strict=False))
    assert list(read_events(io.BytesIO(text), log)) == (EVENTS * 2)[: len(NOISE)]
    assert log.getvalue() == b"".join(NOISE)


def test_a_line_without_end_takes_no_memory_and_hides_no_event() -> None:
    log = io.BytesIO()
    text = b'{"event": "' + b"x" * (3 * MAX_LINE) + b"\n" + lines(EVENTS[1])
    assert list(read_events(io.BytesIO(text), log)) == [EVENTS[1]]
    assert len(log.getvalue()) < 400


def test_lone_surrogates_arrive_as_escapes() -> None:
    line = '{"event": "failed", "job": "k", "kind": "E", "message": "lone \\ud800 there"}'
    assert read_event(line) == Failed(job="k", kind="E", message="lone \\ud800 there")


LINES = st.one_of(
    st.binary(max_size=60),
    Json.map(lambda data: json.dumps(data).encode()),
    st.builds(
        lambda event, change: json.dumps({**as_json(event), **change}).encode(),
        st.sampled_from(EVENTS),
        st.dictionaries(
            st.sampled_from(["event", "job", "rows", "seconds", "versions", "facts", "gpus"]),
            Json,
            min_size=1,
            max_size=2,
        ),
    ),
)
"""Bytes, JSON, and events with other fields."""


@pytest.mark.slow
@settings(max_examples=500)
@given(LINES)
def test_any_line_is_an_event_or_none(line: bytes) -> None:
    event = read_event(line)
    assert event is None or read_event(json.dumps(as_json(event))) is not None


@pytest.mark.slow
@pytest.mark.fuzz
def test_many_lines_are_events_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    events = 0

    @settings(max_examples=FUZZ_COUNT, deadline=None, database=None)
    @given(LINES)
    def read(line: bytes) -> None:
        nonlocal events
        events += read_event(line) is not None

    read()
    with capsys.disabled():
        print(f"\n{FUZZ_COUNT} lines of workers: {events} events, no traceback")


def test_paths_inside_the_folders_are_translated_and_others_are_not() -> None:
    folders = {
        Path("/store/runs/r/jobs"): PurePosixPath("/jobs"),
        Path("/store/runs/r/jobs/in"): PurePosixPath("/in"),
        Path("/models/a"): PurePosixPath("/mnt/model"),
    }
    message = {
        "folder": "/store/runs/r/jobs/k1",
        "inputs": {"samples": ["/store/runs/r/jobs/in/s.arrow"]},
        "model": {"params": {"path": "/models/a", "id": "models/a", "other": "/models/ab"}},
        "units": [1, 2],
    }
    assert translate_paths(message, folders) == {
        "folder": "/jobs/k1",
        "inputs": {"samples": ["/in/s.arrow"]},
        "model": {"params": {"path": "/mnt/model", "id": "models/a", "other": "/models/ab"}},
        "units": [1, 2],
    }


# --- whole runs -----------------------------------------------------------------------------------

NOISY = """
import os, sys
from toolkit import hookimpl
from toolkit.executors.processes import PipedWorker
from toolkit.parts import ExecutorPart

WRAPPER = '''
import json, os, subprocess, sys, time
time.sleep(DELAY)
for line in (3, [1], {"event": "run_done"}, {"event": "what"}, {"event": "hello", "pid": 1}):
    print(json.dumps(line), flush=True)
done = {"event": "done", "job": "k1-nobody", "rows": {}, "seconds": 1.0}
print(json.dumps(done), flush=True)
sys.exit(subprocess.call([sys.executable, "-m", "toolkit.worker"]))
'''

def start(params, request):
    words = [sys.executable, "-c", WRAPPER.replace("DELAY", os.environ.get("DELAY", "0"))]
    return PipedWorker(request.name, words, request.folder / "w.log", os.environ)

@hookimpl
def toolkit_parts():
    yield ExecutorPart(name="noisy", help="Workers behind a wrapper that talks.", start=start)
"""


@pytest.mark.slow
def test_a_wrapper_that_talks_stops_no_run(toolkit: Any, toy: Any, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    result = toolkit.run("run", toy(n=6), "--plugin", tmp_path / "noisy.py", "--on", "noisy")
    assert result.returncode == 0, result.stderr
    (log,) = (toolkit.store / "runs").glob("*/workers/w.log")
    assert '{"event": "what"}' in log.read_text()


@pytest.mark.slow
def test_a_worker_that_is_slow_to_say_hello_is_reported_and_not_killed(
    toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    args = ("run", toy(n=6), "--plugin", tmp_path / "noisy.py", "--on", "noisy")
    result = toolkit.run(*args, DELAY="3", TOOLKIT_STALL_SECONDS="0.5")
    assert result.returncode == 0, result.stderr
    assert "in phase 'start' of the worker's start (slow, or stuck; nothing is killed)" in (
        result.stderr
    )
    assert "it has not sent its hello message yet" in result.stderr
    assert "died" not in result.stderr


ODD = """
from toolkit import hookimpl
from toolkit.parts import Params, StagePart

class Odd(Params):
    ask: bool = False

def odd(work):
    work.report.event("run_done", computed="x")
    work.report.event("step_failed")
    if work.params.ask:
        input("Run the code of this model repository? [y/N] ")
    return iter(())

@hookimpl
def toolkit_parts():
    yield StagePart(name="words.odd", help="x", params=Odd, run=odd, reads=("samples",))
"""


@pytest.fixture
def odd(tmp_path: Path) -> tuple[str | Path, ...]:
    """A spec with a part that reports events of the host, and asks questions if it is told to."""
    (tmp_path / "odd.py").write_text(ODD)
    spec = tmp_path / "odd.yaml"
    spec.write_text(
        "version: 1\nname: odd\nsamples: {uses: count, with: {n: 2}}\n"
        "stages:\n  - {id: odd, uses: words.odd}\n"
    )
    return ("run", spec, "--plugin", tmp_path / "odd.py")


def test_a_part_may_call_its_events_as_it_likes(toolkit: Any, odd: Any) -> None:
    result = toolkit.run(*odd)
    assert result.returncode == 0, result.stderr
    (log,) = (toolkit.store / "runs").glob("*/events.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    names = [event["name"] for event in events if event["event"] == "part_event"]
    assert names == ["run_done", "step_failed"]
    assert [event["event"] for event in events].count("run_done") == 1


def test_a_question_on_the_terminal_is_refused_with_the_fix(toolkit: Any, odd: Any) -> None:
    result = toolkit.run(*odd, "--set", "stages.odd.with.ask=true")
    assert result.returncode == 3
    assert (
        "asked for input on the terminal, which a worker does not have. Set the answer"
        in result.stderr
    )


# --- Ctrl-C where no worker is busy ---------------------------------------------------------------

SLOW_END = """
import time
from toolkit import hookimpl
from toolkit.parts import Params, ReportSection, SinkPart
from toolkit.work import Figure

def sink(work):
    print("sinking", file=__import__("sys").stderr, flush=True)
    time.sleep(120)
    yield "x", b""

def section(inputs):
    print("reporting", file=__import__("sys").stderr, flush=True)
    time.sleep(120)
    yield Figure("x", "")

@hookimpl
def toolkit_parts():
    yield SinkPart(name="slow", help="x", run=sink)
    yield ReportSection(name="slow", help="x", title="x", reads=(), run=section)
"""


def interrupted(toolkit: Any, process: Any, word: str) -> str:
    """Send Ctrl-C when `word` is said on stderr; gives the rest of it."""
    while word not in (line := process.stderr.readline()):
        assert line, "the process ended before"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "error:" not in err
    return str(err)


@pytest.mark.slow
@pytest.mark.parametrize(("word", "sinks"), [("sinking", "[{uses: slow}]"), ("reporting", "[]")])
def test_ctrl_c_is_obeyed_while_sinks_and_reports_are_written(
    toolkit: Any, toy: Any, tmp_path: Path, word: str, sinks: str
) -> None:
    (tmp_path / "end.py").write_text(SLOW_END)
    args = ("run", toy(n=6), "--plugin", tmp_path / "end.py", "--set", f"sinks={sinks}")
    err = interrupted(toolkit, toolkit.start(*args), word)
    assert "Interrupted: " in err
    state = json.loads(toolkit.run("status", "--json").stdout)[0]
    assert state["state"] == ("interrupted" if word == "sinking" else "done")
    assert state["done"] == 3


@pytest.mark.slow
def test_ctrl_c_is_obeyed_while_another_process_holds_the_store(toolkit: Any, toy: Any) -> None:
    from toolkit_store import open_store

    store = open_store(toolkit.store, create=True)
    with store.writer():
        err = interrupted(toolkit, toolkit.start("run", toy(n=6)), "Waiting for process")
    assert "Interrupted: 0 steps are safe. Continue with: toolkit run toy-" in err


@pytest.mark.slow
def test_ctrl_c_is_obeyed_while_another_process_computes_the_run(toolkit: Any, toy: Any) -> None:
    path = toy(features={"hang_seconds": 120, "batch": 24})
    first = toolkit.start("run", path)
    while "stage features" not in first.stderr.readline():
        continue
    err = interrupted(toolkit, toolkit.start("run", path), "waiting for it to end")
    assert "Interrupted: stopped waiting; the other process continues." in err
    assert first.poll() is None
