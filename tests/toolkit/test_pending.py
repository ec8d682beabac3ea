"""Finished steps are committed together, and seldom at a URI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import load_benchmark
from toolkit import _flow
from toolkit._run import pending
from toolkit._run.job_folder import collect
from toolkit._run.options import RunOptions
from toolkit._run.pending import TOGETHER, URI_SECONDS, FinishedStep, PendingCommits
from toolkit_store import Store, open_store

steps = load_benchmark("steps")
silent = steps.silent
spec_of = steps.spec_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(pending.time, "monotonic", lambda: now[0])
    return now


def finished() -> Any:
    return FinishedStep(None, "w1", None)  # type: ignore[arg-type]


def write(waiting: PendingCommits, clock: list[float], seconds: float = 0.0) -> int:
    """Write what waits, which takes so long; returns how many steps that were."""
    with waiting.writing() as taken:
        clock[0] += seconds
    return len(taken)


def test_a_local_store_is_written_to_at_once(clock: list[float]) -> None:
    waiting = PendingCommits(0.0)
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=True) == 0.0
    assert write(waiting, clock) == 1
    assert waiting.steps == []
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=True) == 0.0


def test_steps_wait_for_others_four_times_as_long_as_a_write_takes(clock: list[float]) -> None:
    waiting = PendingCommits(0.0)
    waiting.add(finished())
    write(waiting, clock, 0.03)
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=True) == pytest.approx(0.12)
    assert waiting.seconds_left(is_busy=False) == 0.0  # nothing else will be finished
    waiting.add(finished())
    assert write(waiting, clock, 9.0) == 2
    assert waiting.seconds_left(is_busy=True) == 0.5  # never longer


def test_a_uri_is_written_to_once_in_two_seconds(clock: list[float]) -> None:
    waiting = PendingCommits(URI_SECONDS)
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=False) == 0.0  # the first waits for nothing
    write(waiting, clock)
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=False) == URI_SECONDS
    clock[0] += 1.5
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=False) == pytest.approx(0.5)
    assert not waiting.is_overdue()
    clock[0] += 0.5
    assert waiting.seconds_left(is_busy=False) == 0.0
    assert write(waiting, clock) == 2


def test_many_short_steps_do_not_write_to_a_uri_more_often(clock: list[float]) -> None:
    waiting = PendingCommits(URI_SECONDS)
    waiting.add(finished())
    write(waiting, clock, 0.5)
    for _ in range(3 * TOGETHER):
        waiting.add(finished())
    assert not waiting.is_overdue()
    assert waiting.seconds_left(is_busy=True) == pytest.approx(URI_SECONDS - 0.5)
    clock[0] += URI_SECONDS - 0.5
    assert waiting.is_overdue()
    assert write(waiting, clock) == 3 * TOGETHER


def test_recovered_steps_are_written_to_a_uri_no_more_often(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(pending.time, "sleep", sleep)
    waiting = PendingCommits(URI_SECONDS)
    for _ in range(3):
        with waiting.recovering():
            clock[0] += 0.5
    assert slept == [0.0, URI_SECONDS - 0.5, URI_SECONDS - 0.5]
    waiting.add(finished())
    assert waiting.seconds_left(is_busy=False) == URI_SECONDS - 0.5


def test_steps_do_not_wait_for_ever_while_workers_talk(clock: list[float]) -> None:
    waiting = PendingCommits(0.0)
    waiting.add(finished())
    assert not waiting.is_overdue()
    clock[0] += 0.6
    assert waiting.is_overdue()
    write(waiting, clock)
    assert not waiting.is_overdue()
    for _ in range(TOGETHER):
        waiting.add(finished())
    assert waiting.is_overdue()


@pytest.mark.slow
def test_what_is_ready_while_the_host_writes_is_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    commit_many = Store.commit_many

    def slow(self: Store, steps: Any) -> int:
        sizes.append(len(steps))
        if sizes == [1, 1]:  # the first step of the stage: wait until a worker has finished another
            mine, jobs = {row.key for row, _ in steps}, tmp_path / "store" / "runs"
            while not any(
                collect(job) is not None for job in jobs.glob("*/jobs/*") if job.name not in mine
            ):
                time.sleep(0.05)
            time.sleep(0.5)  # its line arrives
        return commit_many(self, steps)

    monkeypatch.setattr(Store, "commit_many", slow)
    store = str(tmp_path / "store")
    options = RunOptions(store=store, sets=("executors.local.workers=2",), gpu="none")
    _flow.run(_flow.plan(str(spec_of(tmp_path, 8)), options), silent)
    assert max(sizes) > 1
    (state,) = open_store(Path(store), read_only=True).run_states()
    assert (state.state, state.done) == ("done", state.total)
    assert sum(sizes) == state.total
