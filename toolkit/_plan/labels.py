"""Check that the samples have the labels and groups that stages name, so that a misspelt one is
refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from toolkit.errors import SpecError, nearest
from toolkit.parts import Labels, LabelUse, SourcePart, TablePart

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage
    from toolkit._spec.load import LoadedSpec

SHOWN = 12
"""Keys or values that a message lists."""


def check_labels(loaded: LoadedSpec, stages: tuple[Stage, ...]) -> None:
    """Refuse a metadata key or a group that no sample has, as far as the sources declare them."""
    by_id = {stage.id: stage for stage in stages}
    problems = []
    for number, spec in enumerate(loaded.spec.stages):
        stage = by_id[spec.id]
        sources = [by_id[need] for need in stage.needs if isinstance(by_id[need].part, SourcePart)]
        known = [labels for source in sources if (labels := _labels(source, by_id)) is not None]
        if not known or len(known) < len(sources) or stage.part.labels.used is None:
            continue
        labels = _together(known)
        names = ", ".join(_file_or_id(source) for source in sources)
        for use in stage.part.labels.used(stage.params):
            for field, problem in _problems(use, labels, names):
                path = ("stages", number, "with", field)
                problems.append(f"{loaded.field(path)}: {problem}")
    if problems:
        raise SpecError("\n".join(problems))


def _labels(source: Stage, by_id: Mapping[str, Stage]) -> dict[str, set[str] | None] | None:
    """The metadata keys of a source's samples with their values; None if they are unknown."""
    declared = _declared(source)
    if isinstance(source.part, SourcePart) and source.part.keeps_labels:
        (origin,) = source.needs
        inherited = _declared(by_id[origin])
        declared = None if inherited is None else {**inherited, **(declared or {})}
    if declared is None:
        return None
    return {key: None if values is None else set(values) for key, values in declared.items()}


def _declared(stage: Stage) -> Labels | None:
    """The labels that a stage's files or its part declare."""
    if stage.files is not None and "labels" in stage.files.facts:
        declared: Labels = stage.files.facts["labels"]
        return declared
    if isinstance(stage.part, TablePart) and stage.part.labels.offered is not None:
        return stage.part.labels.offered(stage.params)
    return None


def _together(known: list[dict[str, set[str] | None]]) -> dict[str, set[str] | None]:
    labels: dict[str, set[str] | None] = {}
    for source_labels in known:
        for key, values in source_labels.items():
            before = labels.get(key, set())
            labels[key] = None if before is None or values is None else before | values
    return labels


def _file_or_id(source: Stage) -> str:
    return source.files.name if source.files is not None else f"'{source.id}'"


def _problems(
    use: LabelUse, labels: dict[str, set[str] | None], names: str
) -> Iterator[tuple[str, str]]:
    if use.key not in labels:
        yield (
            use.field,
            f"the samples of {names} have no metadata key '{use.key}'."
            f"{nearest(use.key, labels)} Their keys: {_listed(labels)}.",
        )
        return
    values = labels[use.key]
    if values is None:
        return
    for value in use.values:
        if value not in values:
            yield (
                use.values_field or use.field,
                f"no sample of {names} has {use.key} '{value}'.{nearest(value, values)} "
                f"Its values: {_listed(values)}.",
            )


def _listed(names: dict[str, set[str] | None] | set[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return (", ".join(ordered[:SHOWN]) or "none") + more
