"""Load a YAML file, overlays and `--set` into a checked, frozen Spec, and report every problem in
it.

`load_spec` collects all problems into one SpecError, one line per problem: `FILE:LINE:
stages.0.with.alpha: what is allowed, and what was written. Did you mean 'x'?`. Params of parts are
checked later by `validate_params`, with the part's own model. Values shown in messages are those
written in the file, never what `${env:NAME}` stands for.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from toolkit._spec.overlay import apply_set, changes_of, merge, shares_set
from toolkit._spec.problems import Checked, checked, there
from toolkit._spec.relations import check_chain, other_specs, relation_problems
from toolkit._spec.spec import Spec
from toolkit._spec.spec_names import check_only
from toolkit._spec.sweep import swept
from toolkit._spec.yaml import Node, SpecPath, expand, load_yaml, placed, plain, references
from toolkit.errors import SpecError
from toolkit.secrets import NONE, Secrets


class PartLookup(Protocol):
    """The part lookup that params need."""

    def get(self, kind: str, name: str) -> Any:
        """The part of that kind and name, or BadInput."""
        ...


@dataclass(frozen=True)
class LoadedSpec:
    """A spec with the origin of its values. `data` is recorded: merged, with environment references
    as written.
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

    def field(self, path: SpecPath) -> str:
        """`file:line: path` for messages about one value."""
        return f"{self.where(path)}: {self.root.dotted(path)}"


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
            f"{root.find(index).location}: {root.dotted(index)}: {text}"
            for index, text in relation_problems(spec, root)
        ]:
            raise SpecError("\n".join(problems))
        check_chain(root, path, (os.path.realpath(path),), set())
    return LoadedSpec(
        spec,
        plain(written),
        path,
        (*(file.absolute() for file in files), *(Path(o).absolute() for o in overlays)),
        root,
        secrets,
    )


def _folders(path: Path, root: Node, overlay: Path) -> Iterator[Path]:
    """The folders of the specs that an overlay may name: its own, the spec's, and those of specs
    that the spec's samples come from.
    """
    yield from (overlay.absolute().parent, path.absolute().parent)
    for _, source in other_specs(root):
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
