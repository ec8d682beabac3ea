"""Pydantic's errors in the toolkit's words: one line per problem, `FILE:LINE: stages.0.with.alpha:
what is allowed, and what was written`.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, PydanticUserError, ValidationError
from pydantic_core import ErrorDetails

from toolkit._spec.yaml import Node, SpecPath, plain
from toolkit.errors import PluginError, SpecError, nearest
from toolkit.parts import UsedPart

Checked = TypeVar("Checked", bound=BaseModel)


def there(root: Node, path: SpecPath) -> Node | None:
    """The node at exactly this path."""
    node = root
    for key in path:
        child = node.find((key,))
        if child is node:
            return None
        node = child
    return node


def checked(
    model: type[Checked],
    root: Node,
    path: SpecPath,
    values: Any,
    context: dict[str, Any],
    subject: str,
) -> Checked:
    """Validate `values` as `model`; raise one SpecError with a line for each problem."""
    try:
        validated = model.model_validate(values, context=context)
    except PydanticUserError as error:  # such as a type that is not defined
        raise PluginError(
            f"{subject}: its params class {model.__name__} cannot be used: "
            f"{error.message.splitlines()[0]} Repair the plugin."
        ) from None
    except ValidationError as error:
        problems = _problems(
            [(item["loc"], item) for item in error.errors(include_url=False)], values, ()
        )
        keys = _AllowedKeys(model, values, context)
        lines = dict.fromkeys(_line(keys, root, path, problem, subject) for problem in problems)
        raise SpecError("\n".join(lines)) from None
    if conversions := [_converted_line(root, *pair) for pair in _converted(validated, root, path)]:
        raise SpecError("\n".join(conversions))
    return validated


_Located = tuple[SpecPath, ErrorDetails]


@dataclass(frozen=True)
class _Problem:
    """The problem of one value. Several items mean that the value matches no member of a union."""

    path: SpecPath
    items: Sequence[ErrorDetails]


def _problems(errors: Sequence[_Located], value: Any, field_path: SpecPath) -> Iterator[_Problem]:
    """Group problems by union. Pydantic's locations mix names of union members with keys; only the
    keys are kept.
    """
    unions: dict[SpecPath, list[_Located]] = {}
    for loc, item in errors:
        path, rest = _split(loc, value, item)
        if rest:
            unions.setdefault(path, []).append((rest, item))
        else:
            yield _Problem((*field_path, *path), [item])
    for path, inner in unions.items():
        yield from _union_problems(inner, _value(value, path), (*field_path, *path))


def _union_problems(errors: Sequence[_Located], value: Any, path: SpecPath) -> Iterator[_Problem]:
    choices_: dict[str | int, list[_Located]] = {}
    for loc, item in errors:
        choices_.setdefault(loc[0], []).append((loc[1:], item))
    entered = [inner for inner in choices_.values() if any(loc for loc, _ in inner)]
    if entered:
        yield from _problems(min(entered, key=len), value, path)
    else:
        yield _Problem(path, [item for _, item in errors])


def _split(loc: SpecPath, value: Any, item: ErrorDetails) -> tuple[SpecPath, SpecPath]:
    """Split `loc` into the keys that the value has and the rest, which begins with the name of a
    union member.
    """
    path: list[str | int] = []
    for number, key in enumerate(loc):
        inside = (isinstance(value, dict) and key in value) or (
            isinstance(value, (list, tuple)) and isinstance(key, int) and key < len(value)
        )
        if (
            not inside
            and key != "[key]"
            and not (number == len(loc) - 1 and item["type"] == "missing")
        ):
            return tuple(path), loc[number:]
        if key != "[key]":
            path.append(key)
            value = value[key] if inside else None
    return tuple(path), ()


def _value(value: Any, path: SpecPath) -> Any:
    for key in path:
        value = value[key]
    return value


def _line(keys: _AllowedKeys, root: Node, path: SpecPath, problem: _Problem, subject: str) -> str:
    full = (*path, *problem.path)
    key, kind = (problem.path or ("",))[-1], problem.items[0]["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = keys.allowed(problem.path[:-1])
        owner = f" for {subject}" if len(problem.path) == 1 else ""
        text = (
            f"unknown key '{key}'{owner}; allowed: "
            f"{', '.join(allowed) or 'none'}.{nearest(str(key), allowed)}"
        )
    elif kind == "missing":
        help = keys.allowed(problem.path[:-1]).get(str(key), "")
        owner = subject if len(problem.path) == 1 else root.dotted(full[:-1])
        text = f"missing; {owner} needs '{key}'{f' ({help})' if help else ''}."
    elif all(item["type"] == "value_error" for item in problem.items):
        messages = "; ".join(dict.fromkeys(_message(item) for item in problem.items))
        text = messages if messages.endswith("?") else f"{messages}."
    else:
        choices = list(dict.fromkeys(_expected(item) for item in problem.items))
        node = there(root, full)
        written = plain(node) if node is not None else problem.items[0]["input"]
        near = (
            nearest(written, re.findall(r"'([^']*)'", " ".join(choices)))
            if isinstance(written, str)
            else ""
        )
        text = f"must be {' or '.join(choices)}, not {_shown(written)}.{near}"
    return f"{root.find(full).location}: {root.dotted(full) or 'the whole file'}: {text}"


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
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "a map with {discriminator} {expected_tags}",
    "union_tag_not_found": "a map with {discriminator}",
}


def _expected(item: ErrorDetails) -> str:
    kind, context = item["type"], item.get("ctx", {})
    template = _WANTED.get(kind) or _WANTED.get(
        re.sub(r"_(type|parsing|parsing_size|from_float|exact_type|unicode)$", "", kind)
    )
    if template:
        return template.format(**context)
    return _message(item)


def _message(item: ErrorDetails) -> str:
    """A validator's message, without pydantic's prefix."""
    return item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"a map with {', '.join(list(map(str, value))[:5])}" if value else "an empty map"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the text '{value if len(value) <= 60 else value[:57] + '...'}'"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


# --- values that pydantic would read as another kind ----------------------------------------------

_NUMBER = re.compile(r"[-+]?[0-9][0-9_.eE+-]*")
_TRUTH = ("true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "0", "1")


def _converted(validated: Any, root: Node, path: SpecPath) -> Iterator[tuple[SpecPath, Any]]:
    """Find values whose type pydantic changed: the text `"010"` to a number, `yes` to a boolean.
    The value of `${env:NAME}` is always text and may be converted.
    """
    node = there(root, path)
    if node is None or _of_environment(node.value):
        return
    if isinstance(node.value, dict):
        for key in node.value:
            yield from _converted(_child(validated, key), root, (*path, key))
    elif isinstance(node.value, list) and isinstance(validated, (list, tuple)):
        for index, item in enumerate(validated[: len(node.value)]):
            yield from _converted(item, root, (*path, index))
    elif _other_kind(node.value, validated):
        yield path, validated


def _of_environment(value: Any) -> bool:
    return isinstance(value, str) and "${env:" in value


def _child(validated: Any, key: str) -> Any:
    """The validated value of a map's key: an attribute (which may have an alias) or an item."""
    if isinstance(validated, BaseModel):
        fields = type(validated).model_fields.items()
        return getattr(
            validated, next((name for name, field in fields if field.alias == key), key), None
        )
    if isinstance(validated, Mapping):
        return validated.get(key)
    return getattr(validated, key, None) if dataclasses.is_dataclass(validated) else None


def _other_kind(written: Any, validated: Any) -> bool:
    if isinstance(validated, bool):
        return not isinstance(written, bool) and (
            isinstance(written, (int, float)) or str(written).lower() in _TRUTH
        )
    if isinstance(validated, (int, float)):
        text = isinstance(written, str) and _NUMBER.fullmatch(written)
        return isinstance(written, bool) or bool(text)
    return False


def _converted_line(root: Node, path: SpecPath, validated: Any) -> str:
    if isinstance(validated, bool):
        advice = "true or false"
    elif isinstance(root.find(path).value, str):
        advice = "a number, without quotes, underscores or leading zeros"
    else:
        advice = "a number"
    shown = _shown(root.find(path).value)
    return f"{root.find(path).location}: {root.dotted(path)}: must be {advice}, not {shown}."


# --- which keys a model allows --------------------------------------------------------------------


@dataclass(frozen=True)
class _AllowedKeys:
    """The keys that a model allows, given the values: what follows `with` depends on `uses`."""

    model: type[BaseModel]
    values: Any
    context: Mapping[str, Any]

    def allowed(self, path: SpecPath) -> dict[str, str]:
        """The keys allowed at a path, with their help; for a union, those of all choices."""
        kinds: list[Any] = [self.model]
        value = self.values
        for key in path:
            kinds = [child for kind in _flat(kinds) for child in self._children(kind, key, value)]
            inside = isinstance(value, Mapping) and key in value
            listed = isinstance(value, list | tuple) and isinstance(key, int) and key < len(value)
            value = value[key] if inside or listed else None
        return {name: help for kind in _flat(kinds) for name, (_, help) in _fields(kind).items()}

    def _children(self, kind: Any, key: str | int, value: Any) -> list[Any]:
        if key == "with" and isinstance(kind, type) and issubclass(kind, UsedPart):
            name = value.get("uses") if isinstance(value, Mapping) else None
            return [self.context["parts"].get(kind.kind, name).params]
        fields = _fields(kind)
        return [fields[str(key)][0]] if str(key) in fields else list(typing.get_args(kind))


def _flat(kinds: Sequence[Any]) -> Iterator[Any]:
    """Unwrap union members and annotated types."""
    for kind in kinds:
        if typing.get_origin(kind) is Annotated:
            yield from _flat(typing.get_args(kind)[:1])
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            yield from _flat(typing.get_args(kind))
        else:
            yield getattr(kind, "__value__", kind)


def _fields(kind: Any) -> dict[str, tuple[Any, str]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {
            field.alias or name: (field.annotation, field.description or "")
            for name, field in kind.model_fields.items()
        }
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {field.name: (hints[field.name], "") for field in dataclasses.fields(kind)}
    return {}
