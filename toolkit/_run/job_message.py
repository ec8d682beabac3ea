"""The messages that describe jobs to workers, as plain data, with the host's paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage, Step


class JobMessages:
    """Makes `job` messages. Data that all steps of a stage share is made once."""

    def __init__(self) -> None:
        self._of_stages: dict[str, Mapping[str, Any]] = {}

    def make(
        self, step: Step, folder: Path, inputs: Mapping[str, list[str]], batch: Mapping[str, int]
    ) -> dict[str, Any]:
        """The fields of the message for one step."""
        stage = step.stage
        if stage.id not in self._of_stages:
            self._of_stages[stage.id] = _of_stage(stage)
        return {
            "job": step.key,
            "folder": str(folder),
            **self._of_stages[stage.id],
            "batch": dict(batch),
            "features": [step.first, step.last] if stage.features() is not None else None,
            "units": [step.first, step.last] if stage.units() is not None else None,
            "inputs": dict(inputs),
        }


def _of_stage(stage: Stage) -> dict[str, Any]:
    return {
        "kind": stage.part.kind,
        "part": stage.part.name,
        "params": stage.params.model_dump(mode="json"),
        "seed": stage.seed,
        "limit": stage.limit,
        "model": stage.model.job() if stage.model and not stage.model_replaced else None,
        "identity": stage.model and asdict(stage.model.identity),
        "saes": stage.saes and stage.saes.job(),
    }
