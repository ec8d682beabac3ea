"""Compare the steps of a plan with those in the ledger: how long they will take, and why they have
to be computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import differences

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage, Step
    from toolkit.ledger import StepRow


def forecast_seconds(todo: int, earlier: Sequence[StepRow], stage: Stage) -> float | None:
    """The forecast seconds of work for these steps, from earlier steps of the same part on the same
    model and SAEs; None if there are none.
    """
    same = [
        row
        for row in earlier
        if row.part == stage.part.name
        and _loads(json.loads(row.material)) == _loads(stage.material())
    ]
    return todo * sum(row.seconds for row in same) / len(same) if same else None


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
