"""Changing a spec without editing it: overlays (partial specs) and `--set a.b.c=VALUE`. Every value
keeps its file and line.

Overlay rules: a map that sets `uses` replaces the whole part; other maps merge; lists replace,
except that `stages` match by `id` and `sinks` by `name`. Under `only`, an overlay has changes of
single specs, by name. `--set` is a point edit: it changes one value, as editing the file would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from toolkit._spec.yaml import MAX_DEPTH, Node, SpecPath, parse_value
from toolkit.errors import SpecError, nearest

_MATCH: Mapping[SpecPath, str] = {("stages",): "id", ("sinks",): "name"}
SHARED = ("model", "saes", "limit", "examine", "executors")
"""Fields that overlays and `--set` change in a spec that another spec names under `from`: never its
stages, samples or seed.
"""
ONLY = "only"
"""The key of an overlay under which single specs have changes of their own."""
_PARTS = ("model", "saes")
"""Parts that a spec may omit: changes inside such a part do not apply to a spec without it."""


def merge(base: Node, overlay: Node, path: SpecPath = ()) -> Node:
    """Merge `overlay` into `base`. Merging it a second time changes nothing."""
    if isinstance(base.value, dict) and isinstance(overlay.value, dict):
        return overlay if "uses" in overlay.value and path else _merge_maps(base, overlay, path)
    if isinstance(overlay.value, list):
        if path == ("stages",):
            return _merge_stages(base, overlay)
        if path == ("sinks",):
            return _merge_sinks(base, overlay)
    return overlay


def changes_of(overlay: Node, base: Node, *, referred: bool = False) -> Iterator[Node]:
    """The changes of an overlay that apply to `base`: those for every spec, then those under its
    name. A spec that another one refers to (`referred`) gets only the shared part of the former.
    """
    if not isinstance(overlay.value, dict) or ONLY not in overlay.value:
        yield shared(overlay, base) if referred else overlay
        return
    every = {key: value for key, value in overlay.value.items() if key != ONLY}
    general = Node(every, overlay.file, overlay.line)
    yield shared(general, base) if referred else general
    single = overlay.value[ONLY]
    if not isinstance(single.value, dict):
        raise SpecError(
            f"{single.location}: {ONLY}: This is not a map. Write the changes of single "
            f"specs under their names: {ONLY}: {{NAME: {{stages: [...]}}}}."
        )
    for name, change in single.value.items():
        if not isinstance(change.value, dict):
            raise SpecError(
                f"{change.location}: {ONLY}.{name}: This is not a map. Write what "
                "differs, as in any overlay."
            )
    name = label(base, "name")
    if name in single.value:
        yield single.value[name]


def shared(overlay: Node, base: Node) -> Node:
    """The part of an overlay that also applies to `base`, a spec named under `from`."""
    results = {
        key: value
        for key, value in overlay.value.items()
        if key in SHARED and not (_lacks(base, key) and _is_inside(value))
    }
    return Node(results, overlay.file, overlay.line)


def shares_set(text: str, base: Node) -> bool:
    """Whether a `--set` text also applies to `base`, a spec named under `from`."""
    first, *inside = (step.strip() for step in text.partition("=")[0].split("."))
    return first in SHARED and (inside in ([], ["uses"]) or not _lacks(base, first))


def _lacks(base: Node, key: str) -> bool:
    """Whether `key` is a part that `base` does not have."""
    return key in _PARTS and (key not in base.value or base.value[key].value is None)


def _is_inside(change: Node) -> bool:
    """Whether a change touches only params of a part."""
    return isinstance(change.value, dict) and "uses" not in change.value


def apply_set(base: Node, text: str) -> Node:
    """Apply one `a.b.c=VALUE` to `base`."""
    source = f"--set {text}"
    name, equals, value = text.partition("=")
    steps = name.strip().split(".")
    if not equals or not all(steps):
        raise SpecError(
            f"{source}: Write PATH=VALUE with dots between the steps, like --set "
            "stages.features.with.at=all."
        )
    if len(steps) > MAX_DEPTH:
        raise SpecError(f"{source}: The path has more than {MAX_DEPTH} steps.")
    return _edit(base, steps, parse_value(value, source), ())


def apply_value(base: Node, path: str, value: Node) -> Node:
    """Put a value at a dotted path of `base`, as `--set` does."""
    return _edit(base, path.split("."), value, ())


# --- overlays -------------------------------------------------------------------------------------


def _merge_maps(base: Node, overlay: Node, path: SpecPath) -> Node:
    results = dict(base.value)
    for key, value in overlay.value.items():
        results[key] = merge(
            results.get(key, Node(None, value.file, value.line)), value, (*path, key)
        )
    return Node(results, base.file, base.line)


def _merge_stages(base: Node, overlay: Node) -> Node:
    items: list[Node] = list(base.value) if isinstance(base.value, list) else []
    ids = [label(item, "id") for item in items]
    for index, change in enumerate(overlay.value):
        name = _label_once(overlay, index, "id", "stages")
        if name not in ids:
            raise SpecError(
                f"{change.location}: stages.{index}: There is no stage '{name}' to "
                f"change.{_known(name, ids)}"
            )
        number = ids.index(name)
        items[number] = merge(items[number], change, ("stages", number))
    return Node(items, base.file, base.line)


def _merge_sinks(base: Node, overlay: Node) -> Node:
    if not any(label(item, "name") for item in overlay.value):
        return overlay
    items: list[Node] = list(base.value) if isinstance(base.value, list) else []
    for index, change in enumerate(overlay.value):
        name = _label_once(overlay, index, "name", "sinks")
        names = [label(item, "name") for item in items]
        if name in names:
            items[names.index(name)] = merge(items[names.index(name)], change, ("sinks", index))
        elif "uses" in change.value:
            items.append(change)
        else:
            raise SpecError(
                f"{change.location}: sinks.{index}: There is no sink '{name}' to "
                f"change.{_known(name, names)}"
            )
    return Node(items, base.file, base.line)


def _label_once(overlay: Node, index: int, key: str, where: str) -> str:
    """The label by which an overlay's list item names its target; it must be present and unique."""
    change = overlay.value[index]
    name = label(change, key)
    if not name:
        raise SpecError(
            f"{change.location}: {where}.{index}: An overlay changes {where} by `{key}`; add the "
            f"{key}."
        )
    if name in [label(item, key) for item in overlay.value[:index]]:
        raise SpecError(
            f"{change.location}: {where}.{index}: '{name}' is changed twice in this overlay. "
            "Keep one of them."
        )
    return name


def label(item: Node, key: str) -> str:
    """The text at `key` of a list item, or an empty string."""
    value = item.value.get(key) if isinstance(item.value, dict) else None
    return value.value if value is not None and isinstance(value.value, str) else ""


def _known(name: str, names: Sequence[str]) -> str:
    there = [known for known in names if known]
    return f"{nearest(name, there)} The spec has: {', '.join(there) or 'none'}."


# --- --set ----------------------------------------------------------------------------------------


def _edit(node: Node | None, steps: Sequence[str], value: Node, path: SpecPath) -> Node:
    if not steps:
        return value
    if isinstance(node, Node) and isinstance(node.value, list):
        return _edit_list(node, steps, value, path)
    if path in _MATCH and (node is None or node.value is None):
        return _edit_list(Node([], value.file), steps, value, path)
    if node is None or node.value is None:
        node = Node({}, value.file)
    if not isinstance(node.value, dict):
        raise SpecError(
            f"{_source(value)}: {_path(path)} is {node.value!r} ({node.location}), not a map; "
            f"it has no '{steps[0]}'."
        )
    child = _edit(node.value.get(steps[0]), steps[1:], value, (*path, steps[0]))
    return replace(node, value={**node.value, steps[0]: child})


def _edit_list(node: Node, steps: Sequence[str], value: Node, path: SpecPath) -> Node:
    index = _index(node, steps[0], _source(value), path)
    items = list(node.value)
    items[index] = _edit(items[index], steps[1:], value, (*path, index))
    return replace(node, value=items)


def _index(node: Node, step: str, source: str, path: SpecPath) -> int:
    key = _MATCH.get(path)
    names = [label(item, key) for item in node.value] if key else []
    if step in names:
        return names.index(step)
    if step.isascii() and step.isdigit() and len(step) < 9 and int(step) < len(node.value):
        return int(step)
    if key:
        raise SpecError(f"{source}: There is no '{step}' in {_path(path)}.{_known(step, names)}")
    raise SpecError(
        f"{source}: {_path(path)} is a list of {len(node.value)}; a step into it is a number from "
        f"0, not '{step}'."
    )


def _source(value: Node) -> str:
    """Where a value was written: `--set a.b=c`, or the file, line and field of a sweep."""
    return f"{value.location}: {value.written_at}" if value.written_at else value.location


def _path(path: SpecPath) -> str:
    return ".".join(str(key) for key in path) or "the spec"
