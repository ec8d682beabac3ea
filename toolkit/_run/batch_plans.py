"""The batch plan of each stage: chosen from its cost and from free memory when the stage is first
expanded, and kept for the run.

It changes no result but in the last bits, so it enters no key; it is recorded so that a run that is
continued computes the same.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._run.job_folder import write_text

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage
    from toolkit.costs import Workload

PLANS = "batches.json"
SHARE = {"cuda": 0.9, "cpu": 0.5}
"""How much of the free memory a plan counts on: the rest is for what is not in the model of costs,
and for other processes.
"""


class BatchPlans:
    """Reads and writes the plans of a run's folder. `memory` gives the kind of device and its free
    bytes; asked for the CPU, its.
    """

    def __init__(self, folder: Path, memory: Callable[[bool], tuple[str, int]]) -> None:
        self._path, self._memory = folder / PLANS, memory
        self._held: dict[str, dict[str, int]] = _read(self._path)

    def of(self, stage: Stage) -> Mapping[str, int]:
        """The plan of a stage; empty for one that makes none."""
        return self._held.get(stage.id, {})

    def fix(self, stage: Stage, load: Workload) -> Mapping[str, Any] | None:
        """Make a stage's plan if it is the first time: gives what to record, None when there is
        nothing new.
        """
        batch_plan = stage.part.estimates.batch_plan
        if batch_plan is None or stage.id in self._held:
            return None
        device, free = self._memory(_on_cpu(stage))
        self._held[stage.id] = plan = dict(
            batch_plan(stage.params, load, int(free * SHARE[device]), device)
        )
        write_text(self._path, json.dumps(self._held, indent=1, sort_keys=True) + "\n")
        return {"device": device, "free": free, "plan": plan}


def _on_cpu(stage: Stage) -> bool:
    """Whether the spec itself puts the stage's model on the CPU."""
    device = stage.model and stage.model.part.device
    return bool(stage.model and device and device(stage.model.params) == "cpu")


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        found: dict[str, dict[str, int]] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def memory_of(devices: Sequence[Mapping[str, Any]], *, on_cpu: bool = False) -> tuple[str, int]:
    """Where workers compute and what each has: the least free GPU among theirs, else an equal share
    of the host's memory.
    """
    cards = [] if on_cpu or all(device["cuda"] == "" for device in devices) else _cards()
    wanted = {str(device["physical"]) for device in devices if device["physical"] is not None}
    free = [bytes_free for index, bytes_free in cards if not wanted or index in wanted]
    if free:
        return "cuda", min(free)
    import psutil

    return "cpu", int(psutil.virtual_memory().available / max(1, len(devices)))


def _cards() -> list[tuple[str, int]]:
    """Physical index and free bytes of each GPU that the driver's own tool names; none without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1]
    return [(index.strip(), int(free) << 20) for index, free in rows if free.strip().isdigit()]
