"""What a person sees while a run goes on, from its events alone."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from toolkit._run.events import EventLog, read_events
from toolkit._run.progress import Plain, Tally

STARTED = {"event": "run_started", "run": "r", "stages": 2, "log": "log.txt"}
READY = {"event": "stage_ready", "stage": "a", "part": "p", "steps": 4, "reused": 1, "todo": 3}
STEP = {
    "event": "step_started",
    "stage": "a",
    "index": 1,
    "worker": "w",
    "reason": "new",
    "key": "k",
}


def test_the_line_has_done_total_phase_count_and_memory():
    tally = Tally()
    for event in (
        STARTED,
        READY,
        {"event": "step_reused", "stage": "a", "index": 0},
        STEP,
        {"event": "phase", "worker": "w", "phase": "load model"},
        {"event": "progress", "worker": "w", "done": 3, "total": 8},
        {"event": "alive", "worker": "w", "host_bytes": 2**30, "device_bytes": 2**31},
    ):
        tally.take(event)
    assert tally.line() == "1/4+ steps · a[1] load model 3/8 0s · host 1.00 GiB, device 2.00 GiB"


def test_an_eta_is_given_only_when_the_number_of_steps_is_known():
    tally = Tally()
    for event in (
        STARTED,
        READY,
        STEP,
        {"event": "step_done", "worker": "w", "stage": "a", "index": 1},
    ):
        tally.take(event)
    assert "ETA" not in tally.line()
    tally.take({**READY, "stage": "b", "steps": 1})
    assert re.search(r"1/5 steps · .* steps/s, ETA \d+s", tally.line())


def test_a_pipe_gets_lines_that_matter_and_a_sign_of_life():
    stream = io.StringIO()
    plain = Plain(stream)
    for event in (STARTED, READY, STEP):
        plain(event)
    plain._last -= 10
    plain({"event": "alive"})
    assert stream.getvalue().splitlines() == [
        "run r: 2 stages; log log.txt",
        "stage a (p): 4 steps, 1 reused, 3 to compute",
        "0/4+ steps · a[1] start 0s",
    ]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    with EventLog(tmp_path, ()) as log:
        log.emit("run_started", run="r", stages=1, log="l")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "step_do')
    assert [event["event"] for event in read_events(tmp_path)] == ["run_started"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_gets_one_live_line(toy, tmp_path):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", "run", str(toy()), "--store", str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "TERM": "xterm"},
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
    assert b"stage groups (compare.means): 1 steps, 0 reused, 1 to compute" in shown
    assert b"\x1b[" in shown
