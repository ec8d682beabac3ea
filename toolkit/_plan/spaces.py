"""Check that a stage that reads feature numbers uses the SAEs that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toolkit._plan.texts import facts
from toolkit.errors import SpecError

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage
    from toolkit._spec.load import LoadedSpec

SHOWN = 4
"""SAEs that a message lists."""


def check_spaces(loaded: LoadedSpec, stages: tuple[Stage, ...]) -> None:
    """Refuse a stage that reads features and uses none of the SAEs that they belong to, such as
    SAEs of another release, layer or sparsity.
    """
    by_id = {stage.id: stage for stage in stages}
    for number, spec in enumerate(loaded.spec.stages):
        stage = by_id[spec.id]
        _check_confirmed(loaded, number, stage, by_id)
        if stage.saes is None or "features" not in stage.part.reads:
            continue
        extractions = list(_extractions(stage, by_id))
        if not extractions or any(_share(stage, extraction) for extraction in extractions):
            continue
        path = ("stages", number, "saes") if spec.saes else ("stages", number, "needs")
        of, uses = _named(stage, extractions)
        raise SpecError(
            f"{loaded.field(path)}: stage '{stage.id}' reads features "
            f"of {of} and uses {uses}. A feature number only has a meaning in its own space. Use "
            "the SAEs that the features were extracted with, or extract with these."
        )


def _check_confirmed(
    loaded: LoadedSpec, number: int, stage: Stage, by_id: dict[str, Stage]
) -> None:
    """Refuse a stage that confirms the results of a needed one in activations of other SAEs than
    theirs.
    """
    compares = stage.part.estimates.comparison
    comparison = None if compares is None else compares(stage.params, facts(stage.model))
    if comparison is None or not comparison.discovered:
        return
    needs = [by_id[id] for id in stage.needs]
    reads = [
        reader for reader in needs if reader.saes is not None and "activations" in reader.writes()
    ]
    for before in needs:
        extractions = list(_extractions(before, by_id)) if "features" in before.writes() else []
        if not reads or not extractions:
            continue
        if any(_share(reader, other) for reader in reads for other in extractions):
            continue
        path = ("stages", number, "needs")
        of, uses = _named(reads[0], extractions)
        raise SpecError(
            f"{loaded.field(path)}: stage '{stage.id}' confirms "
            f"results of stage '{before.id}' in {of}, but reads activations of {uses} (stage "
            f"'{reads[0].id}'). A feature number only has a meaning in its own space. Let "
            "the stage need an extraction with the same SAEs."
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


def _share(first: Stage, other: Stage) -> bool:
    """Whether two stages may have an SAE in common, as far as configs and headers show."""
    if _release(first) != _release(other):
        return False
    for fact in ("saes", "layers"):
        known = [_listed(stage, fact) for stage in (first, other)]
        if all(known):
            return not set(known[0]).isdisjoint(known[1])
    return True


def _listed(stage: Stage, fact: str) -> Sequence[str]:
    assert stage.saes is not None
    return [str(value) for value in stage.saes.identity.facts.get(fact) or ()]


def _release(stage: Stage) -> str:
    """The model and the SAEs of a stage, by name and revision."""
    assert stage.saes is not None
    saes = f"{stage.saes.identity.name}@{stage.saes.identity.revision[:12]}"
    return f"{stage.model.identity.name}/{saes}" if stage.model else saes


def _named(stage: Stage, extractions: Sequence[Stage]) -> tuple[str, str]:
    """The SAEs of the features, and the SAEs that the stage uses: releases, or SAEs of one
    release.
    """
    apart = all(_release(extraction) != _release(stage) for extraction in extractions)
    describe = _release if apart else _saes
    of_features = ", ".join(
        f"{describe(extraction)} (stage '{extraction.id}')" for extraction in extractions
    )
    return of_features, describe(stage)


def _saes(stage: Stage) -> str:
    """The SAEs of a stage as addresses without an index, or its release and layers."""
    assert stage.saes is not None
    if not (saes := _listed(stage, "saes")):
        return f"{_release(stage)}, layers {', '.join(_listed(stage, 'layers')) or 'unknown'}"
    model = f"{stage.model.identity.name}/" if stage.model else ""
    more = f" and {len(saes) - SHOWN} more" if len(saes) > SHOWN else ""
    return ", ".join(f"{model}{sae}" for sae in saes[:SHOWN]) + more
