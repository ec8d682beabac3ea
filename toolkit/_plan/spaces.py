"""Whether a stage that is handed feature numbers uses the SAEs that they are of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.errors import SpecError

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage
    from toolkit._spec.spec import LoadedSpec


def check_spaces(loaded: LoadedSpec, stages: tuple[Stage, ...]) -> None:
    """Refuse a stage that reads features of one release and uses SAEs of another. Layers and
    sparsities of one release are told apart when their files are read.
    """
    by_id = {stage.id: stage for stage in stages}
    for number, spec in enumerate(loaded.spec.stages):
        stage = by_id[spec.id]
        if stage.saes is None or "features" not in stage.part.reads:
            continue
        extractions = list(_extractions(stage, by_id))
        names = {_release(extraction) for extraction in extractions}
        if not names or _release(stage) in names:
            continue
        path = ("stages", number, "saes") if spec.saes else ("stages", number, "needs")
        releases = ", ".join(
            f"{_release(extracted)} (stage '{extracted.id}')" for extracted in extractions
        )
        raise SpecError(
            f"{loaded.where(path)}: {'.'.join(map(str, path))}: stage '{stage.id}' reads features "
            f"of {releases} and uses {_release(stage)}. A feature number means something in its "
            "own space only. Use the SAEs that the features were extracted with, or extract with "
            "these."
        )


def _extractions(stage: Stage, by_id: dict[str, Stage]) -> Iterator[Stage]:
    """The stages before this one that encode with SAEs."""
    seen: set[str] = set()
    waiting = list(stage.needs)
    while waiting:
        id = waiting.pop()
        if id in seen:
            continue
        seen.add(id)
        before = by_id[id]
        waiting += before.needs
        if before.saes is not None and "activations" in before.writes():
            yield before


def _release(stage: Stage) -> str:
    """The model and the SAEs of a stage, by name and revision."""
    assert stage.saes is not None
    saes = f"{stage.saes.identity.name}@{stage.saes.identity.revision[:12]}"
    return f"{stage.model.identity.name}/{saes}" if stage.model else saes
