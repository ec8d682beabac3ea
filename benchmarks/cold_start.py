"""How long a command takes before it does anything: `toolkit --help` and `toolkit check`, compared
with a bare interpreter.

Interleaved rounds, so that a busy machine slows all of them alike; the median counts. `python
benchmarks/cold_start.py [ROUNDS]`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOY = str(Path(__file__).parents[1] / "specs" / "toy.yaml")
PROGRAM = str(Path(sys.executable).parent / "toolkit")
COMMANDS: dict[str, tuple[list[str], float | None]] = {
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    'python -c "import click"': ([sys.executable, "-c", "import click"], None),
    "toolkit --help": ([PROGRAM, "--help"], 0.3),
    "toolkit check specs/toy.yaml": ([PROGRAM, "check", TOY], 0.6),
}


def measure(rounds: int) -> dict[str, float]:
    """Seconds of each command: the median over rounds, after one round that only warms the file
    cache.
    """
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TOOLKIT_STORE": f"{folder}/store"}
        for turn in range(rounds + 1):
            for name, (command, _) in COMMANDS.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
                if turn:
                    times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    medians = measure(rounds)
    floor = medians["python -c pass"]
    print(
        f"cold start, median of {rounds} interleaved rounds, {os.cpu_count()} cores, Python "
        f"{sys.version.split()[0]}"
    )
    print(f"{'command':30} {'seconds':>8} {'x bare':>7} {'target':>7}")
    for name, (_, target) in COMMANDS.items():
        goal = f"{target:.1f}" if target else "-"
        print(f"{name:30} {medians[name]:8.3f} {medians[name] / floor:7.1f} {goal:>7}")


if __name__ == "__main__":
    main()
