"""What a version of a table consists of, as LanceDB's manifest of that version says: its data,
deletion and index files.

LanceDB tells it only through a larger package of its makers. A manifest is a protobuf message
behind its length, at the position that stands in the file's last 16 bytes; unknown fields are
passed over, so that a newer LanceDB may add some.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

_VERSIONS, _ENDING = "_versions/", ".manifest"
_LAST_NUMBER = (1 << 64) - 1
_DELETIONS = ("arrow", "bin")


@dataclass(frozen=True)
class Fragment:
    """Some rows of a table: the files that hold them, how many were written, and how many of those
    are removed.
    """

    id: int
    files: tuple[str, ...]
    rows: int
    removed: int


@dataclass(frozen=True)
class Manifest:
    """One version of a table. `indexes` are the folders of its indexes."""

    version: int
    fragments: tuple[Fragment, ...]
    indexes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows this version has."""
        return sum(fragment.rows - fragment.removed for fragment in self.fragments)


def version_of(name: str) -> int | None:
    """The version whose manifest a file of a table is; None of another file. Newer versions have
    smaller names.
    """
    number = name.removeprefix(_VERSIONS).removesuffix(_ENDING)
    if not (name.startswith(_VERSIONS) and name.endswith(_ENDING) and number.isdigit()):
        return None
    return _LAST_NUMBER - int(number) if len(number) == len(str(_LAST_NUMBER)) else int(number)


def newest(names: Iterable[str]) -> str | None:
    """Of a table's files, the manifest of the last version."""
    versions = {name: version for name in names if (version := version_of(name)) is not None}
    return max(versions, key=versions.__getitem__, default=None)


def manifests(table: Path) -> list[str]:
    """The manifests that a table has; none without a table."""
    try:
        return [_VERSIONS + name for name in os.listdir(table / _VERSIONS)]
    except FileNotFoundError:
        return []


def read(path: Path) -> Manifest:
    """A manifest; `ValueError` if the file is not one."""
    content = path.read_bytes()
    try:
        message = _Message(_section(content, int.from_bytes(content[-16:-8], "little")))
        at = message.number(6)
        section = _Message(_section(content, at)) if 6 in message.fields else _Message(b"")
        return Manifest(
            version=message.number(3),
            fragments=tuple(_fragment(part) for part in message.messages(2)),
            indexes=tuple(
                str(UUID(bytes=uuid.texts(1)[0]))
                for index in section.messages(1)
                for uuid in index.messages(1)
            ),
        )
    except (IndexError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a manifest of LanceDB ({error})") from error


def _section(content: bytes, at: int) -> bytes:
    length = int.from_bytes(content[at : at + 4], "little")
    if at + 4 + length > len(content) or not length:
        raise ValueError("it ends too early")
    return content[at + 4 : at + 4 + length]


def _fragment(part: _Message) -> Fragment:
    number, files = (
        part.number(1),
        [f"data/{file.texts(1)[0].decode()}" for file in part.messages(2)],
    )
    removed = 0
    for deletion in part.messages(3):
        kind = _DELETIONS[deletion.number(1)]
        files.append(f"_deletions/{number}-{deletion.number(2)}-{deletion.number(3)}.{kind}")
        removed = deletion.number(4)
    return Fragment(number, tuple(files), part.number(4), removed)


class _Message:
    """A protobuf message: its fields by number, each with all its values."""

    def __init__(self, content: bytes) -> None:
        self.fields: dict[int, list[int | bytes]] = {}
        for number, value in _values(content):
            self.fields.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """A number, 0 where it is left out."""
        return int(self.fields.get(field, [0])[-1])

    def texts(self, field: int) -> list[bytes]:
        return [bytes(value) for value in self.fields.get(field, [])]

    def messages(self, field: int) -> list[_Message]:
        return [_Message(value) for value in self.texts(field)]


def _values(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        length, at = _varint(content, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while content[at] & 128:
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | content[at] << shift, at + 1
