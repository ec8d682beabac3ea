"""Whether the samples at hand have the labels and groups that stages ask for: a slip in a name is
found before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit.errors import SpecError, nearest
from toolkit.parts import LabelUse, SourcePart

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage
    from toolkit._spec.spec import LoadedSpec

SHOWN = 12
"""Keys or values that a message lists."""


def check_labels(loaded: LoadedSpec, stages: tuple[Stage, ...]) -> None:
    """Refuse a metadata key or a group that no sample has, as far as the sources tell."""
    by_id = {stage.id: stage for stage in stages}
    problems = []
    for number, spec in enumerate(loaded.spec.stages):
        stage = by_id[spec.id]
        sources = [by_id[need] for need in stage.needs if isinstance(by_id[need].part, SourcePart)]
        known = [labels for source in sources if (labels := _labels(source)) is not None]
        if not known or len(known) < len(sources) or stage.part.label_uses is None:
            continue
        labels = _together(known)
        names = ", ".join(_file_or_id(source) for source in sources)
        for use in stage.part.label_uses(stage.params):
            for field, problem in _problems(use, labels, names):
                at = ("stages", number, "with", field)
                problems.append(f"{loaded.where(at)}: stages.{number}.with.{field}: {problem}")
    if problems:
        raise SpecError("\n".join(problems))


def _labels(source: Stage) -> dict[str, set[str] | None] | None:
    """The metadata keys of a source with their values; None when nothing tells."""
    found = None
    if source.files is not None and "labels" in source.files.facts:
        found = source.files.facts["labels"]
    elif isinstance(source.part, SourcePart) and source.part.labels is not None:
        found = source.part.labels(source.params)
    if found is None:
        return None
    return {key: None if values is None else set(values) for key, values in found.items()}


def _together(known: list[dict[str, set[str] | None]]) -> dict[str, set[str] | None]:
    labels: dict[str, set[str] | None] = {}
    for one in known:
        for key, values in one.items():
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
