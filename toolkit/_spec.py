"""From a YAML file, overlays and `--set` to a checked, frozen Spec; and the texts that say what is wrong with it.

`load_spec` collects all problems of one loading into one SpecError, a line each: `FILE:LINE: stages.0.with.alpha: what was
found; what is allowed. Did you mean 'x'?`. Params of parts are checked later by `validate_params`, with the part's own model.
Values shown in messages are those written in the file, never what `${env:NAME}` stands for.
"""

from __future__ import annotations

import dataclasses
import graphlib
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from toolkit._overlay import apply_set, label, merge, shared, shared_sets
from toolkit._yaml import At, Node, expand, load_yaml, placed, plain
from toolkit.errors import SpecError, nearest

SOURCE = "samples"
"""The reserved stage id: what `samples:` makes."""


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _absolute(value: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.abspath(folder / value))


Checked = TypeVar("Checked", bound=BaseModel)
Whole = Annotated[int, BeforeValidator(_whole)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class From:
    """Another experiment's stage as input. `spec` is absolute; in the file it is relative to the spec."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    spec: Annotated[Path, AfterValidator(_absolute)]
    stage: str


class PartRef(_Model):
    """A part and its settings."""

    uses: str = Field(min_length=1, description="the part's name, as `toolkit plugins` lists it")
    with_: dict[str, Any] = Field(default={}, alias="with", description="the part's params")
    from_: From | None = Field(default=None, alias="from", description="samples only: {spec: FILE, stage: ID}")
    name: str | None = Field(default=None, description="sinks only: how overlays find it")


class StageSpec(_Model):
    """One entry of `stages`."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="how other stages, overlays and --set name it")
    uses: str = Field(min_length=1, description="the part's name, as `toolkit plugins` lists it")
    with_: dict[str, Any] = Field(default={}, alias="with", description="the part's params")
    needs: list[str] = Field(default=[], description="ids of the stages whose tables it reads")
    model: PartRef | None = None
    saes: PartRef | None = None
    samples: PartRef | None = None


class Limit(_Model):
    """Makes every source and environment stop early."""

    units: Whole = Field(ge=1, description="at most so many units")


class Spec(_Model):
    """A whole experiment, after overlays, with environment values filled in."""

    version: Literal[1] = Field(description="of the spec format: 1")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="of the experiment")
    seed: Whole = Field(default=0, ge=0)
    model: PartRef | None = None
    saes: PartRef | None = None
    samples: PartRef | None = None
    stages: list[StageSpec] = []
    sinks: list[PartRef] = []
    executors: dict[str, dict[str, Any]] = {}
    limit: Limit | None = None


@dataclass(frozen=True)
class LoadedSpec:
    """A spec with its origins: `data` is what is recorded (merged, environment references as written)."""

    spec: Spec
    data: dict[str, Any]
    path: Path
    files: tuple[Path, ...]
    root: Node = dataclasses.field(repr=False, compare=False)

    def where(self, path: At) -> str:
        """`file:line` of the value at `path` or of its nearest parent, or the `--set` text that set it."""
        return self.root.find(path).place


def load_spec(path: Path, overlays: Sequence[Path] = (), sets: Sequence[str] = (), *, referred: bool = False) -> LoadedSpec:
    """Load a spec with overlays and `--set` applied, in that order. `referred`: it was reached by `from` (see `SHARED`)."""
    path = Path(path)
    return _load(load_yaml(path).root, path, overlays, sets, referred, [path])


def load_spec_data(
    data: Mapping[str, Any], path: Path, overlays: Sequence[Path] = (), sets: Sequence[str] = (), *, referred: bool = False
) -> LoadedSpec:
    """Load recorded data (a manifest's) as if it stood at `path`, against which its relative paths are resolved."""
    return _load(placed(data, str(path)), Path(path), overlays, sets, referred, [Path(path)])


def _load(
    root: Node, path: Path, overlays: Sequence[Path], sets: Sequence[str], referred: bool, files: Sequence[Path]
) -> LoadedSpec:
    for overlay in overlays:
        change = load_yaml(Path(overlay)).root
        root = merge(root, shared(change) if referred else change)
    for text in shared_sets(sets) if referred else sets:
        root = apply_set(root, text)
    path = path.absolute()
    spec = _checked(Spec, root, (), expand(root), {"folder": path.parent}, "a spec")
    if problems := [f"{root.find(at).place}: {_dotted(at)}: {text}" for at, text in _relation_problems(spec, root)]:
        raise SpecError("\n".join(problems))
    _check_chain(root, path, (os.path.realpath(path),), set())
    return LoadedSpec(
        spec, plain(root), path, (*(file.absolute() for file in files), *(Path(o).absolute() for o in overlays)), root
    )


def validate_params(loaded: LoadedSpec, params_model: type[Checked], values: Mapping[str, Any], at: At, subject: str) -> Checked:
    """`values` (found at `at`) as `params_model`, or one SpecError naming `subject`. The context has the spec's `folder`."""
    return _checked(params_model, loaded.root, at, values, {"folder": loaded.path.parent}, subject)


def _checked(model: type[Checked], root: Node, at: At, values: Any, context: dict[str, Any], subject: str) -> Checked:
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        problems = _problems([(item["loc"], item) for item in error.errors(include_url=False)], values, ())
        lines = dict.fromkeys(_line(model, root, at, problem, subject) for problem in problems)
        raise SpecError("\n".join(lines)) from None


# --- what pydantic cannot see: relations between entries ---------------------------------------------------------------


def _relation_problems(spec: Spec, root: Node) -> Iterator[tuple[At, str]]:
    first: dict[str, int] = {}
    for index, stage in enumerate(spec.stages):
        at: At = ("stages", index, "id")
        if stage.id == SOURCE:
            yield at, f"'{SOURCE}' is reserved for what `samples:` makes; choose another id."
        elif stage.id in first:
            place = root.find(("stages", first[stage.id], "id")).place
            yield at, f"There is a stage '{stage.id}' already ({place}); give each stage its own id."
        first.setdefault(stage.id, index)
    yield from _needs_problems(spec, first)
    yield from _part_problems(spec, root)


def _needs_problems(spec: Spec, first: Mapping[str, int]) -> Iterator[tuple[At, str]]:
    for index, stage in enumerate(spec.stages):
        for place, need in enumerate(stage.needs):
            if need != SOURCE and need not in first:
                known = f"{nearest(need, first)} Stages: {', '.join(first)}."
                yield ("stages", index, "needs", place), f"There is no stage '{need}'.{known}"
    if cycle := _cycle({stage.id: stage.needs for stage in spec.stages}):
        at: At = ("stages", first[cycle[0]], "needs")
        yield at, f"Stages need each other in a circle: {' -> '.join(cycle)}. Take one of these `needs` away."


def _cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Ids where each needs the next and the last is the first, begun at the one that the spec has first; or nothing."""
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        around = [str(name) for name in error.args[1]][:0:-1]
        start = around.index(min(around, key=list(needs).index))
        return [*around[start:], *around[:start], around[start]]
    return []


def _part_problems(spec: Spec, root: Node) -> Iterator[tuple[At, str]]:
    for at, part in _parts(spec):
        if part.from_ and at[-1] != "samples":
            yield (*at, "from"), "Only `samples` can come from another spec; remove it here."
        if part.name and at[0] != "sinks":
            yield (*at, "name"), "Only sinks have a name; remove it here."
    first: dict[str, int] = {}
    for index, sink in enumerate(spec.sinks):
        if sink.name and first.setdefault(sink.name, index) != index:
            place = root.find(("sinks", first[sink.name], "name")).place
            yield ("sinks", index, "name"), f"There is a sink '{sink.name}' already ({place}); give each its own name."


def _parts(spec: Spec) -> Iterator[tuple[At, PartRef]]:
    """Every part of the spec that is not a stage, with its place."""
    owners: list[tuple[At, Spec | StageSpec]] = [((), spec)]
    owners += [(("stages", index), stage) for index, stage in enumerate(spec.stages)]
    for at, owner in owners:
        for key, part in (("model", owner.model), ("saes", owner.saes), ("samples", owner.samples)):
            if part is not None:
                yield (*at, key), part
    yield from ((("sinks", index), sink) for index, sink in enumerate(spec.sinks))


def _check_chain(root: Node, path: Path, trail: tuple[str, ...], seen: set[str]) -> None:
    """Follow `from` from file to file: each has to be there, have the stage, and not lead back."""
    for at, source in _sources(root):
        file, stage = expand(source.value["spec"]), expand(source.value["stage"])
        place = f"{source.value['spec'].place}: {_dotted(at)}.spec"
        target = os.path.realpath(path.parent / file)
        if target in trail:
            names = [os.path.basename(name) for name in (*trail[trail.index(target) :], target)]
            raise SpecError(f"{place}: The `from` specs lead back to where they began: {' -> '.join(names)}. Take one away.")
        try:
            other = load_yaml(Path(target)).root
        except SpecError as error:
            raise SpecError(f"{place}: {error}") from None
        _check_stage(other, stage, f"{source.value['stage'].place}: {_dotted(at)}.stage", file)
        if target not in seen:
            seen.add(target)
            _check_chain(other, Path(target), (*trail, target), seen)


def _sources(root: Node) -> Iterator[tuple[At, Node]]:
    stages = root.find(("stages",)).value
    count = len(stages) if isinstance(stages, list) else 0
    for at in [("samples", "from"), *(("stages", index, "samples", "from") for index in range(count))]:
        source = _there(root, at)
        if source is None or not isinstance(source.value, dict):
            continue
        if all(isinstance(getattr(source.value.get(key), "value", None), str) for key in ("spec", "stage")):
            yield at, source


def _check_stage(other: Node, stage: str, place: str, file: str) -> None:
    found = _there(other, ("stages",))
    items = found.value if found is not None and isinstance(found.value, list) else []
    ids = [name for item in items if (name := label(item, "id"))]
    if stage not in (*ids, SOURCE):
        raise SpecError(f"{place}: {file} has no stage '{stage}'.{nearest(stage, ids)} Its stages: {', '.join(ids) or 'none'}.")


def _there(root: Node, at: At) -> Node | None:
    """The node at exactly this path."""
    node = root
    for key in at:
        child = node.find((key,))
        if child is node:
            return None
        node = child
    return node


# --- pydantic's errors in our words -----------------------------------------------------------------------------------

_Located = tuple[At, ErrorDetails]


@dataclass(frozen=True)
class _Problem:
    """What is wrong at one place. Several items: the value fits none of a union's choices."""

    path: At
    items: Sequence[ErrorDetails]


def _problems(errors: Sequence[_Located], value: Any, at: At) -> Iterator[_Problem]:
    """Pydantic's locations hold names of union choices as well as keys; keep the keys, and group by union."""
    unions: dict[At, list[_Located]] = {}
    for loc, item in errors:
        path, rest = _split(loc, value, item)
        if rest:
            unions.setdefault(path, []).append((rest, item))
        else:
            yield _Problem((*at, *path), [item])
    for path, inner in unions.items():
        yield from _union_problems(inner, _value(value, path), (*at, *path))


def _union_problems(errors: Sequence[_Located], value: Any, at: At) -> Iterator[_Problem]:
    choices_: dict[str | int, list[_Located]] = {}
    for loc, item in errors:
        choices_.setdefault(loc[0], []).append((loc[1:], item))
    entered = [inner for inner in choices_.values() if any(loc for loc, _ in inner)]
    if entered:
        yield from _problems(min(entered, key=len), value, at)
    else:
        yield _Problem(at, [item for _, item in errors])


def _split(loc: At, value: Any, item: ErrorDetails) -> tuple[At, At]:
    """The keys of `loc` that are in the value, and the rest, which begins with the name of a union's choice."""
    path: list[str | int] = []
    for place, key in enumerate(loc):
        inside = (isinstance(value, dict) and key in value) or (
            isinstance(value, (list, tuple)) and isinstance(key, int) and key < len(value)
        )
        if not inside and key != "[key]" and not (place == len(loc) - 1 and item["type"] == "missing"):
            return tuple(path), loc[place:]
        if key != "[key]":
            path.append(key)
            value = value[key] if inside else None
    return tuple(path), ()


def _value(value: Any, path: At) -> Any:
    for key in path:
        value = value[key]
    return value


def _line(model: type[BaseModel], root: Node, at: At, problem: _Problem, subject: str) -> str:
    full = (*at, *problem.path)
    key, kind = (problem.path or ("",))[-1], problem.items[0]["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _keys(model, problem.path[:-1])
        owner = f" for {subject}" if len(problem.path) == 1 else ""
        text = f"unknown key '{key}'{owner}; allowed: {', '.join(allowed) or 'none'}.{nearest(str(key), allowed)}"
    elif kind == "missing":
        help = _keys(model, problem.path[:-1]).get(str(key), "")
        owner = subject if len(problem.path) == 1 else _dotted(full[:-1])
        text = f"missing; {owner} needs '{key}'{f' ({help})' if help else ''}."
    else:
        wanted = list(dict.fromkeys(_wanted(item) for item in problem.items))
        node = _there(root, full)
        found = plain(node) if node is not None else problem.items[0]["input"]
        near = nearest(found, re.findall(r"'([^']*)'", " ".join(wanted))) if isinstance(found, str) else ""
        text = f"found {_shown(found)}; wanted {' or '.join(wanted)}.{near}"
    return f"{root.find(full).place}: {_dotted(full) or 'the whole file'}: {text}"


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a map",
    "model": "a map",
    "mapping": "a map",
    "dataclass": "a map",
    "none": "null",
    "path": "a path",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "{discriminator} to be {expected_tags}",
    "union_tag_not_found": "a map with {discriminator}",
}


def _wanted(item: ErrorDetails) -> str:
    kind, context = item["type"], item.get("ctx", {})
    template = _WANTED.get(kind) or _WANTED.get(re.sub(r"_(type|parsing|parsing_size|from_float|exact_type|unicode)$", "", kind))
    if template:
        return template.format(**context)
    text = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return f"something else: {text}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, Mapping):
        return f"a map with {', '.join(list(map(str, value))[:5])}" if value else "an empty map"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the text '{value if len(value) <= 60 else value[:57] + '...'}'"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _dotted(at: At) -> str:
    return ".".join(map(str, at))


# --- which keys a model allows ----------------------------------------------------------------------------------------


def _keys(model: type[BaseModel], path: At) -> dict[str, str]:
    """The keys allowed at a path inside a model, with their help; for a union, those of all choices."""
    kinds: list[Any] = [model]
    for key in path:
        kinds = [child for kind in _flat(kinds) for child in _children(kind, key)]
    return {name: help for kind in _flat(kinds) for name, (_, help) in _fields(kind).items()}


def _children(kind: Any, key: str | int) -> list[Any]:
    fields = _fields(kind)
    return [fields[str(key)][0]] if str(key) in fields else list(typing.get_args(kind))


def _flat(kinds: Sequence[Any]) -> Iterator[Any]:
    """Union members and annotated types, unwrapped."""
    for kind in kinds:
        if typing.get_origin(kind) is Annotated:
            yield from _flat(typing.get_args(kind)[:1])
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            yield from _flat(typing.get_args(kind))
        else:
            yield getattr(kind, "__value__", kind)


def _fields(kind: Any) -> dict[str, tuple[Any, str]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: (field.annotation, field.description or "") for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {field.name: (hints[field.name], "") for field in dataclasses.fields(kind)}
    return {}
