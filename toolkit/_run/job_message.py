"""The message that describes one job to a worker, as plain data, with the host's paths."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit._plan.plan import Step


def job_message(
    step: Step, folder: Path, inputs: Mapping[str, list[str]], batch: Mapping[str, int]
) -> dict[str, Any]:
    """The fields of a `job` message."""
    stage = step.stage
    return {
        "job": step.key,
        "folder": str(folder),
        "kind": stage.part.kind,
        "part": stage.part.name,
        "params": stage.params.model_dump(mode="json"),
        "seed": stage.seed,
        "limit": stage.limit,
        "batch": dict(batch),
        "features": [step.first, step.last] if stage.features() is not None else None,
        "units": [step.first, step.last] if stage.units() is not None else None,
        "model": stage.model.job() if stage.model and not stage.model_replaced else None,
        "identity": stage.model and asdict(stage.model.identity),
        "saes": stage.saes and stage.saes.job(),
        "inputs": dict(inputs),
    }


def empty_folder(folder: Path) -> Path:
    """An empty job folder, without files of an earlier attempt."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
