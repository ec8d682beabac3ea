"""What a person sees while a run goes on, from its events alone."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit._run import events as ev
from toolkit._run.display import QUIET, VERBOSE, Lines, status_line
from toolkit._run.event_log import EventLog, read_events
from toolkit._run.events import as_json, read_run_event
from toolkit._run.progress import RunProgress, progress_of
from toolkit.errors import ToolkitError
from toolkit.secrets import Secrets

STARTED = ev.RunStarted(run="r", stages=2, log="log.txt")
READY = ev.StageReady(stage="a", part="p", steps=4, reused=1, todo=3)
REUSED = ev.StepReused(key="k0", stage="a", index=0)
STEP = ev.StepStarted(key="k", stage="a", index=1, worker="w", reason="new")
DONE = ev.StepDone(key="k", stage="a", index=1, worker="w", seconds=2.0, rows={})
NOW = datetime.now(UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def phase(name: str, at: str = "") -> ev.WorkerPhase:
    return ev.WorkerPhase(worker="w", job="k", phase=name, at=at)


def test_the_line_has_done_total_phase_count_and_memory():
    run = progress_of(
        [
            STARTED,
            READY,
            REUSED,
            STEP,
            phase("load model"),
            ev.WorkerProgress(worker="w", job="k", done=3, total=8),
            ev.AliveSign(worker="w", host_bytes=2**30, device_bytes=2**31),
        ]
    )
    assert status_line(run) == (
        "1/4+ steps · a[1] load model 3/8 0s · host 1.00 GiB, device 2.00 GiB"
    )


def test_the_time_left_comes_from_what_the_first_step_has_done():
    """10 of 40 samples in 5 s, after 100 s of loading: 15 s more, and two steps of 20 s."""
    run = progress_of(
        [
            STARTED,
            READY,
            REUSED,
            ev.StepStarted(key="k", stage="a", index=1, worker="w", reason="", at=ago(105)),
            phase("load model", ago(105)),
        ]
    )
    assert run.seconds_left(NOW.isoformat()) is None, "loading says nothing about computing"
    run.take(phase("compute", ago(5)))
    run.take(ev.WorkerProgress(worker="w", job="k", done=10, total=40, at=ago(0)))
    assert run.seconds_left(NOW.isoformat()) == pytest.approx(15 + 2 * 20)
    assert re.search(r"ETA [45]\ds \+ 1 stage to come", status_line(run))


def test_the_time_left_comes_from_the_steps_that_are_done_and_is_shared_by_workers():
    run = progress_of([STARTED, READY, REUSED, STEP, DONE])
    assert run.seconds_left(NOW.isoformat()) == pytest.approx(4.0)
    run.take(ev.StepStarted(key="k2", stage="a", index=2, worker="w", reason=""))
    run.take(ev.StepStarted(key="k3", stage="a", index=3, worker="x", reason=""))
    assert run.seconds_left(NOW.isoformat()) == pytest.approx(2.0)


def test_a_forecast_gives_the_time_left_before_any_step_is_done():
    forecast = ev.StageForecast(stage="a", seconds=30.0, basis="earlier runs")
    run = progress_of([STARTED, READY, REUSED, forecast])
    assert run.seconds_left(NOW.isoformat()) == pytest.approx(30.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6))
def test_the_share_that_is_done_never_falls(stages: list[tuple[int, int]]) -> None:
    """Stages become known one after the other, of any size, and steps are reused or computed."""
    run, seen = RunProgress(), [0.0]
    run.take(ev.RunStarted(run="r", stages=len(stages), log=""))
    for number, (reused, computed) in enumerate(stages):
        name, steps = f"s{number}", reused + computed
        known = ev.StageReady(stage=name, part="p", steps=steps, reused=reused, todo=computed)
        run.take(known)
        for index in range(steps):
            place = {"key": f"{name}{index}", "stage": name, "index": index}
            seen.append(run.share)
            if index < reused:
                run.take(ev.StepReused(**place))
            else:
                run.take(ev.StepStarted(**place, worker="w", reason=""))
                seen.append(run.share)
                run.take(ev.StepDone(**place, worker="w", seconds=1.0, rows={}))
        seen.append(run.share)
    assert seen == sorted(seen)
    assert run.share == pytest.approx(1.0)
    assert (run.done, run.open_stages) == (sum(map(sum, stages)), 0)


def test_a_continued_run_keeps_what_it_had_and_forgets_what_was_cut_off():
    run = progress_of([STARTED, READY, REUSED, STEP, DONE])
    cut = ev.StepStarted(key="k2", stage="a", index=2, worker="w", reason="new")
    before = run.share
    run.take(cut)
    run.take(STARTED)
    assert run.share == before
    assert (run.count("running"), run.sessions, run.busy) == (0, 2, {})
    run.take(ev.StepReused(key="k", stage="a", index=1))
    assert run.steps["a", "k"].state == "computed", "by an earlier session of this run"


def test_a_pipe_gets_lines_that_matter_and_a_sign_of_life():
    stream = io.StringIO()
    show = Lines(stream=stream)
    for event in (STARTED, READY, STEP):
        show(event)
    show._last -= 10
    show(ev.AliveSign())
    assert stream.getvalue().splitlines() == [
        "run r: 2 stages; log log.txt",
        "stage a (p): 4 steps, 1 reused, 3 to compute",
        "0/4+ steps · a[1] start 0s",
    ]


@pytest.mark.parametrize(("verbosity", "lines"), [(QUIET, 1), (VERBOSE, 5)])
def test_quiet_shows_problems_only_and_verbose_every_event(verbosity, lines):
    stream = io.StringIO()
    show = Lines(verbosity, stream)
    failed = ev.StepFailure(key="k", stage="a", index=1, worker="w", error="no")
    for event in (STARTED, READY, STEP, DONE, failed):
        show(event)
    show._last -= 10
    show(ev.AliveSign())
    text = stream.getvalue()
    assert "step a[1] FAILED: no" in text
    assert sum("step" in line or "run r" in line for line in text.splitlines()) >= lines


def test_escape_sequences_of_a_part_do_not_reach_the_terminal():
    stream = io.StringIO()
    place = {"key": "k", "stage": "a", "index": 0, "worker": "w"}
    Lines(stream=stream)(ev.PartWarning(**place, text="\x1b]0;title\x07"))
    assert "\x1b" not in stream.getvalue()


def test_every_kind_of_event_is_read_back_as_it_was_written():
    assert len({kind.event for kind in ev.KINDS}) == len(ev.KINDS)
    for event in (STARTED, READY, REUSED, STEP, DONE, phase("load")):
        assert read_run_event(_line(event)) == event
        assert event.sentence()


@pytest.mark.parametrize("line", ["[]", "3", "null", '{"event": "x"}', '{"event": "step_done"}'])
def test_what_is_no_event_is_left_out(line):
    assert read_run_event(line) is None


def _line(event: ev.RunEvent) -> str:
    import json

    return json.dumps(as_json(event))


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    with EventLog(tmp_path, ()) as log:
        log.emit(STARTED)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "step_do')
    assert [event.event for event in read_events(tmp_path)] == ["run_started"]


def test_a_listener_that_fails_ends_the_run_with_a_sentence(tmp_path):
    def listener(event: ev.RunEvent) -> None:
        raise KeyError("steps")

    sentence = r"listener .*listener failed at event 'run_started': KeyError: 'steps'"
    with EventLog(tmp_path, (listener,)) as log, pytest.raises(ToolkitError, match=sentence):
        log.emit(STARTED)
    assert len(read_events(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_bars(toy, tmp_path, colour):
    slow = {"seconds": 0.4, "batch": 2}  # its bar is seen half full
    spec = toy(n=6, features=slow)
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", **({} if colour else {"NO_COLOR": "1"})}
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", "run", str(spec), "--store", str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        stderr=follower,
        env=env,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the terminal closes when its last user ends
            break
        shown += chunk
    os.close(leader)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.strip().endswith(b"report.html")
    assert b"stage groups (compare.means): 1 step, 0 reused, 1 to compute" in shown
    assert "━".encode() in shown
    assert (b"\x1b[38;5;" in shown or b"\x1b[3" in shown) == colour


def test_values_of_the_environment_are_neither_logged_nor_shown(tmp_path):
    shown: list[ev.RunEvent] = []
    secrets = Secrets({"TOKEN": "hush-hush"})
    place = {"key": "k", "stage": "a", "index": 0, "worker": "w"}
    with EventLog(tmp_path, (shown.append,), secrets) as log:
        log.emit(ev.PartEvent(**place, name="x", facts={"url": ["https://hush-hush@host"]}))
        log.emit(ev.StepFailure(**place, error="no hush-hush", traceback="hush-hush"))
    texts = [path.read_text() for path in tmp_path.iterdir()]
    assert "hush-hush" not in "".join([*texts, *map(str, shown)])
    assert "${env:TOKEN}@host" in str(shown[0])
