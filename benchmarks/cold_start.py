"""How long a command takes from a cold process: `toolkit --help`, `toolkit check` and a query of a
store, compared with a bare interpreter.

Interleaved rounds, so that a busy machine slows all of them alike; the median counts. The CPU time
of a process, in all its threads, hardly depends on what else the machine does. `python
benchmarks/cold_start.py [ROUNDS]`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TOY = str(Path(__file__).parents[1] / "specs" / "toy.yaml")
PROGRAM = str(Path(sys.executable).parent / "toolkit")


@dataclass(frozen=True)
class Timed:
    """A command, and the most that it should take; None sets no target."""

    command: tuple[str, ...]
    seconds: float | None = None
    cpu: float | None = None


COMMANDS = {
    "python -c pass": Timed((sys.executable, "-c", "pass")),
    'python -c "import click"': Timed((sys.executable, "-c", "import click")),
    "toolkit --help": Timed((PROGRAM, "--help"), seconds=0.3),
    "toolkit check specs/toy.yaml": Timed((PROGRAM, "check", TOY), seconds=0.6),
    "toolkit query top 0/3": Timed((PROGRAM, "query", "top", "0/3"), cpu=2.0),
}


def measure(rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds and CPU seconds of each command: medians over rounds, after one round that only warms
    the file cache.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TOOLKIT_STORE": f"{folder}/store"}
        run = (PROGRAM, "run", TOY, "--quiet", "--set", f"sinks.means.with.path={folder}/out")
        _time(run, folder, env)
        for turn in range(rounds + 1):
            for name, timed in COMMANDS.items():
                result = _time(timed.command, folder, env)
                if turn:
                    times[name].append(result)
    return {
        name: (
            statistics.median(seconds for seconds, _ in values),
            statistics.median(cpu for _, cpu in values),
        )
        for name, values in times.items()
    }


def _time(command: tuple[str, ...], folder: str, env: dict[str, str]) -> tuple[float, float]:
    """Run a command and return its seconds and its CPU seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {errors.decode()}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    medians = measure(rounds)
    floor, _ = medians["python -c pass"]
    print(
        f"cold start, median of {rounds} interleaved rounds, {os.cpu_count()} cores, Python "
        f"{sys.version.split()[0]}"
    )
    heads = ("seconds", "target", "x bare", "CPU s", "target")
    print(f"{'command':30}" + "".join(f" {head:>8}" for head in heads))
    for name, timed in COMMANDS.items():
        seconds, cpu = medians[name]
        print(
            f"{name:30} {seconds:8.3f} {_goal(timed.seconds):>8} {seconds / floor:8.1f} {cpu:8.3f} "
            f"{_goal(timed.cpu):>8}"
        )


def _goal(target: float | None) -> str:
    return "-" if target is None else f"{target:.1f}"


if __name__ == "__main__":
    main()
