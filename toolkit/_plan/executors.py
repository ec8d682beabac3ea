"""The executors of a plan: every name that `executors`, a stage's `on` or `--on` gives, bound to
the part that it uses and to its params.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit._plan.plan import Executor, Stage
from toolkit._spec.load import validate_params
from toolkit._spec.spec import ExecutorRef, is_reference
from toolkit.errors import BadInput, SpecError, choices, nearest
from toolkit.parts import ExecutorPart

if TYPE_CHECKING:
    from toolkit._plan.resolve import Resolved
    from toolkit._plugins.registry import Parts
    from toolkit._spec.load import LoadedSpec
    from toolkit._spec.yaml import SpecPath


@dataclass(frozen=True)
class _Block:
    """One entry of a spec's `executors`, and the path of its params."""

    loaded: LoadedSpec
    ref: ExecutorRef
    path: SpecPath


def bind_executors(
    resolved: Resolved, parts: Parts, stages: Sequence[Stage]
) -> dict[str, Executor]:
    """The executors that the spec describes, and those that its stages run on. A stage of another
    experiment runs on an executor of this spec, or else on one that its own spec describes.
    """
    loaded = resolved.loaded
    executors = {
        name: _bound(parts, name, _block(loaded, parts, name)) for name in loaded.spec.executors
    }
    for name in dict.fromkeys(stage.on for stage in stages):
        if name not in executors:
            executors[name] = _bound(parts, name, _other_block(resolved, parts, name))
    return executors


def bind_uses(loaded: LoadedSpec, parts: Parts, part: ExecutorPart) -> dict[str, Executor]:
    """The executors of a spec that use a part: the part under its own name, then the others."""
    blocks = {part.name: _Block(loaded, ExecutorRef(), ("executors", part.name))}
    blocks |= {name: _block(loaded, parts, name) for name in loaded.spec.executors}
    return {
        name: _bound(parts, name, block)
        for name, block in blocks.items()
        if (block.ref.uses or name) == part.name
    }


def _block(loaded: LoadedSpec, parts: Parts, name: str) -> _Block:
    """The entry of that name: params alone, or an executor under `uses` and its params under
    `with`.
    """
    written, path = loaded.spec.executors[name], ("executors", name)
    if not is_reference(written):
        return _Block(loaded, ExecutorRef.model_validate({"with": written}), path)
    subject = f"executor '{name}', whose params stand under `with`"
    ref = validate_params(loaded, ExecutorRef, written, path, subject, parts)
    return _Block(loaded, ref, (*path, "with"))


def _other_block(resolved: Resolved, parts: Parts, name: str) -> _Block:
    """An executor that the spec does not describe: an entry of another spec that it draws from, or
    an installed executor without params.
    """
    others = [other for other in _specs(resolved) if name in other.spec.executors]
    blocks = [_block(other, parts, name) for other in others]
    for block in blocks[1:]:
        if block.ref != blocks[0].ref:
            raise SpecError(
                f"{block.loaded.field(('executors', name))}: another spec that this run "
                "uses defines it differently "
                f"({blocks[0].loaded.where(('executors', name))}). Define it in "
                f"{resolved.loaded.path.name}."
            )
    if blocks:
        return blocks[0]
    if name not in _installed(parts):
        raise _unknown(resolved, parts, name)
    return _Block(resolved.loaded, ExecutorRef(), ("executors", name))


def _specs(resolved: Resolved) -> Iterator[LoadedSpec]:
    """The spec, then those that it draws from, each once."""
    seen = set()
    waiting = [resolved]
    while waiting:
        current = waiting.pop(0)
        waiting += current.upstream.values()
        if current.loaded.path not in seen:
            seen.add(current.loaded.path)
            yield current.loaded


def _bound(parts: Parts, name: str, block: _Block) -> Executor:
    uses = block.ref.uses or name
    try:
        part = parts.get("executor", uses)
    except BadInput as error:
        raise _no_part(block, name, str(error)) from None
    assert isinstance(part, ExecutorPart)
    params: Any = validate_params(
        block.loaded, part.params, block.ref.with_, block.path, f"executor '{name}'", parts
    )
    return Executor(name, part, params)


def _no_part(block: _Block, name: str, reason: str) -> SpecError:
    """The error for an entry that neither is nor uses an installed executor."""
    path: SpecPath = ("executors", name)
    hint = (
        f". An entry with another name must say which executor it `uses`: `{name}: {{uses: "
        "docker}`"
    )
    if block.ref.uses:
        path, hint = (*path, "uses"), ""
    return SpecError(f"{block.loaded.field(path)}: {reason}{hint}")


def _unknown(resolved: Resolved, parts: Parts, name: str) -> BadInput:
    """The error for an `on`, or `--on`, that names no executor."""
    described = [other for spec in _specs(resolved) for other in spec.spec.executors]
    known = sorted({*described, *_installed(parts)})
    reason = f"There is no executor '{name}'.{nearest(name, known)} Executors: {choices(known)}."
    for loaded in _specs(resolved):
        for number, stage in enumerate(loaded.spec.stages):
            if stage.on == name:
                path: SpecPath = ("stages", number, "on")
                return SpecError(f"{loaded.field(path)}: {reason}")
    return BadInput(f"--on {name}: {reason}")


def _installed(parts: Parts) -> list[str]:
    return [part.name for part in parts.of("executor")]
