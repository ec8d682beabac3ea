"""Expand a stage whose inputs are committed: its steps, which of them the store has, and why the
others are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit._plan.costs import cost_of, rows_of
from toolkit._plan.expand import expand
from toolkit._plan.plan import Plan, Stage, Step
from toolkit._plan.texts import workload
from toolkit._run.batch_plans import BatchPlans
from toolkit._run.disk import check_disk
from toolkit._run.events import RunEvent, SaeMisfit, StageForecast, StageImported, StageReady
from toolkit._run.history import forecast_seconds, reason
from toolkit._run.inputs import InputFiles
from toolkit._run.step_queue import StepQueue
from toolkit.costs import Cost
from toolkit.errors import Refused
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store import Store


@dataclass
class Expansion:
    """The steps of a stage, in order, of which some are committed."""

    steps: list[Step]
    committed: dict[str, StepRow]
    """The ledger rows of the committed ones, by key."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each other step is computed, by key."""


class StageExpander:
    """Expands the stages of one run, one after the other."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        queue: StepQueue,
        inputs: InputFiles,
        batch_plans: BatchPlans,
        emit: Callable[[RunEvent], None],
    ) -> None:
        self._plan, self._store, self._queue = plan, store, queue
        self._inputs, self._batch_plans, self._emit = inputs, batch_plans, emit
        self._left: dict[str, Cost] = {}
        self._whole: dict[str, Cost] = {}
        self._gates_passed: set[str] = set()
        self._forecast: set[str] = set()

    def expand(self, stage: Stage) -> Expansion:
        """The steps of a stage. Refuses SAEs that do not fit, and results that do not fit on
        disk.
        """
        self._pass_gates(stage)
        needs = self._queue.rows_of(stage.needs)
        samples = self._inputs.samples(stage, needs) if stage.over_samples() else None
        steps = expand(stage, needs, samples)
        committed = {row.key: row for row in self._store.steps([step.key for step in steps])}
        todo = [step for step in steps if step.key not in committed]
        if samples is not None:
            self._check_size(stage, samples, todo)
        self._queue.open(stage, steps)
        self._emit(
            StageReady(
                stage=stage.id,
                part=stage.part.name,
                steps=len(steps),
                reused=len(steps) - len(todo),
                todo=len(todo),
            )
        )
        imported = [row.origin for row in committed.values() if row.origin]
        if imported:
            origin = ", ".join(sorted(set(imported)))
            self._emit(StageImported(stage=stage.id, steps=len(imported), origin=origin))
        if not todo:
            return Expansion(steps, committed)
        earlier = self._store.steps(experiment=stage.experiment, stage=stage.id)
        load = None if samples is None else workload(samples, stage.model, stage.saes)
        self.forecast(stage, forecast_seconds(todo, earlier, stage, load), "earlier runs")
        return Expansion(steps, committed, {step.key: reason(step, earlier) for step in todo})

    def forecast(self, stage: Stage, seconds: float | None, basis: str) -> None:
        """Announce, once, how long a stage's steps will take; the report compares it with the
        actual time.
        """
        if seconds is not None and stage.id not in self._forecast:
            self._forecast.add(stage.id)
            self._emit(StageForecast(stage=stage.id, seconds=seconds, basis=basis))

    def _check_size(self, stage: Stage, samples: pa.Table, todo: list[Step]) -> None:
        load = workload(samples, stage.model, stage.saes)
        self._batch_plans.expect(stage, load)
        whole = cost_of(stage, load)
        if whole is None:
            return
        left = workload(rows_of(todo, samples), stage.model, stage.saes) if todo else None
        self._whole[stage.id] = whole
        self._left[stage.id] = cost_of(stage, left) or Cost()
        unwritten = [cost for id, cost in self._left.items() if not self._queue.is_complete(id)]
        check_disk(self._plan, unwritten, self._whole.values(), self._store.folder)

    def _pass_gates(self, stage: Stage) -> None:
        """Before a stage uses SAEs, read the result of their examination."""
        for id in stage.after:
            if id not in self._gates_passed:
                self._gates_passed.add(id)
                self._pass_gate(self._plan.stage(id))

    def _pass_gate(self, gate: Stage) -> None:
        keys = [row.key for row in self._queue.rows[gate.id]]
        rows = self._store.read("saes", keys).to_pylist()
        messages = [row["message"] for row in rows if row["message"]]
        for message in messages:
            self._emit(SaeMisfit(stage=gate.id, message=message))
        if messages and gate.gate == "stop":
            misfits = "\n".join(messages)
            raise Refused(
                f"{misfits}\nNo stage that uses these SAEs was run. `--set examine=warn` runs "
                "them anyway."
            )
