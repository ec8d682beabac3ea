"""The plan: stages in order with everything bound, and how a stage expands into steps. Pure: no
torch, no store, no network.

A *stage* is known before a run; its *steps* are known when its inputs have committed, since a
step's key is made of the content that it works on: the rows of its sample range, or the keys of the
steps before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import canonical, digest_of, key_of
from toolkit._plan.labels import check_labels
from toolkit._plan.resolve import Loadable, Resolved, part_at
from toolkit._plan.spaces import check_spaces
from toolkit._plan.texts import text_ranges, unit_ranges
from toolkit._spec.spec import EXAMINE, LoadedSpec, validate_params
from toolkit._spec.yaml import SpecPath
from toolkit.errors import BadInput, SpecError, choices, nearest
from toolkit.ledger import StepRow
from toolkit.parts import (
    UNHASHED,
    ExecutorPart,
    Identity,
    ModelPart,
    SaePart,
    SinkPart,
    SourcePart,
    StagePart,
)
from toolkit.secrets import NONE, Secrets, keyed_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import BaseModel

    from toolkit._plugins.loading import Parts
    from toolkit._spec.spec import PartRef, Spec, StageSpec

SAMPLES = "samples"


@dataclass(frozen=True)
class Stage:
    """One stage with its part, params, inputs and loadables. `id` is `samples` for the source,
    `spec/id` from another experiment.

    `after` has to be done first, but gives nothing that enters a key. `gate`: what happens when
    this stage finds SAEs that do not fit (`stop` or `warn`). `unloaded`: a table of the stages that
    it needs stands for its model.
    """

    id: str
    experiment: str
    part: SourcePart | StagePart
    params: BaseModel
    needs: tuple[str, ...]
    seed: int
    limit: int | None = None
    model: Loadable[ModelPart] | None = None
    saes: Loadable[SaePart] | None = None
    files: Identity | None = None
    after: tuple[str, ...] = ()
    gate: str | None = None
    unloaded: bool = False
    on: str = ""
    """The executor whose workers compute it; enters no key."""
    hidden: Mapping[str, Any] = field(default_factory=dict)

    def writes(self) -> tuple[str, ...]:
        """The tables that it writes with its params."""
        return self.part.tables(self.params)

    def split_size(self) -> int | None:
        """Samples (or units) of one step, or None when the stage is a single step."""
        size = self.part.steps.size
        return int(getattr(self.params, size)) if size else None

    def units(self) -> int | None:
        """How many units the stage makes by itself, as far as the limit allows; None when it works
        on samples.
        """
        count = self.part.steps.units
        made = int(count(self.params)) if count else None
        return made if made is None or self.limit is None else min(made, self.limit)

    def features(self) -> int | None:
        """The most features that the stage works on, if it is split by features."""
        count = self.part.steps.features
        if count is None:
            return None
        return int(count(self.params, self.saes.identity.facts if self.saes else {}))

    def over_samples(self) -> bool:
        """Whether its steps are made of ranges of samples."""
        if self.units() is not None or self.features() is not None:
            return False
        return self.part.steps.sample_limit is not None or self.split_size() is not None

    def loaded_key(self) -> str:
        """Equal for stages that can share a worker's loaded model and SAEs."""
        loaded = None if self.unloaded else self.model
        return canonical({"model": loaded and loaded.job(), "saes": self.saes and self.saes.job()})

    def material(self) -> dict[str, Any]:
        """All that can change this stage's results except its inputs. The number of samples per
        step is not part of it.
        """
        return {
            "kind": self.part.kind,
            "part": self.part.name,
            "version": self.part.version,
            "params": self._hashed_params(),
            "seed": self.seed,
            "limit": None if self.units() is not None else self.limit,
            "model": self.model and self.model.material(),
            "saes": self.saes and self.saes.material(),
            "files": self.files and self.files.digest,
        }

    def recorded_params(self) -> dict[str, Any]:
        """The params as they may be written down: environment values as the spec refers to them."""
        return {**self.params.model_dump(mode="json"), **self.hidden}

    def _hashed_params(self) -> dict[str, Any]:
        """The params without the step size and without fields that a part marked as unable to
        change results; environment values as a keyed hash.
        """
        fields = type(self.params).model_fields
        out = {name for name, field in fields.items() if field.json_schema_extra == UNHASHED}
        out.add(self.part.steps.size or "")
        return {
            name: keyed_hash(canonical({name: value})) if name in self.hidden else value
            for name, value in self.params.model_dump(mode="json").items()
            if name not in out
        }


@dataclass(frozen=True)
class Sink:
    """An export, bound to its params, with what its paths are relative to."""

    name: str
    part: SinkPart
    params: BaseModel


@dataclass(frozen=True)
class Executor:
    """An executor, bound to the params that the spec gives it."""

    part: ExecutorPart
    params: BaseModel


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each follows what it needs."""

    loaded: LoadedSpec
    run: str
    stages: tuple[Stage, ...]
    sinks: tuple[Sink, ...]
    secrets: Secrets = NONE
    executors: Mapping[str, Executor] = field(default_factory=dict)
    """The executors that the spec's `executors`, a stage's `on` or `--on` name."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.loaded.spec.name

    def stage(self, id: str) -> Stage:
        """The stage of that id."""
        return next(stage for stage in self.stages if stage.id == id)

    def own(self) -> list[Stage]:
        """The stages of this experiment, without those of the one its samples come from."""
        return [stage for stage in self.stages if stage.experiment == self.name]


@dataclass(frozen=True)
class Step:
    """A schedulable, committable piece of a stage."""

    stage: Stage
    index: int
    key: str
    material: str
    first: int | None = None
    last: int | None = None


def make_plan(resolved: Resolved, parts: Parts, on: str = "local") -> Plan:
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
    executors = _executors(loaded, parts, stages)
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
    stages_of_spec = _without_models(
        [_stage(resolved, parts, stages, number, stage) for number, stage in enumerate(spec.stages)]
    )
    examinations = _examinations(resolved, parts, stages_of_spec)
    gated = [replace(stage, after=_examiners(stage, examinations)) for stage in stages_of_spec]
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
    """The source at `path`, after the stages of another experiment that it draws from."""
    loaded, spec = resolved.loaded, resolved.loaded.spec
    part = part_at(loaded, parts, "source", path, ref.uses)
    params = validate_params(
        loaded, part.params, ref.with_, (*path, "with"), f"source part '{part.name}'", parts
    )
    before = _drawn_from(resolved, parts, path, ref)
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


def _drawn_from(resolved: Resolved, parts: Parts, path: SpecPath, ref: PartRef) -> list[Stage]:
    """The named stage of the other experiment, after the stages it needs; each as `spec/id`."""
    if ref.from_ is None or ref.from_.spec is None:
        return []
    upstream = resolved.upstream[path]
    stages = _stages(upstream, parts)
    ids = [stage.id for stage in stages]
    if ref.from_.stage not in ids:
        raise SpecError(
            f"{resolved.loaded.where((*path, 'from', 'stage'))}: "
            f"{'.'.join(map(str, path))}.from.stage: {ref.from_.spec} has no stage "
            f"'{ref.from_.stage}'.{nearest(ref.from_.stage, ids)} Stages: {choices(ids)}."
        )
    needed = {ref.from_.stage}
    for stage in reversed(stages):
        needed.update((*stage.needs, *stage.after) if stage.id in needed else ())
    prefix = upstream.loaded.spec.name
    kept = [stage for stage in stages if stage.id in needed]
    return [_renamed(stage, prefix) for stage in kept]


def _renamed(stage: Stage, prefix: str) -> Stage:
    needs, after = (tuple(f"{prefix}/{id}" for id in ids) for ids in (stage.needs, stage.after))
    return replace(stage, id=f"{prefix}/{stage.id}", needs=needs, after=after)


def _stage(
    resolved: Resolved, parts: Parts, sources: Mapping[str, Stage], number: int, stage: StageSpec
) -> Stage:
    """A stage needs the source when it reads one of its tables."""
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
        (*source, *(need for need in stage.needs if need not in source)),
        spec.seed if stage.seed is None else stage.seed,
        _limit(spec) if part.steps.units else None,
        model,
        saes,
        on=stage.on or "",
        hidden=loaded.written((*path, "with"), params),
    )


def _without_models(stages: list[Stage]) -> list[Stage]:
    """The stages; a stage whose model is replaced by a table of a stage it needs loads none."""
    writes = {stage.id: stage.writes() for stage in stages}

    def stands(stage: Stage) -> bool:
        table = stage.part.replaces_model
        return table is not None and any(table in writes.get(need, ()) for need in stage.needs)

    return [replace(stage, unloaded=stands(stage)) for stage in stages]


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
    where = f"{loaded.where(path)}: {'.'.join(map(str, path))}"
    if {"width"} <= has.keys() and {"inputs"} <= wants.keys() and has["width"] != wants["inputs"]:
        raise SpecError(
            f"{where}: the SAEs of {saes.identity.name} read {wants['inputs']} numbers, "
            f"{model.identity.name} has streams of {has['width']}. They belong to another model; "
            "name SAEs of this one."
        )
    beyond = [layer for layer in wants.get("layers", ()) if layer >= has.get("layers", layer + 1)]
    if beyond:
        raise SpecError(
            f"{where}: {saes.identity.name} has an SAE for layer {beyond[0]}; "
            f"{model.identity.name} has the layers 0 to {has['layers'] - 1}. Leave it out with "
            "saes.with.layers, or name the model that it belongs to."
        )


def _check_params(
    loaded: LoadedSpec,
    path: SpecPath,
    part: StagePart,
    params: BaseModel,
    model: Loadable[ModelPart] | None,
) -> None:
    """Refuse what the part itself says cannot work on this model."""
    facts = model.identity.facts if model else {}
    problem = part.check(params, facts) if part.check else None
    if problem:
        raise SpecError(
            f"{loaded.where((*path, 'with'))}: {'.'.join(map(str, path))}.with: {problem}"
        )


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
            f"{resolved.loaded.where(path)}: stage '{stage}' needs `{field}`, and the spec names "
            f"none. Add `{field}: {{uses: ..., with: {{...}}}}` at the top level; `toolkit "
            "plugins` lists what is installed."
        )
    return loadable


def _examinations(resolved: Resolved, parts: Parts, stages: Sequence[Stage]) -> list[Stage]:
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
        needs = (_read_by(resolved.loaded, number, stage),)
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


def _read_by(loaded: LoadedSpec, number: int, stage: Stage) -> str:
    """The source whose samples an examination reads: that of the stage, else the spec's."""
    source = next(
        (need for need in stage.needs if is_source(need)), SAMPLES if loaded.spec.samples else None
    )
    if source is None:
        raise SpecError(
            f"{loaded.where(('stages', number))}: stage '{stage.id}' uses SAEs, and the spec names "
            "no samples to examine them on. Add `samples:`, or say `examine: off`."
        )
    return source


def _examined(stage: Stage) -> str | None:
    """What an examination covers; None for a stage that uses no SAEs."""
    if stage.saes is None or stage.saes.part.examine is None:
        return None
    return canonical(
        {"model": stage.model and stage.model.material(), "saes": stage.saes.material()}
    )


def _examiners(stage: Stage, examinations: Sequence[Stage]) -> tuple[str, ...]:
    about = _examined(stage)
    return tuple(
        other.id for other in examinations if about is not None and _examined(other) == about
    )


def _ordered(loaded: LoadedSpec, stages: list[Stage]) -> list[Stage]:
    """Each stage after those it needs, otherwise as written."""
    placed: list[Stage] = []
    waiting = list(stages)
    while waiting:
        known = {stage.id for stage in placed}
        ready = next((stage for stage in waiting if {*stage.needs, *stage.after} <= known), None)
        if ready is None:
            circle = ", ".join(stage.id for stage in waiting)
            raise SpecError(
                f"{loaded.where(())}: these stages wait for each other: {circle}. Samples come "
                "from a stage that reads them."
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
        sinks.append(Sink(ref.name or f"{ref.uses}-{number}", part, params))
    return sinks


def _executors(loaded: LoadedSpec, parts: Parts, stages: Sequence[Stage]) -> dict[str, Executor]:
    """The executors that are named anywhere, with their params; one that is not installed is
    refused.
    """
    named: dict[str, SpecPath] = {name: ("executors", name) for name in loaded.spec.executors}
    for number, stage in enumerate(loaded.spec.stages):
        if stage.on is not None:
            named.setdefault(stage.on, ("stages", number, "on"))
    executors = {}
    for name in dict.fromkeys([*named, *(stage.on for stage in stages)]):
        try:
            part = parts.get("executor", name)
        except BadInput as error:
            if name not in named:
                raise
            path = named[name]
            field = ".".join(map(str, path))
            raise SpecError(f"{loaded.where(path)}: {field}: {error}") from None
        assert isinstance(part, ExecutorPart)
        given = loaded.spec.executors.get(name, {})
        path = ("executors", name)
        params = validate_params(loaded, part.params, given, path, f"executor '{name}'", parts)
        executors[name] = Executor(part, params)
    return executors


def _run_id(resolved: Resolved, stages: tuple[Stage, ...]) -> str:
    """The name and a hash of everything known before the run: the same command gives the same id
    and so continues the run.
    """
    recorded = {
        name: value
        for name, value in resolved.loaded.data.items()
        if name not in ("executors", "question", "description")
    }
    if isinstance(recorded.get("stages"), list):  # where a stage is computed makes no other run
        recorded["stages"] = [
            {name: value for name, value in stage.items() if name != "on"}
            for stage in recorded["stages"]
        ]
    material = {"spec": recorded, "stages": [[stage.id, stage.material()] for stage in stages]}
    return f"{resolved.loaded.spec.name}-{key_of(canonical(material)).split('-')[1][:8]}"


def is_source(id: str) -> bool:
    """Whether a stage id names a source of samples."""
    return id.rpartition("/")[2].rpartition(".")[2] == SAMPLES


def expand(
    stage: Stage, inputs: Mapping[str, Sequence[StepRow]], samples: pa.Table | None
) -> list[Step]:
    """The steps of a stage whose needs have committed. `inputs` are their ledger rows by stage,
    `samples` the samples in the stage's order.
    """
    size, units, first = stage.split_size(), stage.units(), stage.part.steps.sample_limit
    others = sorted(row.key for need, rows in inputs.items() if not is_source(need) for row in rows)
    if (features := stage.features()) is not None:
        every = sorted(row.key for rows in inputs.values() for row in rows)
        return [
            _step(stage, i, {"features": list(pair), "steps": every}, pair)
            for i, pair in enumerate(_ranges(features, size or features))
        ]
    if units is not None:
        ranges = _ranges(units, size or units)
        return [
            _step(stage, i, {"units": list(pair), "steps": others}, pair)
            for i, pair in enumerate(ranges)
        ]
    if samples is None or not stage.over_samples():
        return [
            _step(stage, 0, {"steps": sorted(row.key for rows in inputs.values() for row in rows)})
        ]
    if "sample_meta" in stage.part.reads:  # rows of samples do not say what their metadata are
        others = sorted(row.key for rows in inputs.values() for row in rows)
    count = len(samples) if first is None else min(first, len(samples))
    ranges = _sample_ranges(stage, samples, count)
    rows = [digest_of(samples.slice(start, end - start)) for start, end in ranges]
    return [
        _step(stage, i, {"rows": rows[i], "steps": others}, pair) for i, pair in enumerate(ranges)
    ]


def _sample_ranges(stage: Stage, samples: pa.Table, count: int) -> list[tuple[int, int]]:
    how, size = stage.part.steps, stage.split_size() or count
    if how.group_equal_texts:
        return text_ranges(samples, size)
    return unit_ranges(samples, size) if how.whole_units else _ranges(count, size)


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, max(size, 1))]


def _step(
    stage: Stage,
    index: int,
    inputs: dict[str, Any],
    span: tuple[int | None, int | None] = (None, None),
) -> Step:
    material = canonical({**stage.material(), "inputs": inputs})
    return Step(stage, index, key_of(material), material, *span)
