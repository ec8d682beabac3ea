"""The plan: stages in order with everything bound, and how a stage expands into steps. Pure: no torch, no store, no network.

A *stage* is known before a run; its *steps* are known when its inputs have committed, since a step's key is made of the
content that it works on: the rows of its sample range, or the keys of the steps before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit._keys import canonical, differences, digest_of, key_of
from toolkit._resolve import Loadable, Place, Resolved, part_at
from toolkit._spec import LoadedSpec, validate_params
from toolkit.errors import SpecError, choices, nearest
from toolkit.records import Identity, SinkPart, SourcePart, StagePart, StepRow

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import BaseModel

    from toolkit._plugins import Parts
    from toolkit._spec import PartRef, Spec, StageSpec

SAMPLES = "samples"


@dataclass(frozen=True)
class Stage:
    """One stage with its part, params, inputs and loadables. `id` is `samples` for the source, `spec/id` from another experiment."""

    id: str
    experiment: str
    part: SourcePart | StagePart
    params: BaseModel
    needs: tuple[str, ...]
    seed: int
    limit: int | None = None
    model: Loadable | None = None
    saes: Loadable | None = None
    files: Identity | None = None

    def split_size(self) -> int | None:
        """Samples of one step, or None when the stage is a single step."""
        split = getattr(self.part, "split", None)
        return int(getattr(self.params, split)) if split else None

    def warmth(self) -> str:
        """Equal for stages that can share a worker's loaded model and SAEs."""
        return canonical({"model": self.model and self.model.job(), "saes": self.saes and self.saes.job()})

    def material(self) -> dict[str, Any]:
        """All that can change this stage's results, inputs apart. How many samples share a step is not among it."""
        params = self.params.model_dump(mode="json")
        split = getattr(self.part, "split", None)
        return {
            "kind": self.part.kind,
            "part": self.part.name,
            "version": self.part.version,
            "params": {name: value for name, value in params.items() if name != split},
            "seed": self.seed,
            "limit": self.limit,
            "model": self.model and self.model.material(),
            "saes": self.saes and self.saes.material(),
            "files": self.files and self.files.digest,
        }


@dataclass(frozen=True)
class Sink:
    """An export, bound: where it stands in the spec tells what its paths are relative to."""

    name: str
    part: SinkPart
    params: BaseModel


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each follows what it needs."""

    loaded: LoadedSpec
    run: str
    stages: tuple[Stage, ...]
    sinks: tuple[Sink, ...]

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


def make_plan(resolved: Resolved, parts: Parts) -> Plan:
    """Bind every stage to its part, check that tables reach the stages that read them, and put them in order."""
    loaded = resolved.loaded
    stages = _stages(resolved, parts)
    _check_tables(loaded, stages)
    sinks = tuple(_sinks(loaded, parts))
    return Plan(loaded, _run_id(resolved, stages), stages, sinks)


def _stages(resolved: Resolved, parts: Parts) -> tuple[Stage, ...]:
    spec = resolved.loaded.spec
    stages: dict[str, Stage] = {}
    if spec.samples:
        _add_source(stages, resolved, parts, (SAMPLES,), spec.samples, SAMPLES)
    for number, stage in enumerate(spec.stages):
        if stage.samples:
            _add_source(stages, resolved, parts, ("stages", number, SAMPLES), stage.samples, f"{stage.id}.{SAMPLES}")
    own = [_stage(resolved, parts, number, stage) for number, stage in enumerate(spec.stages)]
    return (*stages.values(), *_ordered(own, set(stages)))


def _add_source(into: dict[str, Stage], resolved: Resolved, parts: Parts, at: Place, ref: PartRef, id: str) -> None:
    """The source at `at`, after the stages of another experiment that it draws from."""
    loaded, spec = resolved.loaded, resolved.loaded.spec
    part = part_at(loaded, parts, "source", at, ref.uses)
    params = validate_params(loaded, part.params, ref.with_, (*at, "with"), f"source part '{part.name}'")
    before = _drawn_from(resolved, parts, at, ref)
    into.update({stage.id: stage for stage in before})
    needs = (before[-1].id,) if before else ()
    model = _loadable(resolved, "model", (), part.uses_model, id)
    into[id] = Stage(id, spec.name, part, params, needs, spec.seed, _limit(spec), model, None, resolved.files.get(at))


def _drawn_from(resolved: Resolved, parts: Parts, at: Place, ref: PartRef) -> list[Stage]:
    """The wanted stage of the other experiment, last, after those that it needs; each under `spec/id`."""
    if ref.from_ is None:
        return []
    upstream = resolved.upstream[at]
    stages = _stages(upstream, parts)
    ids = [stage.id for stage in stages]
    if ref.from_.stage not in ids:
        raise SpecError(
            f"{resolved.loaded.where((*at, 'from', 'stage'))}: {'.'.join(map(str, at))}.from.stage: {ref.from_.spec} has no stage "
            f"'{ref.from_.stage}'.{nearest(ref.from_.stage, ids)} Stages: {choices(ids)}."
        )
    wanted = {ref.from_.stage}
    for stage in reversed(stages):
        wanted.update(stage.needs if stage.id in wanted else ())
    prefix = upstream.loaded.spec.name
    kept = [stage for stage in stages if stage.id in wanted]
    return [replace(stage, id=f"{prefix}/{stage.id}", needs=tuple(f"{prefix}/{need}" for need in stage.needs)) for stage in kept]


def _stage(resolved: Resolved, parts: Parts, number: int, stage: StageSpec) -> Stage:
    loaded, spec, at = resolved.loaded, resolved.loaded.spec, ("stages", number)
    part = part_at(loaded, parts, "stage", at, stage.uses)
    params = validate_params(loaded, part.params, stage.with_, (*at, "with"), f"stage part '{part.name}'")
    source = (f"{stage.id}.{SAMPLES}",) if stage.samples else (SAMPLES,) if spec.samples else ()
    return Stage(
        stage.id,
        spec.name,
        part,
        params,
        (*source, *(need for need in stage.needs if need not in source)),
        spec.seed,
        _limit(spec) if part.name.startswith("play.") else None,
        _loadable(resolved, "model", at, part.uses_model, stage.id),
        _loadable(resolved, "saes", at, part.uses_saes, stage.id),
    )


def _limit(spec: Spec) -> int | None:
    return spec.limit.units if spec.limit else None


def _loadable(resolved: Resolved, field: str, at: Place, wanted: bool, stage: str) -> Loadable | None:
    if not wanted:
        return None
    found = resolved.loadables.get((*at, field)) or resolved.loadables.get((field,))
    if found is None:
        raise SpecError(
            f"{resolved.loaded.where(at)}: stage '{stage}' needs `{field}`, and the spec names none. "
            f"Add `{field}: {{uses: ..., with: {{...}}}}` at the top level; `toolkit plugins` lists what is installed."
        )
    return found


def _ordered(stages: list[Stage], sources: set[str]) -> list[Stage]:
    """Each stage after those it needs, otherwise as written. Cycles were refused when the spec was loaded."""
    placed: list[Stage] = []
    waiting = list(stages)
    while waiting:
        known = {stage.id for stage in placed} | sources
        ready = next(stage for stage in waiting if set(stage.needs) <= known)
        placed.append(ready)
        waiting.remove(ready)
    return placed


def _check_tables(loaded: LoadedSpec, stages: tuple[Stage, ...]) -> None:
    by_id = {stage.id: stage for stage in stages}
    numbers = {stage.id: number for number, stage in enumerate(loaded.spec.stages)}
    for stage in stages:
        offered = {table for need in stage.needs for table in by_id[need].part.writes}
        for missing in sorted(set(stage.part.reads) - offered):
            writers = [other.id for other in stages if missing in other.part.writes and other is not stage]
            hint = (
                f"Add one of these to its needs: {choices(writers)}." if writers else f"No stage of the spec writes '{missing}'."
            )
            at: Place = ("stages", numbers[stage.id]) if stage.id in numbers else (SAMPLES,)
            raise SpecError(f"{loaded.where(at)}: stage '{stage.id}' ({stage.part.name}) reads table '{missing}'. {hint}")


def _sinks(loaded: LoadedSpec, parts: Parts) -> list[Sink]:
    sinks = []
    for number, ref in enumerate(loaded.spec.sinks):
        at: Place = ("sinks", number)
        part = part_at(loaded, parts, "sink", at, ref.uses)
        params = validate_params(loaded, part.params, ref.with_, (*at, "with"), f"sink part '{part.name}'")
        sinks.append(Sink(ref.name or f"{ref.uses}-{number}", part, params))
    return sinks


def _run_id(resolved: Resolved, stages: tuple[Stage, ...]) -> str:
    """Name and a hash of everything known before the run: the same command means the same run, so it continues."""
    recorded = {name: value for name, value in resolved.loaded.data.items() if name not in ("executors",)}
    material = {"spec": recorded, "stages": [[stage.id, stage.material()] for stage in stages]}
    return f"{resolved.loaded.spec.name}-{key_of(canonical(material)).split('-')[1][:8]}"


def is_source(id: str) -> bool:
    """Whether a stage id names a source of samples."""
    return id.rpartition("/")[2].rpartition(".")[2] == SAMPLES


def expand(stage: Stage, inputs: Mapping[str, Sequence[StepRow]], samples: pa.Table | None) -> list[Step]:
    """The steps of a stage whose needs have committed: `inputs` are their ledger rows by stage, `samples` the sorted samples."""
    size = stage.split_size()
    if size is None or samples is None:
        return [_step(stage, 0, {"steps": sorted(row.key for rows in inputs.values() for row in rows)})]
    others = sorted(row.key for need, rows in inputs.items() if not is_source(need) for row in rows)
    return [
        _step(
            stage, index, {"rows": digest_of(samples.slice(first, size)), "steps": others}, first, min(first + size, len(samples))
        )
        for index, first in enumerate(range(0, len(samples), size))
    ]


def _step(stage: Stage, index: int, inputs: dict[str, Any], first: int | None = None, last: int | None = None) -> Step:
    material = canonical({**stage.material(), "inputs": inputs})
    return Step(stage, index, key_of(material), material, first, last)


def reason(step: Step, earlier: Sequence[StepRow]) -> str:
    """Why a step has to be computed, against the newest step of the same experiment, stage and index in the ledger."""
    same = [row for row in earlier if row.index == step.index]
    if not same:
        return "new"
    newest = max(same, key=lambda row: row.committed_at)
    return f"changed: {differences(newest.material, step.material)}"
