"""Load a YAML file, overlays and `--set` into a checked, frozen Spec, and report every problem in
it.

`load_spec` collects all problems into one SpecError, one line per problem: `FILE:LINE:
stages.0.with.alpha: what was found; what is allowed. Did you mean 'x'?`. Params of parts are
checked later by `validate_params`, with the part's own model. Values shown in messages are those
written in the file, never what `${env:NAME}` stands for.
"""

from __future__ import annotations

import dataclasses
import graphlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from toolkit._spec.overlay import apply_set, changes_of, label, merge, shares_set
from toolkit._spec.problems import Checked, checked, dotted, there
from toolkit._spec.spec_names import check_only
from toolkit._spec.sweep import swept
from toolkit._spec.yaml import Node, SpecPath, expand, load_yaml, placed, plain, references
from toolkit.errors import SpecError, nearest
from toolkit.secrets import NONE, Secrets

SOURCE = "samples"
EXAMINE = "examine"
"""Reserved stage ids: the source of `samples:` and the implicit examination of SAEs."""


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _absolute(value: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.abspath(folder / value))


Whole = Annotated[int, BeforeValidator(_whole)]


class PartLookup(Protocol):
    """The part lookup that params need."""

    def get(self, kind: str, name: str) -> Any:
        """The part of that kind and name, or BadInput."""
        ...


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True, kw_only=True)
class From:
    """A stage as input: of this spec, or of another one, whose path is absolute here and relative
    to the spec in the file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    spec: Annotated[Path, AfterValidator(_absolute)] | None = None
    stage: str


class PartRef(_Model):
    """A part and its settings."""

    uses: str = Field(min_length=1, description="the part's name, as `toolkit plugins` lists it")
    with_: dict[str, Any] = Field(default={}, alias="with", description="the part's params")
    from_: From | None = Field(
        default=None,
        alias="from",
        description="samples only: {stage: ID}, or {spec: FILE, stage: ID}",
    )
    name: str | None = Field(default=None, description="sinks only: how overlays find it")


class StageSpec(_Model):
    """One entry of `stages`."""

    id: str = Field(
        pattern=r"^[a-z][a-z0-9_-]*$", description="how other stages, overlays and --set name it"
    )
    uses: str = Field(min_length=1, description="the part's name, as `toolkit plugins` lists it")
    with_: dict[str, Any] = Field(default={}, alias="with", description="the part's params")
    needs: list[str | From] = Field(
        default=[],
        description="the stages whose tables this stage reads: ids, or {spec: FILE, stage: ID}",
    )
    seed: Whole | None = Field(
        default=None, ge=0, description="of this stage, in place of the spec's"
    )
    on: str | None = Field(
        default=None, min_length=1, description="the executor of this stage, overriding --on"
    )
    model: PartRef | None = None
    saes: PartRef | None = None
    samples: PartRef | None = None


class Limit(_Model):
    """Limits every source and environment."""

    units: Whole = Field(ge=1, description="at most this many units")


class Spec(_Model):
    """A whole experiment, after overlays, with environment values filled in."""

    version: Literal[1] = Field(description="of the spec format: 1")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="of the experiment")
    question: str | None = Field(
        default=None, max_length=500, description="what the experiment asks; opens the report"
    )
    description: str | None = Field(
        default=None, max_length=5000, description="what a reader should know of the experiment"
    )
    seed: Whole = Field(default=0, ge=0, description="of all random draws")
    model: PartRef | None = Field(default=None, description="the model of every stage")
    saes: PartRef | None = Field(default=None, description="the SAEs of every stage")
    samples: PartRef | None = Field(default=None, description="the source of every stage")
    stages: list[StageSpec] = Field(default=[], description="the stages of the experiment")
    sinks: list[PartRef] = Field(default=[], description="exports written after a run")
    executors: dict[str, dict[str, Any]] = Field(
        default={}, description="params of the executors that --on names"
    )
    limit: Limit | None = Field(default=None, description="makes a run smaller")
    examine: Literal["stop", "warn", "off"] = Field(
        default="stop", description="whether an SAE that does not fit its model stops the run"
    )
    preregister: bool = Field(
        default=False,
        description="record and hash the family of tests and the split before data are read",
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, description="lists of values by path: one run for all combinations"
    )


@dataclass(frozen=True)
class LoadedSpec:
    """A spec with the origin of its values: `data` is what is recorded (merged, environment
    references as written).
    """

    spec: Spec
    data: dict[str, Any]
    path: Path
    files: tuple[Path, ...]
    root: Node = dataclasses.field(repr=False, compare=False)
    secrets: Secrets = dataclasses.field(default=NONE, repr=False, compare=False)

    def written(self, path: SpecPath, params: BaseModel) -> dict[str, Any]:
        """The params that hold environment values, by field name, as the spec writes them."""
        node = there(self.root, path)
        if node is None or not isinstance(node.value, dict):
            return {}
        names = {field.alias or name: name for name, field in type(params).model_fields.items()}
        return {
            names[key]: plain(value)
            for key, value in node.value.items()
            if key in names and next(references(value), None) is not None
        }

    def where(self, path: SpecPath) -> str:
        """`file:line` of the value at `path` or of its nearest parent, or the `--set` text that set
        it.
        """
        return self.root.find(path).location


def load_spec(
    path: Path, overlays: Sequence[Path] = (), sets: Sequence[str] = (), *, referred: bool = False
) -> LoadedSpec:
    """Load a spec with overlays and `--set` applied, in that order. `referred`: another spec names
    it under `from` (see `SHARED`).
    """
    path = Path(path)
    return _load(load_yaml(path).root, path, overlays, sets, referred, [path])


def load_spec_data(
    data: Mapping[str, Any],
    path: Path,
    overlays: Sequence[Path] = (),
    sets: Sequence[str] = (),
    *,
    referred: bool = False,
) -> LoadedSpec:
    """Load recorded data (of a manifest) as if it were the file `path`; relative paths resolve
    against it.
    """
    return _load(placed(data, str(path)), Path(path), overlays, sets, referred, [Path(path)])


def _load(
    root: Node,
    path: Path,
    overlays: Sequence[Path],
    sets: Sequence[str],
    referred: bool,
    files: Sequence[Path],
) -> LoadedSpec:
    for overlay in map(Path, overlays):
        changes = load_yaml(overlay).root
        if not referred:
            check_only(changes, root, _folders(path, root, overlay))
        for change in changes_of(changes, root, referred=referred):
            root = merge(root, change)
    for text in sets:
        root = apply_set(root, text) if not referred or shares_set(text, root) else root
    path, written = path.absolute(), root
    root = swept(root)
    spec = checked(Spec, root, (), expand(root), {"folder": path.parent}, "a spec")
    secrets = Secrets({name: os.environ[name] for name in references(root)})
    with secrets.kept_out_of_errors():
        if problems := [
            f"{root.find(index).location}: {dotted(index)}: {text}"
            for index, text in _relation_problems(spec, root)
        ]:
            raise SpecError("\n".join(problems))
        _check_chain(root, path, (os.path.realpath(path),), set())
    return LoadedSpec(
        spec,
        plain(written),
        path,
        (*(file.absolute() for file in files), *(Path(o).absolute() for o in overlays)),
        root,
        secrets,
    )


def _folders(path: Path, root: Node, overlay: Path) -> Iterator[Path]:
    """Where the specs are that an overlay may name: beside it, beside the spec, and beside specs
    that the spec's samples come from.
    """
    yield from (overlay.absolute().parent, path.absolute().parent)
    for _, source in _sources(root):
        yield (path.absolute().parent / source.value["spec"].value).parent


def validate_params(
    loaded: LoadedSpec,
    params_model: type[Checked],
    values: Mapping[str, Any],
    path: SpecPath,
    subject: str,
    parts: PartLookup,
) -> Checked:
    """Validate `values`, the spec's value at `path`, as `params_model`; raise one SpecError that
    names `subject`. The context has the spec's `folder`, and the `parts` that params may name.
    """
    context = {"folder": loaded.path.parent, "parts": parts}
    return checked(params_model, loaded.root, path, values, context, subject)


# --- what pydantic cannot see: relations between entries ------------------------------------------


def _relation_problems(spec: Spec, root: Node) -> Iterator[tuple[SpecPath, str]]:
    first: dict[str, int] = {}
    for index, stage in enumerate(spec.stages):
        path: SpecPath = ("stages", index, "id")
        if stage.id == SOURCE:
            yield path, f"'{SOURCE}' is reserved for what `samples:` makes; choose another id."
        elif stage.id == EXAMINE:
            yield path, f"'{EXAMINE}' is reserved for the examination of SAEs; choose another id."
        elif stage.id in first:
            where = root.find(("stages", first[stage.id], "id")).location
            yield (
                path,
                f"There is a stage '{stage.id}' already ({where}); give each stage its own id.",
            )
        first.setdefault(stage.id, index)
    yield from _needs_problems(spec, first)
    yield from _part_problems(spec, root)


def _needs_problems(spec: Spec, first: Mapping[str, int]) -> Iterator[tuple[SpecPath, str]]:
    for index, stage in enumerate(spec.stages):
        for number, need in enumerate(stage.needs):
            if isinstance(need, From):
                if need.spec is None:
                    text = f"A stage of this spec is needed by its id: write '{need.stage}'."
                    yield ("stages", index, "needs", number), text
            elif need != SOURCE and need not in first:
                known = f"{nearest(need, first)} Stages: {', '.join(first)}."
                yield ("stages", index, "needs", number), f"There is no stage '{need}'.{known}"
    own_needs = {
        stage.id: [need for need in stage.needs if isinstance(need, str)] for stage in spec.stages
    }
    if cycle := _cycle(own_needs):
        path: SpecPath = ("stages", first[cycle[0]], "needs")
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
    first: dict[str, int] = {}
    for index, sink in enumerate(spec.sinks):
        if sink.name and first.setdefault(sink.name, index) != index:
            where = root.find(("sinks", first[sink.name], "name")).location
            yield (
                ("sinks", index, "name"),
                f"There is a sink '{sink.name}' already ({where}); give each its own name.",
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


def _check_chain(root: Node, path: Path, trail: tuple[str, ...], seen: set[str]) -> None:
    """Follow `from` from file to file. Each file must exist and have the stage, and there must be
    no cycle.
    """
    for index, source in _sources(root):
        file, stage = expand(source.value["spec"]), expand(source.value["stage"])
        where = f"{source.value['spec'].location}: {dotted(index)}.spec"
        target = os.path.realpath(path.parent / file)
        if target in trail:
            names = [os.path.basename(name) for name in (*trail[trail.index(target) :], target)]
            raise SpecError(
                f"{where}: The specs draw on each other in a circle: {' -> '.join(names)}. "
                f"Remove one of them."
            )
        try:
            other = load_yaml(Path(target)).root
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None
        _check_stage(other, stage, f"{source.value['stage'].location}: {dotted(index)}.stage", file)
        if target not in seen:
            seen.add(target)
            _check_chain(other, Path(target), (*trail, target), seen)


def _sources(root: Node) -> Iterator[tuple[SpecPath, Node]]:
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
