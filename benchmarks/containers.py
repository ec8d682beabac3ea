"""What a container adds to a step: the toy spec on `--on docker` and `--on local`, warm workers.

    python benchmarks/containers.py [--steps 400] [--rounds 5]
    python benchmarks/containers.py --tiny    6 steps, one round: to see that it runs

Each run starts one worker, which takes all steps. What a step takes is the time from the first to
the last `step_done` event of the extraction, over its steps: starting the container and importing
the parts are printed apart. Needs an engine and the image `cpu` (`toolkit images build cpu`).
Rounds alternate between the two, and the median round counts. Where there is no engine, root
on Debian or Ubuntu has one for the time of the benchmark:

    RUN=$(mktemp -d) && bash containers/engine.sh up $RUN cpu && (
        export DOCKER_HOST=unix://$RUN/docker.sock TOOLKIT_IMAGES=$RUN/images.yaml
        toolkit images build cpu && python benchmarks/containers.py)
    bash containers/engine.sh down $RUN
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def spec_of(folder: Path, steps: int) -> Path:
    """The toy spec with this many steps."""
    spec = yaml.safe_load((ROOT / "specs" / "toy.yaml").read_text())
    spec.pop("sinks", None)
    spec["samples"]["with"]["n"] = 2 * steps
    for stage in spec["stages"]:
        if stage["uses"] == "extract.hash":
            stage["with"]["batch"] = 2
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def run(spec: Path, store: Path, executor: str) -> list[dict[str, Any]]:
    """The events of one run in a store of its own."""
    words = ["run", str(spec), "--on", executor, "--store", str(store)]
    command = [sys.executable, "-m", "toolkit", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    (log,) = store.glob("runs/*/events.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def times(events: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds until the worker is ready, and per step of the extraction from its first step on.
    Steps are committed in groups, so that the time between two of them says nothing.
    """
    at = {name: datetime.fromisoformat(value) for name, value in _moments(events)}
    ends = [
        datetime.fromisoformat(event["at"])
        for event in events
        if event["event"] == "step_done" and event["stage"] == "features"
    ]
    per_step = (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)
    return (at["worker_ready"] - at["run_started"]).total_seconds(), per_step


def _moments(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["event"], event["at"]) for event in reversed(events) if "at" in event]


def main() -> None:
    """Print both, and the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="6 steps: its figures say nothing")
    given = parser.parse_args()
    if given.tiny:
        given.steps, given.rounds = 6, 1
    starts: dict[str, list[float]] = {"local": [], "docker": []}
    steps: dict[str, list[float]] = {"local": [], "docker": []}
    with tempfile.TemporaryDirectory() as scratch:
        spec = spec_of(Path(scratch), given.steps)
        for number in range(given.rounds):
            for executor in starts:
                start, step = times(run(spec, Path(scratch) / f"{executor}-{number}", executor))
                starts[executor].append(start)
                steps[executor].append(step)
    print(f"{'executor':10} {'worker ready, s':>16} {'a step, ms':>12}")
    for executor, found in steps.items():
        ready, step = statistics.median(starts[executor]), statistics.median(found)
        print(f"{executor:10} {ready:16.2f} {1000 * step:12.1f}")
    added = statistics.median(steps["docker"]) - statistics.median(steps["local"])
    print(f"a warm container adds {1000 * added:.1f} ms a step (target: under 1,000 ms)")


if __name__ == "__main__":
    main()
