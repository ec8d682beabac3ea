"""Compare the steps of a plan with those in the ledger: how long they will take, and why they have
to be computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import differences

if TYPE_CHECKING:
    from pydantic import BaseModel

    from toolkit._plan.plan import Stage, Step
    from toolkit.costs import Workload
    from toolkit.ledger import StepRow


def forecast_seconds(
    todo: Sequence[Step], earlier: Sequence[StepRow], stage: Stage, load: Workload | None = None
) -> float | None:
    """The forecast seconds of work for these steps, from earlier steps of the same part on the same
    model and SAEs; None if there are none. Steps of equal params count before others. With the
    workload of the whole stage, seconds are in proportion to operations.
    """
    same = _like(stage, earlier)
    if not same:
        return None
    seconds = sum(row.seconds for row in same)
    took = [_operations(stage, _params_of(row, stage), (row.first, row.last), load) for row in same]
    due = [_operations(stage, stage.params, (step.first, step.last), load) for step in todo]
    if all(took) and all(due):
        return seconds / sum(took) * sum(due)
    return len(todo) * seconds / len(same)


def rows_per_unit(stage: Stage, earlier: Sequence[StepRow]) -> dict[str, float]:
    """The rows of each table that earlier steps of the same part, on the same model and SAEs, wrote
    for each of their units; empty if there are none.
    """
    counted = [
        (row.tables, row.last - row.first)
        for row in _like(stage, earlier)
        if row.first is not None and row.last is not None
    ]
    units = sum(count for _, count in counted)
    tables = {table for rows, _ in counted for table in rows}
    return {
        table: sum(rows.get(table, 0) for rows, _ in counted) / units
        for table in sorted(tables)
        if units
    }


def _like(stage: Stage, earlier: Sequence[StepRow]) -> list[StepRow]:
    """Earlier steps of the same part on the same model and SAEs: those of equal params if there are
    any, else all.
    """
    material = stage.material()
    same = [
        row
        for row in earlier
        if row.part == stage.part.name and _loads(json.loads(row.material)) == _loads(material)
    ]
    params = material["params"]
    return [row for row in same if json.loads(row.material)["params"] == params] or same


def _params_of(row: StepRow, stage: Stage) -> BaseModel | None:
    """The params of an earlier step; None if they are no longer valid."""
    recorded = json.loads(row.material)["params"]
    try:
        return type(stage.params).model_validate({**stage.params.model_dump(), **recorded})
    except ValueError:
        return None


def _operations(
    stage: Stage,
    params: BaseModel | None,
    span: tuple[int | None, int | None],
    load: Workload | None,
) -> float:
    """The operations of the part of a stage with these params that a step covers; 0 if unknown."""
    price, (first, last) = stage.part.estimates.cost, span
    if params is None or load is None or price is None:
        return 0.0
    operations = price(params, load).flops
    if first is None or last is None:
        return operations
    steps = stage.part.steps
    if steps.features is not None:
        total = steps.features(params, load.saes)
    else:
        total = load.samples if steps.units is None else load.units
    return operations * (last - first) / total if total else 0.0


def _loads(material: Mapping[str, Any]) -> list[Any]:
    return [material.get("model"), material.get("saes")]


def reason(step: Step, earlier: Sequence[StepRow]) -> str:
    """Why a step has to be computed: what changed since the newest step of the same experiment,
    stage and index in the ledger.
    """
    same = [row for row in earlier if row.index == step.index]
    if not same:
        return "new"
    newest = max(same, key=lambda row: row.committed_at)
    return f"changed: {differences(newest.material, step.material)}"
