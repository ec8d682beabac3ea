"""The batch plan of each stage: chosen from its cost and from its first worker's free memory, and
kept for the run.

It changes results at most in their last bits, so it enters no key; it is recorded so that a
continued run computes the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._run.atomic import write_text
from toolkit._run.events import BatchPlan

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage
    from toolkit.costs import Workload

PLANS = "batches.json"
SHARE = {"cuda": 0.9, "cpu": 0.5}
"""The share of the free memory that a plan uses: the rest is for what the cost estimate leaves out,
and for other processes.
"""


class BatchPlans:
    """Reads and writes the plans of a run's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PLANS
        self._plans: dict[str, dict[str, int]] = _read(self._path)
        self._workloads: dict[str, Workload] = {}
        self._chosen: dict[str, BatchPlan] = {}

    def of(self, stage: Stage) -> Mapping[str, int]:
        """The plan of a stage; empty for one that makes none."""
        return self._plans.get(stage.id, {})

    def expect(self, stage: Stage, workload: Workload) -> None:
        """Remember the workload of a stage until its first worker is known."""
        if stage.part.estimates.batch_plan is not None and stage.id not in self._plans:
            self._workloads[stage.id] = workload

    def fix(self, stage: Stage, memory: Callable[[bool], tuple[str, int]]) -> BatchPlan | None:
        """Choose a stage's plan before its first step, and return the event to record; None if
        there is nothing new. `memory` gives the kind of device and its free bytes, on the CPU if it
        is called with True.
        """
        workload = self._workloads.pop(stage.id, None)
        choose = stage.part.estimates.batch_plan
        if workload is None or choose is None:
            return None
        device, free = memory(_on_cpu(stage))
        plan = dict(choose(stage.params, workload, int(free * SHARE[device]), device))
        self._set(stage, plan)
        self._chosen[stage.id] = BatchPlan(stage=stage.id, device=device, free=free, plan=plan)
        return self._chosen[stage.id]

    def halve(self, stage: Stage) -> Mapping[str, int] | None:
        """Halve a stage's batches after one of its steps ran out of memory; None if they cannot be
        halved. Later steps, also of a continued run, use the smaller ones.
        """
        plan = self.of(stage)
        smaller = {name: max(1, size // 2) for name, size in plan.items()}
        if smaller == dict(plan):
            return None
        self._set(stage, smaller)
        return smaller

    def event(self, stage: Stage) -> BatchPlan | None:
        """The current plan of a stage, to be recorded; None unless it was chosen here."""
        chosen = self._chosen.get(stage.id)
        return chosen and replace(chosen, plan=self.of(stage))

    def _set(self, stage: Stage, plan: dict[str, int]) -> None:
        self._plans[stage.id] = plan
        write_text(self._path, json.dumps(self._plans, indent=1, sort_keys=True) + "\n")


def _on_cpu(stage: Stage) -> bool:
    """Whether the spec itself puts the stage's model on the CPU."""
    device = stage.model and stage.model.part.device
    return bool(stage.model and device and device(stage.model.params) == "cpu")


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        plans: dict[str, dict[str, int]] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return plans
