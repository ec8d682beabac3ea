"""How a run scales: efficiency by workers, the host's time and memory by steps, and from these a
simulation up to 1,000 workers.

python benchmarks/scaling.py            16 workers, 10,000 steps
python benchmarks/scaling.py --on ray   the same on a Ray of this machine's own
python benchmarks/scaling.py --tiny     2 workers, 40 steps, to see that it runs
python benchmarks/scaling.py --host 0.005   measures nothing: the simulation for this time a step

A stand-in step sleeps instead of computing, so that workers do not compete for this machine's
cores: every loss against the ideal is the host's. Efficiency is the share of the workers' time that
is spent in steps, from when every worker has its first step until the last step ends. The second
table of the simulation adds `--commit` seconds to each step: an assumption about object storage,
not a measurement.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from toolkit import _flow
from toolkit._run.event_log import read_events
from toolkit._run.events import RunEvent, StepDone, StepStarted
from toolkit._run.options import RunOptions

STAGE = "features"
WATCH_SECONDS = 0.5
SIMULATED = (16, 64, 256, 1000)
"""Numbers of workers."""


@dataclass(frozen=True)
class Measured:
    """One run."""

    workers: int
    steps: int
    step_seconds: float
    """How long a step sleeps."""
    seconds: float
    """From the first step's start to the last step's end."""
    busy_seconds: float
    """The host's processor time for one step, estimated from the samples in that time."""
    memory: Sequence[int]
    """Bytes of the host process while steps ran."""
    memory_after: int
    """The most bytes of the host process afterwards: indexing, findings and the report."""

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that is spent in steps."""
        return self.steps * self.step_seconds / (self.workers * self.seconds)

    @property
    def host_seconds(self) -> float:
        """The time from one step to the next, where the host is the bottleneck."""
        return self.seconds / self.steps


def spec_of(folder: Path, steps: int, seconds: float) -> Path:
    """A toy spec whose stage has this many steps, each of which sleeps."""
    path = folder / "scaling.yaml"
    spec = {
        "version": 1,
        "name": "scaling",
        "model": {"uses": "toy"},
        "saes": {"uses": "toy"},
        "examine": "off",
        "samples": {"uses": "count", "with": {"n": steps}},
        "stages": [
            {
                "id": STAGE,
                "uses": "extract.hash",
                "with": {"width": 32, "active": 3, "batch": 1, "seconds": seconds},
            }
        ],
    }
    path.write_text(json.dumps(spec))
    return path


@dataclass(frozen=True)
class Watched:
    """This process at a moment."""

    at: float
    memory: int
    """Bytes."""
    busy: float
    """Seconds of processor time since it began."""


@contextmanager
def watching_this_process() -> Iterator[list[Watched]]:
    """Appends what this process uses to a list, twice a second."""
    samples: list[Watched] = []
    over = threading.Event()
    process = psutil.Process()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            times = process.cpu_times()
            memory = process.memory_info().rss
            samples.append(Watched(time.time(), memory, times.user + times.system))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def silent(event: RunEvent) -> None:
    """Shows nothing."""


def measure(workers: int, steps: int, step_seconds: float, on: str = "local") -> Measured:
    """Run this many steps on this many workers of an executor."""
    sets = [f"executors.{on}.workers={workers}"]
    if on == "ray":
        sets.append("executors.ray.cpus=0.01")  # more actors than this machine has cores
    with tempfile.TemporaryDirectory() as folder:
        gpu = "none" if on == "local" else None
        options = RunOptions(store=f"{folder}/store", sets=tuple(sets), gpu=gpu, on=on)
        planned = _flow.plan(str(spec_of(Path(folder), steps, step_seconds)), options)
        with watching_this_process() as watched:
            outcome = _flow.run(planned, silent)
        events = list(read_events(outcome.report.parent))
    starts = [moment(event) for event in events if isinstance(event, StepStarted) and of(event)]
    ends = [moment(event) for event in events if isinstance(event, StepDone) and of(event)]
    ready = sorted(starts)[min(workers, len(starts)) - 1]  # every worker has had its first step
    done = sum(end > ready for end in ends)
    last = max(ends)
    within = [sample for sample in watched if ready <= sample.at <= last]
    busy = 0.0
    if len(within) > 1:
        busy = (within[-1].busy - within[0].busy) / (within[-1].at - within[0].at)
    return Measured(
        workers=workers,
        steps=done,
        step_seconds=step_seconds,
        seconds=last - ready,
        busy_seconds=busy * (last - ready) / done,
        memory=[sample.memory for sample in watched if sample.at <= last],
        memory_after=max((sample.memory for sample in watched if sample.at > last), default=0),
    )


def of(event: StepStarted | StepDone) -> bool:
    """Whether an event is of the stage that is measured."""
    return event.stage == STAGE


def moment(event: RunEvent) -> float:
    """When an event happened, in seconds."""
    return datetime.fromisoformat(event.at).timestamp()


def simulate(workers: int, step_seconds: float, host_seconds: float, steps: int) -> float:
    """The efficiency of this many workers with one host that commits and hands out one step at a
    time: each worker waits for the host after each step.
    """
    free_at = [0.0] * workers
    heapq.heapify(free_at)
    host_at, end = 0.0, 0.0
    for _ in range(steps):
        asked = heapq.heappop(free_at)
        host_at = max(host_at, asked) + host_seconds
        end = host_at + step_seconds
        heapq.heappush(free_at, end)
    return steps * step_seconds / (workers * max(end, *free_at))


def simulated_table(host_seconds: float, workers: Sequence[int]) -> str:
    """Efficiency by workers and step length, for one host time per step."""
    lengths = (1.0, 10.0, 60.0, 600.0)
    lines = ["workers   " + "".join(f"{f'steps of {length:g} s':>16}" for length in lengths)]
    for count in workers:
        steps = 30 * count
        shares = [simulate(count, length, host_seconds, steps) for length in lengths]
        lines.append(f"{count:>7}   " + "".join(f"{share:>16.3f}" for share in shares))
    return "\n".join(lines)


def main() -> None:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--on", choices=("local", "ray"), default="local", help="the executor")
    parser.add_argument("--commit", type=float, default=0.5, help="seconds of a remote commit")
    parser.add_argument("--host", type=float, help="simulate only: the host's seconds a step")
    parser.add_argument("--tiny", action="store_true", help="its figures say nothing")
    options = parser.parse_args()
    if options.host is not None:
        print(simulated_table(options.host, SIMULATED))
        return
    workers, steps = (2, 40) if options.tiny else (options.workers, options.steps)
    length = 0.1 if options.tiny else 2.0
    print(f"Python {sys.version.split()[0]}, {psutil.cpu_count()} cores, --on {options.on}")

    found = measure(workers, 20 * workers, length, options.on)
    print(
        f"{workers} workers, steps of {length:g} s: efficiency {found.efficiency:.3f} over "
        f"{found.steps} steps"
    )
    many = measure(2, steps, 0.0, options.on)
    print(
        f"{steps:,} empty steps on 2 workers: {1000 * many.host_seconds:.2f} ms a step, "
        f"{1000 * many.busy_seconds:.2f} ms of the host's processor time"
    )
    if len(many.memory) >= 10:
        tenth = len(many.memory) // 10
        early, late = (
            statistics.median(part)
            for part in (many.memory[tenth : 2 * tenth], many.memory[-tenth:])
        )
        print(
            f"host memory: {early / 2**20:.0f} MiB in the second tenth of the steps, "
            f"{late / 2**20:.0f} in the last, {many.memory_after / 2**20:.0f} at most afterwards"
        )
    print("\nSimulated efficiency, a host with that time a step:")
    print(simulated_table(many.host_seconds, SIMULATED))
    print(f"\nSimulated efficiency, {options.commit:g} s more a step for a commit far away:")
    print(simulated_table(many.host_seconds + options.commit, SIMULATED))


if __name__ == "__main__":
    main()
