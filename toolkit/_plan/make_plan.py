"""Make a plan: bind every stage to its part, check that stages fit together, and order them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit._plan.examinations import examinations_of, examiners_of
from toolkit._plan.executors import bind_executors
from toolkit._plan.keys import canonical, key_of
from toolkit._plan.labels import check_labels
from toolkit._plan.plan import SAMPLES, Plan, Sink, Stage
from toolkit._plan.resolve import Loadable, Resolved, needed_elsewhere, part_at
from toolkit._plan.spaces import check_spaces
from toolkit._spec.defaults import DEFAULT_EXECUTOR
from toolkit._spec.load import LoadedSpec, validate_params
from toolkit._spec.yaml import SpecPath
from toolkit.errors import SpecError, choices, nearest
from toolkit.parts import ModelPart, SinkParams, StagePart

if TYPE_CHECKING:
    from pydantic import BaseModel

    from toolkit._plugins.registry import Parts
    from toolkit._spec.spec import From, PartRef, Spec, StageSpec


def make_plan(resolved: Resolved, parts: Parts, on: str = DEFAULT_EXECUTOR) -> Plan:
    """Bind every stage to its part, check that tables reach the stages that read them, and put them
    in order. `on` is the executor of the stages that name none.
    """
    with resolved.secrets().kept_out_of_errors():
        return _make_plan(resolved, parts, on)


def _make_plan(resolved: Resolved, parts: Parts, on: str) -> Plan:
    loaded = resolved.loaded
    stages = tuple(replace(stage, on=stage.on or on) for stage in _stages(resolved, parts))
    _check_tables(loaded, stages)
    check_labels(loaded, stages)
    check_spaces(loaded, stages)
    sinks = tuple(_sinks(loaded, parts))
    executors = bind_executors(resolved, parts, stages)
    run = _run_id(resolved, stages)
    return Plan(loaded, run, stages, sinks, resolved.secrets(), executors)


def _stages(resolved: Resolved, parts: Parts) -> tuple[Stage, ...]:
    spec = resolved.loaded.spec
    stages: dict[str, Stage] = {}
    if spec.samples:
        _add_source(stages, resolved, parts, (SAMPLES,), spec.samples, SAMPLES)
    for number, stage in enumerate(spec.stages):
        if stage.samples:
            _add_source(
                stages,
                resolved,
                parts,
                ("stages", number, SAMPLES),
                stage.samples,
                f"{stage.id}.{SAMPLES}",
                stage.seed,
            )
        for path, need in needed_elsewhere(number, stage):
            drawn = _drawn_from(resolved, parts, path, need)
            stages.update({before.id: before for before in drawn})
    stages_of_spec = _mark_replaced_models(
        [
            _stage(resolved, parts, stages, number, stage)
            for number, stage in enumerate(spec.stages)
        ],
        stages.values(),
    )
    examinations = examinations_of(resolved, parts, stages_of_spec)
    gated = [replace(stage, after=examiners_of(stage, examinations)) for stage in stages_of_spec]
    return tuple(_ordered(resolved.loaded, [*stages.values(), *examinations, *gated]))


def _add_source(
    into: dict[str, Stage],
    resolved: Resolved,
    parts: Parts,
    path: SpecPath,
    ref: PartRef,
    id: str,
    seed: int | None = None,
) -> None:
    """Add the source at `path`, after the stages of another experiment that it draws from."""
    loaded, spec = resolved.loaded, resolved.loaded.spec
    part = part_at(loaded, parts, "source", path, ref.uses)
    params = validate_params(
        loaded, part.params, ref.with_, (*path, "with"), f"source part '{part.name}'", parts
    )
    before = _drawn_from(resolved, parts, (*path, "from"), ref.from_) if ref.from_ else []
    into.update({stage.id: stage for stage in before})
    needs = (before[-1].id,) if before else (ref.from_.stage,) if ref.from_ else ()
    model = _loadable(resolved, "model", (), part.uses_model, id)
    into[id] = Stage(
        id,
        spec.name,
        part,
        params,
        needs,
        spec.seed if seed is None else seed,
        _limit(spec),
        model,
        None,
        resolved.files.get(path),
        hidden=loaded.written((*path, "with"), params),
    )


def _drawn_from(resolved: Resolved, parts: Parts, path: SpecPath, origin: From) -> list[Stage]:
    """The stage of another experiment that the spec names at `path`, after the stages that it
    needs, each as `spec/id`. Empty if the stage is one of this spec.
    """
    if origin.spec is None:
        return []
    upstream = resolved.upstream[path]
    stages = _stages(upstream, parts)
    ids = [stage.id for stage in stages]
    if origin.stage not in ids:
        at = (*path, "stage")
        raise SpecError(
            f"{resolved.loaded.field(at)}: {origin.spec} has no stage "
            f"'{origin.stage}'.{nearest(origin.stage, ids)} Stages: {choices(ids)}."
        )
    needed = {origin.stage}
    for stage in reversed(stages):
        needed.update((*stage.needs, *stage.after) if stage.id in needed else ())
    prefix = upstream.loaded.spec.name
    drawn = [stage for stage in stages if stage.id in needed]
    return [_prefixed(stage, prefix) for stage in drawn]


def _prefixed(stage: Stage, prefix: str) -> Stage:
    needs, after = (tuple(f"{prefix}/{id}" for id in ids) for ids in (stage.needs, stage.after))
    return replace(stage, id=f"{prefix}/{stage.id}", needs=needs, after=after)


def _stage(
    resolved: Resolved, parts: Parts, sources: Mapping[str, Stage], number: int, stage: StageSpec
) -> Stage:
    """Bind a stage. It needs the source if it reads one of its tables."""
    loaded, spec, path = resolved.loaded, resolved.loaded.spec, ("stages", number)
    part = part_at(loaded, parts, "stage", path, stage.uses)
    params = validate_params(
        loaded, part.params, stage.with_, (*path, "with"), f"stage part '{part.name}'", parts
    )
    named = f"{stage.id}.{SAMPLES}" if stage.samples else SAMPLES
    model = _loadable(resolved, "model", path, part.uses_model, stage.id)
    saes = _loadable(resolved, "saes", path, part.uses_saes, stage.id)
    _check_fit(loaded, path, model, saes)
    _check_params(loaded, path, part, params, model)
    source = (
        (named,) if named in sources and set(part.reads) & set(sources[named].part.writes) else ()
    )
    return Stage(
        stage.id,
        spec.name,
        part,
        params,
        (*source, *(need for need in _needs(resolved, number, stage) if need not in source)),
        spec.seed if stage.seed is None else stage.seed,
        _limit(spec) if part.steps.units else None,
        model,
        saes,
        resolved.files.get(path),
        on=stage.on or "",
        hidden=loaded.written((*path, "with"), params),
    )


def _needs(resolved: Resolved, number: int, stage: StageSpec) -> Iterator[str]:
    """The ids of the needed stages; `spec/id` for those of other experiments."""
    for index, need in enumerate(stage.needs):
        if isinstance(need, str):
            yield need
        else:
            upstream = resolved.upstream["stages", number, "needs", index]
            yield f"{upstream.loaded.spec.name}/{need.stage}"


def _mark_replaced_models(stages: list[Stage], before: Iterable[Stage]) -> list[Stage]:
    """Mark stages whose model is replaced by a table of a stage that they need: they load none."""
    writes = {stage.id: stage.writes() for stage in (*before, *stages)}

    def is_replaced(stage: Stage) -> bool:
        table = stage.part.replaces_model
        return table is not None and any(table in writes.get(need, ()) for need in stage.needs)

    return [replace(stage, model_replaced=is_replaced(stage)) for stage in stages]


def _check_fit(
    loaded: LoadedSpec,
    field_path: SpecPath,
    model: Loadable[Any] | None,
    saes: Loadable[Any] | None,
) -> None:
    """Refuse SAEs that cannot belong to the model, as far as both are known before loading."""
    if model is None or saes is None:
        return
    has, wants = model.identity.facts, saes.identity.facts
    path = (*field_path, "saes") if loaded.spec.stages[int(field_path[1])].saes else ("saes",)
    where = loaded.field(path)
    if {"width"} <= has.keys() and {"inputs"} <= wants.keys() and has["width"] != wants["inputs"]:
        raise SpecError(
            f"{where}: the SAEs of {saes.identity.name} have the input width "
            f"{wants['inputs']}, but the stream of {model.identity.name} is {has['width']} "
            "wide. They belong to another model; name SAEs of this one."
        )
    beyond = [layer for layer in wants.get("layers", ()) if layer >= has.get("layers", layer + 1)]
    if beyond:
        raise SpecError(
            f"{where}: {saes.identity.name} has an SAE for layer {beyond[0]}, but "
            f"{model.identity.name} has only the layers 0 to {has['layers'] - 1}. Leave the "
            "SAE out with saes.with.layers, or name its model."
        )


def _check_params(
    loaded: LoadedSpec,
    path: SpecPath,
    part: StagePart,
    params: BaseModel,
    model: Loadable[ModelPart] | None,
) -> None:
    """Refuse params that the part's own check rejects for this model."""
    facts = model.identity.facts if model else {}
    problem = part.check(params, facts) if part.check else None
    if problem:
        raise SpecError(f"{loaded.field((*path, 'with'))}: {problem}")


def _limit(spec: Spec) -> int | None:
    return spec.limit.units if spec.limit else None


def _loadable(
    resolved: Resolved, field: str, path: SpecPath, needed: bool, stage: str
) -> Loadable[Any] | None:
    if not needed:
        return None
    loadable = resolved.loadables.get((*path, field)) or resolved.loadables.get((field,))
    if loadable is None:
        raise SpecError(
            f"{resolved.loaded.where(path)}: stage '{stage}' needs `{field}`, and the spec has "
            f"none. Add `{field}: {{uses: ..., with: {{...}}}}` at the top level; `toolkit "
            "plugins` lists what is installed."
        )
    return loadable


def _ordered(loaded: LoadedSpec, stages: list[Stage]) -> list[Stage]:
    """Put each stage after those it needs, otherwise in the order of the spec."""
    placed: list[Stage] = []
    waiting = list(stages)
    while waiting:
        known = {stage.id for stage in placed}
        ready = next((stage for stage in waiting if {*stage.needs, *stage.after} <= known), None)
        if ready is None:
            circle = ", ".join(stage.id for stage in waiting)
            raise SpecError(
                f"{loaded.where(())}: these stages wait for each other: {circle}. Their samples "
                "come from a stage that reads them."
            )
        placed.append(ready)
        waiting.remove(ready)
    return placed


def _check_tables(loaded: LoadedSpec, stages: tuple[Stage, ...]) -> None:
    by_id = {stage.id: stage for stage in stages}
    numbers = {stage.id: number for number, stage in enumerate(loaded.spec.stages)}
    for stage in stages:
        offered = {table for need in stage.needs for table in by_id[need].writes()}
        for missing in sorted(set(stage.part.reads) - offered):
            writers = [
                other.id for other in stages if missing in other.writes() and other is not stage
            ]
            hint = (
                f"Add one of these to its needs: {choices(writers)}."
                if writers
                else f"No stage of the spec writes '{missing}'."
            )
            path: SpecPath = (
                ("stages", numbers[stage.id])
                if stage.id in numbers
                else (SAMPLES,)
                if loaded.spec.samples
                else ()
            )
            raise SpecError(
                f"{loaded.where(path)}: stage '{stage.id}' ({stage.part.name}) reads table "
                f"'{missing}'. {hint}"
            )


def _sinks(loaded: LoadedSpec, parts: Parts) -> list[Sink]:
    sinks = []
    for number, ref in enumerate(loaded.spec.sinks):
        path: SpecPath = ("sinks", number)
        part = part_at(loaded, parts, "sink", path, ref.uses)
        params = validate_params(
            loaded, part.params, ref.with_, (*path, "with"), f"sink part '{part.name}'", parts
        )
        assert isinstance(params, SinkParams)
        sinks.append(Sink(ref.name or f"{ref.uses}-{number}", part, params))
    return sinks


def _run_id(resolved: Resolved, stages: tuple[Stage, ...]) -> str:
    """The name and a hash of everything known before the run, so that the same command gives the
    same id and continues the run.
    """
    recorded = {
        name: value
        for name, value in resolved.loaded.data.items()
        if name not in ("executors", "question", "description")
    }
    if isinstance(recorded.get("stages"), list):  # the id leaves the executor out
        recorded["stages"] = [
            {name: value for name, value in stage.items() if name != "on"}
            for stage in recorded["stages"]
        ]
    material = {"spec": recorded, "stages": [[stage.id, stage.material()] for stage in stages]}
    return f"{resolved.loaded.spec.name}-{key_of(canonical(material)).split('-')[1][:8]}"
