"""What the host spends on a step, and whether that grows with the run.

python benchmarks/steps.py            10,000 steps
python benchmarks/steps.py --tiny     40 steps, to see that it runs

Toy steps of one sample each are handed to workers that compute next to nothing, so that the time
between two finished steps is the host's: reading the job folder, committing, handing out the next.
Steps that are ready together are committed together, so the table has the mean for each tenth of
the run; a flat column means that the cost is constant.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from toolkit import _flow
from toolkit._run.event_log import read_events
from toolkit._run.events import RunEvent, StepDone
from toolkit._run.options import RunOptions

TENTHS = 10


def spec_of(folder: Path, steps: int) -> Path:
    """A toy spec whose stage `features` has this many steps."""
    path = folder / "steps.yaml"
    spec = {
        "version": 1,
        "name": "steps",
        "model": {"uses": "toy"},
        "saes": {"uses": "toy"},
        "examine": "off",
        "samples": {"uses": "count", "with": {"n": steps}},
        "stages": [
            {
                "id": "features",
                "uses": "extract.hash",
                "with": {"width": 32, "active": 3, "batch": 1},
            }
        ],
    }
    path.write_text(json.dumps(spec))
    return path


def silent(event: RunEvent) -> None:
    """Shows nothing."""


def measure(steps: int, workers: int) -> list[float]:
    """Milliseconds between two finished steps, in order."""
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(
            store=f"{folder}/store", sets=(f"executors.local.workers={workers}",), gpu="none"
        )
        planned = _flow.plan(str(spec_of(Path(folder), steps)), options)
        outcome = _flow.run(planned, silent)
        events = read_events(outcome.report.parent)
    moments = [
        datetime.fromisoformat(event.at)
        for event in events
        if isinstance(event, StepDone) and event.stage == "features"
    ]
    return [1000 * (later - earlier).total_seconds() for earlier, later in pairwise(moments)]


def table(times: Sequence[float]) -> str:
    """The mean of each tenth, and the ratio of the last to the first."""
    size = max(1, len(times) // TENTHS)
    means = [
        statistics.mean(times[start : start + size])
        for start in range(0, len(times) - size + 1, size)
    ]
    lines = ["  step from   host ms a step"]
    for number, mean in enumerate(means):
        lines.append(f"{number * size:>11,} {mean:>16.2f}")
    total = sum(times) / len(times)
    growth = f"{means[-1] / means[0]:.2f}" if means[0] else "too few steps"
    lines.append(f"mean {total:.2f} ms a step; last tenth / first: {growth}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="40 steps: its figures say nothing")
    options = parser.parse_args()
    steps = 40 if options.tiny else options.steps
    print(f"{steps:,} steps, {options.workers} workers, Python {sys.version.split()[0]}")
    print(table(measure(steps, options.workers)))


if __name__ == "__main__":
    main()
