"""Kill driver or worker at random moments, fill the disk: the same command goes on and the tables
are those of a quiet run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit_store import open_store

WORK = {"seconds": 0.02, "batch": 3}
FEWER = (
    *("--set", "stages.play.with.reps=12"),
    *("--set", "stages.causes.with.points=48"),
    *("--set", "stages.causes.with.directions=100"),
)
"""Of everything in the quickstart, so that its stages take seconds."""
KILLS = int(os.environ.get("TOOLKIT_CHAOS_KILLS", "100"))


@pytest.fixture
def quiet(toy, local_tables):
    """A toy spec, and what its run leaves that nobody disturbs."""
    spec = toy(features=WORK)
    return (spec,), *local_tables(spec)


@pytest.mark.slow
def test_a_kill(toolkit, quiet):
    _kill_and_compare(toolkit, *quiet, kills=1, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_kills(toolkit, quiet):
    _kill_and_compare(toolkit, *quiet, kills=KILLS, seed=100)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_kills_of_the_quickstart(toolkit, root):
    """A real model and real SAEs: their results are bitwise equal, wherever a run was cut off."""
    words = (root / "specs" / "quickstart.yaml", *FEWER)
    folder = toolkit.store.parent / "quiet"
    assert toolkit.run("run", *words, TOOLKIT_STORE=str(folder)).returncode == 0
    store = open_store(folder)
    keys = store.run_states()[0].steps
    quiet = words, keys, store.fingerprint(keys)
    _kill_and_compare(toolkit, *quiet, kills=min(KILLS, 50), seed=50, within=(2.0, 14.0))


def _kill_and_compare(
    toolkit,
    words: tuple[Path | str, ...],
    keys,
    result,
    *,
    kills: int,
    seed: int,
    within: tuple[float, float] = (0.3, 4.0),
) -> None:
    """Each kill hits a driver or its worker `within` seconds of the start; a finished run is begun
    again in a new store.
    """
    draw = random.Random(seed)
    stores = 0
    for number in range(kills):
        process = toolkit.start("run", *words)
        _kill(toolkit.store, process, draw.uniform(*within), worker=number % 2 == 1)
        if process.wait(timeout=600) == 0:
            _compare(toolkit, keys, result)
            stores += 1
            toolkit.store = toolkit.store.parent / f"store{stores}"
    assert toolkit.run("run", *words).returncode == 0
    _compare(toolkit, keys, result)


def _kill(store: Path, process: subprocess.Popen[str], after: float, *, worker: bool) -> None:
    """SIGKILL to the driver, or to a worker as soon as there is one; a worker's death is the
    driver's to mend.
    """
    end = time.monotonic() + after
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    target = _worker(store) if worker else process.pid
    if process.poll() is None and target:
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            return


def _worker(store: Path) -> int | None:
    pids = []
    for path in (store / "runs").glob("*/events.jsonl"):
        for line in path.read_text().splitlines():
            if '"worker_ready"' in line and line.endswith("}"):
                pids.append(json.loads(line)["pid"])
    return pids[-1] if pids and Path(f"/proc/{pids[-1]}").exists() else None


def _compare(toolkit, keys, result) -> None:
    cleaned = toolkit.run(
        "doctor", "--clean"
    )  # its exit code also speaks of disk space, which the small disk lacks
    assert "orphan rows: none" in cleaned.stdout, cleaned
    assert "job folders of finished steps: none" in cleaned.stdout
    store = open_store(toolkit.store)
    assert store.fingerprint(keys) == result
    assert store.orphans() == {}
    assert not list((store.folder / "runs").glob("*/jobs/*"))
    assert {row.key for row in store.steps()} == set(keys)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_cleanly_and_the_same_command_continues(toolkit, quiet, small_disk):
    (spec,), keys, actual = quiet
    toolkit.store = small_disk / "store"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2_900_000))
    result = toolkit.run("run", spec)
    assert result.returncode in (2, 3), result.stderr
    assert "Traceback" not in result.stderr
    assert "No space left" in result.stderr
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = toolkit.run("run", spec)
    assert again.returncode == 0, again.stderr
    _compare(toolkit, keys, actual)


@pytest.mark.slow
@pytest.mark.parametrize("room", [40_000, 80_000, 120_000, 200_000])
def test_a_disk_that_fills_half_way_loses_nothing(toolkit, quiet, small_disk, room):
    (spec,), keys, actual = quiet
    toolkit.store = small_disk / "store"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3 * 2**20 - room))
    result = toolkit.run("run", spec)
    assert result.returncode in (0, 2, 3), result.stderr
    assert "Traceback" not in result.stderr
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert toolkit.run("run", spec).returncode == 0
    _compare(toolkit, keys, actual)
