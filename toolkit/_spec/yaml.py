"""The YAML subset of specs: plain maps, lists and scalars, each value with its file and line.

Scalars follow the YAML 1.2 core rules without octal: `yes`, `on`, `010`, `1:30` and dates stay
text, `1e-4` is a number. Ambiguous or unsafe constructs are refused with `FILE:LINE: ` and a
remedy: duplicate keys, tags, anchors, merge keys, NaN, deep or huge files. `${env:NAME}` is kept as
written; `expand` replaces it.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import SpecError, nearest

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50
MAX_NODES = 20_000

SpecPath = tuple[str | int, ...]
"""The path of a value: keys and list indices from the top, as YAML spells them (`with`, not
`with_`).
"""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_ENV = re.compile(r"\$\{env:([^}]*)\}?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its file and line. `value` is a scalar, a `list[Node]` or a `dict[str, Node]`; a
    key's value has the key's line.
    """

    value: Any
    file: str
    line: int | None = None
    written_at: str = field(default="", compare=False)
    """The dotted path under which the file has the value, if that is not where it stands now."""

    @property
    def location(self) -> str:
        """`file:line`, or the source of a value without a line (`--set a.b=c`)."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def find(self, path: SpecPath) -> Node:
        """The node at a path, or its nearest parent that exists."""
        node = self
        for key in path:
            if isinstance(node.value, dict) and key in node.value:
                node = node.value[key]
            elif isinstance(node.value, list) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
            else:
                break
        return node

    def dotted(self, path: SpecPath) -> str:
        """The name of a path in messages, as the file has it: a value that a sweep put there is
        named under `sweep`.
        """
        name, node = ".".join(map(str, path)), self
        for number, key in enumerate(path, 1):
            child = node.find((key,))
            if child is node:
                break
            node = child
            if node.written_at:
                name = ".".join((node.written_at, *map(str, path[number:])))
        return name


@dataclass(frozen=True)
class Document:
    """A loaded file: `data` is plain and unexpanded, `root` the same with lines."""

    path: Path
    root: Node

    @cached_property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = plain(self.root)
        return data

    def line(self, path: SpecPath) -> int:
        """The line of a key or item, or of its nearest parent."""
        return self.root.find(path).line or 1


def load_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a map, or refuse it with a SpecError."""
    path = Path(path)
    file = str(path)
    root = _Builder(_decoded(_bytes(path), file), file, lines=True).document()
    if not isinstance(root.value, dict):
        kind = "nothing" if root.value is None else f"{_kind(root.value)}"
        raise SpecError(
            f"{root.location}: The top level must be a map (`name: ...`); this file holds {kind}."
        )
    return Document(path, root)


def parse_value(text: str, source: str) -> Node:
    """Parse a value of `--set` (a scalar, `[1, 2]`, `{a: 1}`) by the same rules; `source` replaces
    the file name.
    """
    if bad := _UNPRINTABLE.search(text):
        raise SpecError(f"{source}: The character U+{ord(bad[0]):04X} is not allowed.")
    return _Builder(text, source, lines=False).document()


def plain(node: Node) -> Any:
    """The value without its provenance."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def placed(data: Any, file: str) -> Node:
    """Plain data as nodes whose file is `file`."""
    if isinstance(data, Mapping):
        return Node({str(key): placed(child, file) for key, child in data.items()}, file)
    if isinstance(data, (list, tuple)):
        return Node([placed(child, file) for child in data], file)
    return Node(data, file)


def expand(node: Node) -> Any:
    """The plain value with every `${env:NAME}` replaced. Never record this: it may hold secrets."""
    if isinstance(node.value, dict):
        return {key: expand(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [expand(child) for child in node.value]
    if isinstance(node.value, str):
        return _ENV.sub(lambda match: _environment(match, node.location), node.value)
    return node.value


def references(node: Node) -> Iterator[str]:
    """The names of the environment variables that a value refers to."""
    if isinstance(node.value, dict):
        for child in node.value.values():
            yield from references(child)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from references(child)
    elif isinstance(node.value, str):
        yield from (match[1] for match in _ENV.finditer(node.value))


def _environment(match: re.Match[str], where: str) -> str:
    name = match[1]
    if not match[0].endswith("}") or not _ENV_NAME.fullmatch(name):
        raise SpecError(
            f"{where}: '{match[0]}' is not an environment reference; write ${{env:NAME}}."
        )
    if name not in os.environ:
        raise SpecError(
            f"{where}: The environment variable {name} is not set.{nearest(name, os.environ)} Set "
            "it and run again."
        )
    return os.environ[name]


# --- bytes and text -------------------------------------------------------------------------------


def _bytes(path: Path) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise SpecError(
                f"'{path.absolute()}' is a folder; name a YAML file in it.{_inside(path)}"
            )
        if not stat.S_ISREG(mode):
            raise SpecError(
                f"'{path.absolute()}' is not a regular file; write the YAML to a file first."
            )
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise SpecError(missing(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"'{path.absolute()}' cannot be read: {reason}.") from None
    if len(data) > MAX_BYTES:
        raise SpecError(
            f"{path}:1: The file is larger than 1 MiB; a spec holds settings; put data into "
            "separate files."
        )
    return data


def missing(path: Path) -> str:
    """A message that the file does not exist, with the content of its folder."""
    tried, folder = path.absolute(), path.absolute().parent
    if not folder.is_dir():
        return f"There is no file '{tried}': the folder '{folder}' does not exist."
    names = [name for name in sorted(os.listdir(folder)) if name.endswith((".yaml", ".yml"))]
    near = nearest(path.name, names)
    return f"There is no file '{tried}'.{near or _inside(folder)}"


def _inside(folder: Path) -> str:
    try:
        names = [name for name in sorted(os.listdir(folder)) if name.endswith((".yaml", ".yml"))]
    except OSError:
        return ""
    more = ", ..." if len(names) > 10 else ""
    return (
        f" It has: {', '.join(names[:10])}{more}." if names else " That folder has no YAML files."
    )


def _decoded(data: bytes, file: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{file}:{line}: Byte {error.start} is not UTF-8; save the file as UTF-8."
        ) from None
    if bad := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise SpecError(
            f"{file}:{line}: The character U+{ord(bad[0]):04X} is not allowed; remove it."
        )
    return text


# --- events to nodes ------------------------------------------------------------------------------


class _Builder:
    """Builds one document from the parser's events. The parser has its own stack, so only this
    depth limit bounds nesting.
    """

    def __init__(self, text: str, file: str, *, lines: bool) -> None:
        self.file, self.lines = file, lines
        self.line, self.count = 1, 0
        self.events = self._events(text)

    def document(self) -> Node:
        next(self.events)
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return self._node(None, 1)
        root = self.node(next(self.events), 0)
        next(self.events)
        if not isinstance(next(self.events), yaml.StreamEndEvent):
            raise self.refuse(
                "A second document begins here; one file holds one document (remove `---`)."
            )
        return root

    def node(self, event: Any, depth: int, line: int | None = None) -> Node:
        self._allow(event, depth)
        line = line or event.start_mark.line + 1
        if isinstance(event, yaml.MappingStartEvent):
            return self._node(self._map(depth), line)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._node(self._list(depth), line)
        return self._node(self._scalar(event), line)

    def _map(self, depth: int) -> dict[str, Node]:
        results: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, line = self._key(event, depth), event.start_mark.line + 1
            if key in results:
                first = f"; the first is at line {lines[key]}" if self.lines else ""
                raise self.refuse(
                    f"The key '{key}' occurs a second time{first}. Keep one of them.", line
                )
            lines[key] = line
            results[key] = self.node(next(self.events), depth + 1, line)
        return results

    def _list(self, depth: int) -> list[Node]:
        results = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            results.append(self.node(event, depth + 1))
        return results

    def _key(self, event: Any, depth: int) -> str:
        self._allow(event, depth)
        if not isinstance(event, yaml.ScalarEvent):
            raise self.refuse(
                "A key must be text, not a list or a map; did you mean to quote a value that "
                "has braces?"
            )
        if event.implicit[0] and event.value == "<<":
            raise self.refuse(
                "Merge keys (`<<`) are not used in specs; write the keys out, or use --overlay."
            )
        key = self._scalar(event)
        if not isinstance(key, str):
            word = event.value or "null"
            raise self.refuse(f"The key {word} is not text; write it in quotes: '{word}'.")
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:
            if bad := _UNPRINTABLE.search(text):
                raise self.refuse(
                    f"The text holds the character U+{ord(bad[0]):04X}, which is not allowed."
                )
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return self._int(text)
        if _NOT_FINITE.fullmatch(text) or (
            _FLOAT.fullmatch(text) and not math.isfinite(float(text))
        ):
            raise self.refuse(
                f"{_short(text)} is not a finite number; give a number, or null for none."
            )
        return float(text) if _FLOAT.fullmatch(text) else text

    def _int(self, text: str) -> int:
        number = 2**64 if len(text) > 30 else int(text, 16 if text.startswith("0x") else 10)
        if not -(2**63) <= number < 2**64:
            raise self.refuse(
                f"The number {_short(text)} needs more than 64 bits; quote it if it is text."
            )
        return number

    def _allow(self, event: Any, depth: int) -> None:
        self.count += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise self.refuse(
                f"Anchors and aliases (`{mark}{event.anchor}`) are not used in specs; write it "
                "out, or use --overlay."
            )
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.refuse(
                f"Tags (`{_short(tag)}`) are not used in specs; remove it, or quote the text."
            )
        if depth > MAX_DEPTH:
            raise self.refuse(f"This is nested deeper than {MAX_DEPTH} levels.")
        if self.count > MAX_NODES:
            raise self.refuse(
                f"More than {MAX_NODES:,} values. A spec holds settings; put data into a "
                "separate file and name that file."
            )

    def _node(self, value: Any, line: int) -> Node:
        return Node(value, self.file, line if self.lines else None)

    def _events(self, text: str) -> Iterator[Any]:
        try:
            event: Any
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                self.line = event.start_mark.line + 1
                yield event
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from None
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
            raise self.refuse(f"Not valid YAML: {_short(str(error), 100)}.") from None

    def _syntax(self, error: yaml.MarkedYAMLError) -> SpecError:
        mark = error.problem_mark or error.context_mark
        problem = _short(" ".join(f"{error.problem or error.context}".split()), 100)
        where = (
            f"{self.file}:{mark.line + 1}:{mark.column + 1}"
            if mark is not None and self.lines
            else self.file
        )
        return SpecError(
            f"{where}: Not valid YAML: {problem}. Check quotes, brackets and indentation just "
            "before it."
        )

    def refuse(self, text: str, line: int | None = None) -> SpecError:
        where = f"{self.file}:{line or self.line}" if self.lines else self.file
        return SpecError(f"{where}: {text}")


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a single value"


def _short(text: str, size: int = 40) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."
