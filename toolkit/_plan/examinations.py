"""The implicit stages that examine SAEs before any stage uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit._plan.keys import canonical
from toolkit._plan.plan import SAMPLES, Stage, is_source
from toolkit._spec.load import LoadedSpec
from toolkit._spec.spec import EXAMINE
from toolkit.errors import SpecError
from toolkit.parts import StagePart

if TYPE_CHECKING:
    from toolkit._plan.resolve import Resolved
    from toolkit._plugins.registry import Parts


def examinations_of(resolved: Resolved, parts: Parts, stages: Sequence[Stage]) -> list[Stage]:
    """The implicit stages that examine SAEs before any use: one for each model, SAEs and source."""
    mode = resolved.loaded.spec.examine
    results: dict[str, Stage] = {}
    for number, stage in enumerate(stages):
        about = _examined(stage)
        if mode == "off" or about is None or about in results:
            continue
        assert stage.saes is not None
        part = parts.get("stage", str(stage.saes.part.examine))
        assert isinstance(part, StagePart)
        id = EXAMINE if not results else f"{EXAMINE}.{len(results) + 1}"
        needs = (_source_of(resolved.loaded, number, stage),)
        results[about] = replace(
            stage,
            id=id,
            part=part,
            params=part.params(),
            needs=needs,
            limit=None,
            gate=mode,
            hidden={},
        )
    return list(results.values())


def _source_of(loaded: LoadedSpec, number: int, stage: Stage) -> str:
    """The source whose samples an examination reads: that of the stage, else the spec's."""
    source = next(
        (need for need in stage.needs if is_source(need)), SAMPLES if loaded.spec.samples else None
    )
    if source is None:
        raise SpecError(
            f"{loaded.where(('stages', number))}: stage '{stage.id}' uses SAEs, and the spec names "
            "no samples to examine them on. Add `samples:`, or set `examine: off`."
        )
    return source


def _examined(stage: Stage) -> str | None:
    """What an examination covers; None for a stage that uses no SAEs."""
    if stage.saes is None or stage.saes.part.examine is None:
        return None
    return canonical(
        {"model": stage.model and stage.model.material(), "saes": stage.saes.material()}
    )


def examiners_of(stage: Stage, examinations: Sequence[Stage]) -> tuple[str, ...]:
    about = _examined(stage)
    return tuple(
        other.id for other in examinations if about is not None and _examined(other) == about
    )
