"""From a loaded spec to everything a plan needs to know: experiments it draws from, identities of
models, SAEs and files.

This is the only step before a run that reads files other than specs. It imports no torch; loaders
answer from configs and headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from toolkit._spec.load import LoadedSpec, load_spec, validate_params
from toolkit._spec.yaml import SpecPath
from toolkit.errors import BadInput, DataError, SpecError
from toolkit.identity import Identity
from toolkit.parts import ModelPart, SaePart, TablePart
from toolkit.secrets import Secrets, keyed_hash

if TYPE_CHECKING:
    from pydantic import BaseModel

    from toolkit._plugins.registry import Parts
    from toolkit._spec.spec import From, PartRef, Spec, StageSpec

Loader = TypeVar("Loader", ModelPart, SaePart)


@dataclass(frozen=True)
class Loadable(Generic[Loader]):
    """A model or SAE set that a worker is to load: the part, its params and its identity."""

    part: Loader
    params: BaseModel
    identity: Identity

    def material(self) -> dict[str, str]:
        """The facts of a loader that enter keys."""
        return {
            "part": self.part.name,
            "version": self.part.version,
            "digest": self.identity.digest,
        }

    def job(self) -> dict[str, Any]:
        """The description that a worker gets."""
        return {"part": self.part.name, "params": self.params.model_dump(mode="json")}


@dataclass(frozen=True)
class Resolved:
    """A spec with everything that it names: loadables, identities of the files of sources and
    stages, experiments that samples or needed tables come from.
    """

    loaded: LoadedSpec
    loadables: Mapping[SpecPath, Loadable[Any]]
    files: Mapping[SpecPath, Identity]
    upstream: Mapping[SpecPath, Resolved]

    def secrets(self) -> Secrets:
        """The environment values of this spec and those that it draws from."""
        return self.loaded.secrets.united(other.secrets() for other in self.upstream.values())


def resolve(
    loaded: LoadedSpec, parts: Parts, overlays: Sequence[Path] = (), sets: Sequence[str] = ()
) -> Resolved:
    """Identify everything that the spec names."""
    with loaded.secrets.kept_out_of_errors():
        return _resolve(loaded, parts, overlays, sets)


def _resolve(
    loaded: LoadedSpec, parts: Parts, overlays: Sequence[Path], sets: Sequence[str]
) -> Resolved:
    spec = loaded.spec
    loadables = {}
    for kind, field in (("model", "model"), ("sae", "saes")):
        for path, ref in _places(spec, field):
            if loadable := _loadable(loaded, parts, kind, path, ref):
                loadables[path] = loadable
    sources = list(_places(spec, "samples"))
    named: list[tuple[str, SpecPath, PartRef | StageSpec]]
    named = [("source", path, ref) for path, ref in sources]
    named += [("stage", ("stages", number), stage) for number, stage in enumerate(spec.stages)]
    files = {
        path: identity
        for kind, path, ref in named
        if (identity := _files(loaded, parts, kind, path, ref))
    }
    origins = [((*path, "from"), ref.from_) for path, ref in sources if ref.from_]
    for number, stage in enumerate(spec.stages):
        origins += needed_elsewhere(number, stage)
    upstream = {
        path: _upstream(origin.spec, parts, overlays, sets)
        for path, origin in origins
        if origin.spec
    }
    return Resolved(loaded, loadables, files, upstream)


def _places(spec: Spec, field: str) -> Iterator[tuple[SpecPath, PartRef]]:
    """Where the spec names a part under `field`: at the top and in stages that override it."""
    if getattr(spec, field) is not None:
        yield (field,), getattr(spec, field)
    for number, stage in enumerate(spec.stages):
        if getattr(stage, field) is not None:
            yield ("stages", number, field), getattr(stage, field)


def needed_elsewhere(number: int, stage: StageSpec) -> Iterator[tuple[SpecPath, From]]:
    """The entries of a stage's `needs` that name a stage of another spec, with their paths."""
    for index, need in enumerate(stage.needs):
        if not isinstance(need, str):
            yield ("stages", number, "needs", index), need


def _loadable(
    loaded: LoadedSpec, parts: Parts, kind: str, path: SpecPath, ref: PartRef
) -> Loadable[Any] | None:
    """What the spec names at `path`; None for SAEs that no stage uses, whose files stay closed."""
    part: ModelPart | SaePart = part_at(loaded, parts, kind, path, ref.uses)
    params = validate_params(
        loaded, part.params, ref.with_, (*path, "with"), f"{kind} part '{part.name}'", parts
    )
    if kind == "sae" and not _has_reader(loaded, parts, path):
        return None
    with _placed_errors(loaded, path, ref):
        identity = _without_secrets(part.identify(params), loaded.secrets)
        return Loadable(part, params, identity)


def _has_reader(loaded: LoadedSpec, parts: Parts, saes: SpecPath) -> bool:
    """Whether a stage uses the SAEs named at this path: the one that names them, or at the top any
    that names none.
    """
    for number, stage in enumerate(loaded.spec.stages):
        path: SpecPath = ("stages", number)
        reads_here = stage.saes is None if saes == ("saes",) else saes[:2] == path
        if reads_here and part_at(loaded, parts, "stage", path, stage.uses).uses_saes:
            return True
    return False


def _without_secrets(identity: Identity, secrets: Secrets) -> Identity:
    """The identity without values from the environment, since it is recorded with every row."""
    digest = identity.digest
    return replace(
        identity,
        name=secrets.hide(identity.name),
        revision=secrets.hide(identity.revision),
        digest=digest if secrets.hide(digest) == digest else keyed_hash(digest),
        facts=secrets.hide_in(identity.facts),
    )


@contextmanager
def _placed_errors(
    loaded: LoadedSpec, field_path: SpecPath, ref: PartRef | StageSpec
) -> Iterator[None]:
    """Add the spec's file and line to the error of a part that could not use a value."""
    try:
        yield
    except SpecError:
        raise
    except (BadInput, DataError) as error:
        text = str(error)
        path = _blamed(field_path, ref, text)
        text = text.removeprefix(f"{field_path[-1]}.with.{path[-1]}: ")
        kind = SpecError if isinstance(error, BadInput) else DataError
        raise kind(f"{loaded.field(path)}: {text}") from None


def _blamed(path: SpecPath, ref: PartRef | StageSpec, message: str) -> SpecPath:
    """The path of the param that an error is about: the one that it names, else the one whose value
    it quotes.
    """
    named = re.match(r"(?:[a-z]+\.with\.|\S+:\d+: )([A-Za-z0-9_]+): ", message)
    if named and named[1] in ref.with_:
        return (*path, "with", named[1])
    quoted = [
        (len(value), key)
        for key, value in ref.with_.items()
        if isinstance(value, str) and len(value) > 1 and _last_part(value) in message
    ]
    return (*path, "with", max(quoted)[1]) if quoted else path


def _last_part(value: str) -> str:
    """The part of a path or repository name that an error would quote."""
    return value.rstrip("/").rpartition("/")[2]


def part_at(loaded: LoadedSpec, parts: Parts, kind: str, path: SpecPath, name: str) -> Any:
    """The part a spec names at `path`; an unknown one is an error with file, line and field."""
    try:
        return parts.get(kind, name)
    except BadInput as error:
        raise SpecError(f"{loaded.field((*path, 'uses'))}: {error}") from None


def _files(
    loaded: LoadedSpec, parts: Parts, kind: str, path: SpecPath, ref: PartRef | StageSpec
) -> Identity | None:
    part: TablePart = part_at(loaded, parts, kind, path, ref.uses)
    if part.identify is None:
        return None
    params = validate_params(
        loaded, part.params, ref.with_, (*path, "with"), f"{kind} part '{part.name}'", parts
    )
    with _placed_errors(loaded, path, ref):
        identity = part.identify(params, loaded.path.parent)
        return identity and _without_secrets(identity, loaded.secrets)


def _upstream(spec: Path, parts: Parts, overlays: Sequence[Path], sets: Sequence[str]) -> Resolved:
    return resolve(load_spec(spec, overlays, sets, referred=True), parts, overlays, sets)
