"""The record of files: size and SHA-256 of every file that a table consists of, taken when the file was written.

    <store>/files/<table>.jsonl   one JSON line a file: {"file", "bytes", "sha256"}

LanceDB returns wrong numbers without a word when a bit of a file has flipped; `Store.check` holds the files against this
record. Table files never change once written, they only appear and go. The record is written after the rows and before the
ledger row that makes them exist; a file that is missing in it is one of a write that was cut off, or is being written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20
_REWRITTEN = ("latest_version_hint.json",)
"""LanceDB's only file that changes in place; it saves a listing and holds no data."""


@dataclass(frozen=True)
class Entry:
    """One recorded file."""

    bytes: int
    sha256: str


class FileRecord:
    """The record of the tables below `tables`, kept in `folder`."""

    def __init__(self, tables: Path, folder: Path) -> None:
        self.tables, self.folder = tables, folder
        self._known: dict[str, tuple[int, dict[str, Entry]]] = {}

    def note(self, table: str) -> None:
        """Enter the files that are not in the record yet."""
        known = self.known(table)
        new = [name for name in _names(self.tables / f"{table}.lance") if name not in known]
        if not new:
            return
        entries = {name: _entry(self.tables / f"{table}.lance" / name) for name in new}
        path = self._path(table)
        with path.open("ab") as file:
            if file.tell() and not _ends_with_newline(path):
                file.write(b"\n")  # the end of a line that was cut off
            file.write(_lines(entries))
            file.flush()
            self._known[table] = (file.tell(), {**known, **entries})

    def renew(self, table: str) -> None:
        """Write the record anew, without the files that are gone."""
        known = self.known(table)
        folder = self.tables / f"{table}.lance"
        entries = {name: known.get(name) or _entry(folder / name) for name in _names(folder)}
        unfinished = self._path(table).with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(_lines(entries))
        unfinished.replace(self._path(table))
        self._known.pop(table, None)

    def known(self, table: str) -> dict[str, Entry]:
        """The recorded files; read again when another process has written to the record."""
        path = self._path(table)
        size = path.stat().st_size if path.exists() else 0
        cached = self._known.get(table)
        if cached is None or cached[0] != size:
            cached = self._known[table] = (size, dict(_parsed(path)) if size else {})
        return cached[1]

    def damaged(self, table: str) -> Iterator[tuple[str, str]]:
        """Files that are not what was written, and how they differ."""
        for name, entry in self.known(table).items():
            path = self.tables / f"{table}.lance" / name
            try:
                found = _entry(path)
            except FileNotFoundError:
                continue  # `missing` says so
            except OSError as error:
                yield str(path), f"it cannot be read: {error.strerror}"
                continue
            if found.bytes != entry.bytes:
                yield str(path), f"it has {found.bytes:,} bytes, {entry.bytes:,} were written"
            elif found.sha256 != entry.sha256:
                yield str(path), f"its SHA-256 is {found.sha256[:16]}…, what was written had {entry.sha256[:16]}…"

    def missing(self, table: str) -> list[str]:
        """Recorded files that are not there."""
        there = set(_names(self.tables / f"{table}.lance"))
        return [name for name in self.known(table) if name not in there]

    def unrecorded(self, table: str) -> list[str]:
        """Files that are not in the record."""
        known = self.known(table)
        return [name for name in _names(self.tables / f"{table}.lance") if name not in known]

    def _path(self, table: str) -> Path:
        return self.folder / f"{table}.jsonl"


def _names(folder: Path, below: str = "") -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _names(Path(entry.path), f"{below}{entry.name}/")
        elif entry.name not in _REWRITTEN:
            yield below + entry.name


def _entry(path: Path) -> Entry:
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
            size += len(chunk)
    return Entry(size, found.hexdigest())


def _lines(entries: dict[str, Entry]) -> bytes:
    lines = ({"file": name, "bytes": entry.bytes, "sha256": entry.sha256} for name, entry in entries.items())
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _parsed(path: Path) -> Iterator[tuple[str, Entry]]:
    """The whole lines; one that was cut off names a file that is noted again."""
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            yield row["file"], Entry(row["bytes"], row["sha256"])
        except (ValueError, KeyError, TypeError):
            continue


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
