"""Check what pydantic cannot: relations between entries of a spec, and between specs."""

from __future__ import annotations

import graphlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toolkit._spec.overlay import label
from toolkit._spec.problems import there
from toolkit._spec.spec import EXAMINE, SOURCE, From, PartRef, Spec, StageSpec
from toolkit._spec.sweep import swept
from toolkit._spec.yaml import Node, SpecPath, expand, load_yaml
from toolkit.errors import SpecError, nearest


def relation_problems(spec: Spec, root: Node) -> Iterator[tuple[SpecPath, str]]:
    """The problems between entries of one spec, each as a path and a sentence."""
    indices: dict[str, int] = {}
    for index, stage in enumerate(spec.stages):
        path: SpecPath = ("stages", index, "id")
        if stage.id == SOURCE:
            yield path, f"'{SOURCE}' is reserved for the samples of `samples:`; choose another id."
        elif stage.id == EXAMINE:
            yield path, f"'{EXAMINE}' is reserved for the examination of SAEs; choose another id."
        elif stage.id in indices:
            where = root.find(("stages", indices[stage.id], "id")).location
            yield (
                path,
                f"There already is a stage '{stage.id}' ({where}); give each stage its own id.",
            )
        indices.setdefault(stage.id, index)
    yield from _needs_problems(spec, indices)
    yield from _part_problems(spec, root)


def _needs_problems(spec: Spec, indices: Mapping[str, int]) -> Iterator[tuple[SpecPath, str]]:
    for index, stage in enumerate(spec.stages):
        for number, need in enumerate(stage.needs):
            if isinstance(need, From):
                if need.spec is None:
                    text = f"Refer to a stage of this spec by its id: write '{need.stage}'."
                    yield ("stages", index, "needs", number), text
            elif need != SOURCE and need not in indices:
                known = f"{nearest(need, indices)} Stages: {', '.join(indices)}."
                yield ("stages", index, "needs", number), f"There is no stage '{need}'.{known}"
    own_needs = {
        stage.id: [need for need in stage.needs if isinstance(need, str)] for stage in spec.stages
    }
    if cycle := _cycle(own_needs):
        path: SpecPath = ("stages", indices[cycle[0]], "needs")
        yield (
            path,
            f"Stages need each other in a circle: {' -> '.join(cycle)}. Remove one of "
            f"these `needs`.",
        )


def _cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle of needs, as ids, starting with the stage that is first in the spec; empty if there
    is none.
    """
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        around = [str(name) for name in error.args[1]][:0:-1]
        start = around.index(min(around, key=list(needs).index))
        return [*around[start:], *around[:start], around[start]]
    return []


def _part_problems(spec: Spec, root: Node) -> Iterator[tuple[SpecPath, str]]:
    for path, part in _parts(spec):
        if part.from_ and path[-1] != "samples":
            yield (*path, "from"), "Only `samples` can come from a stage; remove it here."
        elif (
            part.from_
            and part.from_.spec is None
            and part.from_.stage not in (ids := [stage.id for stage in spec.stages])
        ):
            known = f"{nearest(part.from_.stage, ids)} Stages: {', '.join(ids)}."
            yield (*path, "from", "stage"), f"There is no stage '{part.from_.stage}'.{known}"
        if part.name and path[0] != "sinks":
            yield (*path, "name"), "Only sinks have a name; remove it here."
    indices: dict[str, int] = {}
    for index, sink in enumerate(spec.sinks):
        if sink.name and indices.setdefault(sink.name, index) != index:
            where = root.find(("sinks", indices[sink.name], "name")).location
            yield (
                ("sinks", index, "name"),
                f"There already is a sink '{sink.name}' ({where}); give each its own name.",
            )


def _parts(spec: Spec) -> Iterator[tuple[SpecPath, PartRef]]:
    """Every part of the spec that is not a stage, with its path."""
    owners: list[tuple[SpecPath, Spec | StageSpec]] = [((), spec)]
    owners += [(("stages", index), stage) for index, stage in enumerate(spec.stages)]
    for i, owner in owners:
        for key, part in (("model", owner.model), ("saes", owner.saes), ("samples", owner.samples)):
            if part is not None:
                yield (*i, key), part
    yield from ((("sinks", index), sink) for index, sink in enumerate(spec.sinks))


def check_chain(root: Node, path: Path, trail: tuple[str, ...], seen: set[str]) -> None:
    """Follow `from` from file to file. Each file must exist and have the stage, and there must be
    no cycle.
    """
    for index, source in other_specs(root):
        file, stage = expand(source.value["spec"]), expand(source.value["stage"])
        where = f"{source.value['spec'].location}: {root.dotted(index)}.spec"
        target = os.path.realpath(path.parent / file)
        if target in trail:
            names = [os.path.basename(name) for name in (*trail[trail.index(target) :], target)]
            raise SpecError(
                f"{where}: The specs refer to each other in a circle: {' -> '.join(names)}. "
                "Remove one of the references."
            )
        try:
            other = swept(load_yaml(Path(target)).root)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None
        _check_stage(
            other, stage, f"{source.value['stage'].location}: {root.dotted(index)}.stage", file
        )
        if target not in seen:
            seen.add(target)
            check_chain(other, Path(target), (*trail, target), seen)


def other_specs(root: Node) -> Iterator[tuple[SpecPath, Node]]:
    """The places that name a stage of another spec: `from` of samples, and entries of `needs`."""
    paths: list[SpecPath] = [("samples", "from")]
    for index in range(_length(root, ("stages",))):
        paths.append(("stages", index, "samples", "from"))
        needs = ("stages", index, "needs")
        paths += [(*needs, number) for number in range(_length(root, needs))]
    for i in paths:
        source = there(root, i)
        if source is None or not isinstance(source.value, dict):
            continue
        if all(
            isinstance(getattr(source.value.get(key), "value", None), str)
            for key in ("spec", "stage")
        ):
            yield i, source


def _length(root: Node, path: SpecPath) -> int:
    """The number of entries of the list at this path; 0 if there is none."""
    node = there(root, path)
    return len(node.value) if node is not None and isinstance(node.value, list) else 0


def _check_stage(other: Node, stage: str, where: str, file: str) -> None:
    stages = there(other, ("stages",))
    items = stages.value if stages is not None and isinstance(stages.value, list) else []
    ids = [name for item in items if (name := label(item, "id"))]
    if stage not in (*ids, SOURCE):
        raise SpecError(
            f"{where}: {file} has no stage '{stage}'.{nearest(stage, ids)} Its stages: "
            f"{', '.join(ids) or 'none'}."
        )
