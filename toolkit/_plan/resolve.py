"""From a loaded spec to everything a plan needs to know: experiments it draws from, identities of
models, SAEs and files.

This is the only step before a run that reads anything but specs. It imports no torch; loaders
answer from configs and headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from toolkit._spec.spec import LoadedSpec, load_spec, validate_params
from toolkit.errors import BadInput, DataError, SpecError
from toolkit.parts import Identity, ModelPart, SaePart, SourcePart
from toolkit.secrets import Secrets, keyed_hash

if TYPE_CHECKING:
    from pydantic import BaseModel

    from toolkit._plugins.loading import Parts
    from toolkit._spec.spec import PartRef, Spec

SpecPath = tuple[str | int, ...]
Loader = TypeVar("Loader", ModelPart, SaePart)


@dataclass(frozen=True)
class Loadable(Generic[Loader]):
    """A model or SAE set that a worker is to load: the part, its params and what it is."""

    part: Loader
    params: BaseModel
    identity: Identity

    def material(self) -> dict[str, str]:
        """What enters a key."""
        return {
            "part": self.part.name,
            "version": self.part.version,
            "digest": self.identity.digest,
        }

    def job(self) -> dict[str, Any]:
        """What a worker is handed."""
        return {"part": self.part.name, "params": self.params.model_dump(mode="json")}


@dataclass(frozen=True)
class Resolved:
    """A spec with what stands behind its places: loadables, identities of sources' own files,
    experiments that samples come from.
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
    """Find out what everything named in the spec is."""
    spec = loaded.spec
    loadables = {}
    for kind, field in (("model", "model"), ("sae", "saes")):
        for at, ref in _places(spec, field):
            loadables[at] = _loadable(loaded, parts, kind, at, ref)
    sources = list(_places(spec, "samples"))
    files = {at: found for at, ref in sources if (found := _files(loaded, parts, at, ref))}
    upstream = {
        at: _upstream(ref.from_.spec, parts, overlays, sets)
        for at, ref in sources
        if ref.from_ and ref.from_.spec
    }
    return Resolved(loaded, loadables, files, upstream)


def _places(spec: Spec, field: str) -> Iterator[tuple[SpecPath, PartRef]]:
    """Where the spec names a part under `field`: at the top and in stages that override it."""
    if getattr(spec, field) is not None:
        yield (field,), getattr(spec, field)
    for number, stage in enumerate(spec.stages):
        if getattr(stage, field) is not None:
            yield ("stages", number, field), getattr(stage, field)


def _loadable(
    loaded: LoadedSpec, parts: Parts, kind: str, at: SpecPath, ref: PartRef
) -> Loadable[Any]:
    part: ModelPart | SaePart = part_at(loaded, parts, kind, at, ref.uses)
    params = validate_params(
        loaded, part.params, ref.with_, (*at, "with"), f"{kind} part '{part.name}'", parts
    )
    with _placed_errors(loaded, at, ref):
        identity = _without_secrets(part.identify(params), loaded.secrets)
        return Loadable(part, params, identity)


def _without_secrets(identity: Identity, secrets: Secrets) -> Identity:
    """An identity is recorded with every row; what came from the environment is not."""
    digest = identity.digest
    return replace(
        identity,
        name=secrets.hide(identity.name),
        revision=secrets.hide(identity.revision),
        digest=digest if secrets.hide(digest) == digest else keyed_hash(digest),
        facts=secrets.hide_in(identity.facts),
    )


@contextmanager
def _placed_errors(loaded: LoadedSpec, at: SpecPath, ref: PartRef) -> Iterator[None]:
    """Say where in the spec the value stands that a part could not use."""
    try:
        yield
    except SpecError:
        raise
    except (BadInput, DataError) as error:
        text = str(error)
        path = _blamed(at, ref, text)
        field = ".".join(map(str, path))
        text = text.removeprefix(f"{at[-1]}.with.{path[-1]}: ")
        kind = SpecError if isinstance(error, BadInput) else DataError
        raise kind(f"{loaded.where(path)}: {field}: {text}") from None


def _blamed(at: SpecPath, ref: PartRef, message: str) -> SpecPath:
    """The param that an error is about: the one it names, else the one whose value it quotes."""
    named = re.match(r"(?:[a-z]+\.with\.|\S+:\d+: )([A-Za-z0-9_]+): ", message)
    if named and named[1] in ref.with_:
        return (*at, "with", named[1])
    quoted = [
        (len(value), key)
        for key, value in ref.with_.items()
        if isinstance(value, str) and len(value) > 1 and _last_part(value) in message
    ]
    return (*at, "with", max(quoted)[1]) if quoted else at


def _last_part(value: str) -> str:
    """What an error would quote of a path or a repository's name."""
    return value.rstrip("/").rpartition("/")[2]


def part_at(loaded: LoadedSpec, parts: Parts, kind: str, at: SpecPath, name: str) -> Any:
    """The part a spec names at `at`; an unknown one is an error with file, line and field."""
    try:
        return parts.get(kind, name)
    except BadInput as error:
        raise SpecError(
            f"{loaded.where((*at, 'uses'))}: {'.'.join(map(str, at))}.uses: {error}"
        ) from None


def _files(loaded: LoadedSpec, parts: Parts, at: SpecPath, ref: PartRef) -> Identity | None:
    part: SourcePart = part_at(loaded, parts, "source", at, ref.uses)
    if part.identify is None:
        return None
    params = validate_params(
        loaded, part.params, ref.with_, (*at, "with"), f"source part '{part.name}'", parts
    )
    with _placed_errors(loaded, at, ref):
        return _without_secrets(part.identify(params, loaded.path.parent), loaded.secrets)


def _upstream(spec: Path, parts: Parts, overlays: Sequence[Path], sets: Sequence[str]) -> Resolved:
    return resolve(load_spec(spec, overlays, sets, referred=True), parts, overlays, sets)
