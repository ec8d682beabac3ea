"""The record of files: size and SHA-256 of every file that a table consists of, taken when the file
was written.

    <store>/files/<table>.jsonl   one JSON line a file: {"file", "bytes", "sha256"}

LanceDB returns wrong numbers without a word when a bit of a file has flipped; `Store.check` holds
the files against this record, and `hold` does so for those that are about to be joined, or read to
derive something: what is written from them gets a hash of its own, and the damage would be out of
sight for good.

Table files never change once written, they only appear and go. The record is there before its
table. It is written after the rows and before the ledger row that makes them exist, a version's
manifest after what it refers to; so a file that is missing in it is one of a write that was cut
off, or is being written, and none that the last recorded version needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import StoreError
from toolkit_store.upkeep import lance_manifest as manifest
from toolkit_store.upkeep.lance_manifest import Fragment, Manifest

_CHUNK = 1 << 20
_JOINED_BELOW = 1 << 20
"""Rows below which LanceDB joins a file with others."""
_REWRITTEN = ("latest_version_hint.json",)
"""LanceDB's only file that changes in place; it saves a listing and holds no data."""
_GONE = "the record of the table's files is gone"
_MISSING = "it is missing"


@dataclass(frozen=True)
class Entry:
    """One recorded file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Record:
    """What the file of a table says, at the size it had then. `broken` are numbers of lines that
    cannot be read.
    """

    size: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    broken: tuple[int, ...] = ()


class Damaged(StoreError):
    """A file is not what was written, and what was asked for would hide that."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path}: {what}. Nothing is written from it, since that would hide the damage for "
            "good. Put the file back from a copy of the store and issue the same command again, "
            "or run into a new store; `toolkit store check` names every such file."
        )


def joined(fragment: Fragment) -> bool:
    """Whether LanceDB reads this fragment when it joins files."""
    return fragment.rows < _JOINED_BELOW or fragment.removed > 0


def every(fragment: Fragment) -> bool:
    """All fragments."""
    return True


class FileRecord:
    """The record of the tables below `tables`, kept in `folder`."""

    def __init__(self, tables: Path, folder: Path) -> None:
        self.tables, self.folder = tables, folder
        self._known: dict[str, _Record] = {}
        self._sound: dict[str, int] = {}

    def begin(self, table: str, used: Callable[[], bool]) -> None:
        """Before a table is written to: make its record if there is none, and refuse if it is not
        sound.

        One that is gone is told if the table is `used`.
        """
        if self._path(table).exists():
            self._refuse_faults(table)
            return
        if self._there(table) and used():
            raise Damaged(str(self._path(table)), _GONE)
        self._path(table).touch()

    def hold(self, table: str, which: Callable[[Fragment], bool]) -> None:
        """Refuse to go on if a file of the last version is not what was written: those of such
        fragments, and of the indexes.
        """
        self._refuse_faults(table)
        name = manifest.newest(manifest.manifests(self._table(table)))
        if name is None:
            return
        self._hold_one(table, name)
        version = self._version(table, name)
        for wanted in (*_of_fragments(version, which), *self._of_indexes(table, version)):
            self._hold_one(table, wanted)

    def _hold_one(self, table: str, name: str) -> None:
        entry = self.known(table).get(name)  # a file without one is of the write that is going on
        path = self._table(table) / name
        if entry is None:
            return
        what = _MISSING if not path.exists() else _difference(path, entry)
        if what:
            raise Damaged(str(path), what)

    def _version(self, table: str, name: str) -> Manifest:
        path = self._table(table) / name
        try:
            return manifest.read(path)
        except ValueError as error:
            raise StoreError(
                f"{error}. Use the version of LanceDB that wrote the store, or a newer toolkit."
            ) from error

    def _of_indexes(self, table: str, version: Manifest) -> Iterator[str]:
        for folder in version.indexes:
            yield from _names(self._table(table) / "_indices" / folder, f"_indices/{folder}/")

    def _refuse_faults(self, table: str) -> None:
        """Refuse to write to a table whose record is not sound; looked at again when another
        process has written to it.
        """
        size = self._record(table).size
        if self._sound.get(table) == size:
            return
        for path, what in self._own_faults(table):
            raise Damaged(path, what)
        self._sound[table] = size

    def note(self, table: str) -> None:
        """Enter the files that are not in the record yet, manifests last."""
        self._refuse_faults(table)
        known = self.known(table)
        new = sorted(
            (name for name in _names(self._table(table)) if name not in known), key=_is_manifest
        )
        if not new:
            return
        entries = {name: _entry(self._table(table) / name) for name in new}
        path = self._path(table)
        with path.open("ab") as file:
            file.truncate(_whole_lines(path))  # without a line that was cut off
            file.seek(0, os.SEEK_END)
            file.write(_lines(entries))
            file.flush()
            self._known[table] = _Record(file.tell(), {**known, **entries})
            self._sound[table] = file.tell()

    def renew(self, table: str) -> None:
        """Write the record anew, without the files that are gone."""
        self._refuse_faults(table)
        known = self.known(table)
        folder = self._table(table)
        entries = {
            name: known.get(name) or _entry(folder / name)
            for name in sorted(_names(folder), key=_is_manifest)
        }
        unfinished = self._path(table).with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(_lines(entries))
        unfinished.replace(self._path(table))
        self._known.pop(table, None)

    def known(self, table: str) -> dict[str, Entry]:
        """The recorded files."""
        return self._record(table).entries

    def _record(self, table: str) -> _Record:
        """What the record says; read again when another process has written to it."""
        path = self._path(table)
        size = path.stat().st_size if path.exists() else 0
        cached = self._known.get(table)
        if cached is None or cached.size != size:
            cached = self._known[table] = _parsed(path, size) if size else _Record()
        return cached

    def damaged(self, table: str) -> Iterator[tuple[str, str]]:
        """Files that are not what was written, and how they differ."""
        for name, entry in self.known(table).items():
            path = self._table(table) / name
            what = _difference(path, entry)
            if what:  # a file that is gone is told by `missing`
                yield str(path), what

    def faults(self, table: str, used: Callable[[], bool]) -> Iterator[tuple[str, str]]:
        """What is wrong with the record itself: it is gone, cannot be read, or lacks files that its
        last version needs.
        """
        if not self._path(table).exists() and self._there(table) and used():
            yield str(self._path(table)), _GONE
        yield from self._own_faults(table)

    def _own_faults(self, table: str) -> Iterator[tuple[str, str]]:
        for number in self._record(table).broken:
            yield str(self._path(table)), f"line {number} cannot be read"
        name, folder, known = (
            manifest.newest(self.known(table)),
            self._table(table),
            self.known(table),
        )
        if name is None:
            return
        if not (folder / name).exists():
            there = manifest.newest(manifest.manifests(folder))
            if there is None or (manifest.version_of(there) or 0) < (
                manifest.version_of(name) or 0
            ):
                yield (
                    str(folder / name),
                    f"{_MISSING}: it is the last version of the table that is recorded",
                )
            return  # else it went with the old versions, and a kill came before that was recorded
        with suppress(ValueError):  # `damaged` names a manifest that cannot be read
            version = manifest.read(folder / name)
            for wanted in (*_of_fragments(version, every), *self._of_indexes(table, version)):
                if wanted not in known and (folder / wanted).exists():
                    yield (
                        str(folder / wanted),
                        f"{self._path(table)} does not have it, though it has what refers to it",
                    )

    def rows(self, table: str) -> int | None:
        """How many rows the last recorded version of a table has; None if there is no such version."""
        name = manifest.newest(self.known(table))
        return (
            None
            if name is None or not (self._table(table) / name).exists()
            else self._version(table, name).rows
        )

    def missing(self, table: str) -> list[str]:
        """Recorded files that are not there."""
        there = set(_names(self._table(table)))
        return [name for name in self.known(table) if name not in there]

    def unrecorded(self, table: str) -> list[str]:
        """Files that are not in the record."""
        known = self.known(table)
        return [name for name in _names(self._table(table)) if name not in known]

    def _there(self, table: str) -> bool:
        return bool(manifest.manifests(self._table(table)))

    def _table(self, table: str) -> Path:
        return self.tables / f"{table}.lance"

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


def _difference(path: Path, entry: Entry) -> str | None:
    """How a file differs from what was written; None if it does not, or is gone."""
    try:
        found = _entry(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if found.bytes != entry.bytes:
        return f"it has {found.bytes:,} bytes, {entry.bytes:,} were written"
    if found.sha256 != entry.sha256:
        return f"its SHA-256 is {found.sha256[:16]}…, what was written had {entry.sha256[:16]}…"
    return None


def _of_fragments(version: Manifest, which: Callable[[Fragment], bool]) -> Iterator[str]:
    for fragment in version.fragments:
        if which(fragment):
            yield from fragment.files


def _is_manifest(name: str) -> bool:
    return manifest.version_of(name) is not None


def _lines(entries: dict[str, Entry]) -> bytes:
    lines = (
        {"file": name, "bytes": entry.bytes, "sha256": entry.sha256}
        for name, entry in entries.items()
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _parsed(path: Path, size: int) -> _Record:
    """The whole lines; one that was cut off has no end and names a file that is noted again."""
    entries: dict[str, Entry] = {}
    broken: list[int] = []
    content = path.read_bytes()[:size]
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
            entries[str(row["file"])] = Entry(int(row["bytes"]), str(row["sha256"]))
        except (ValueError, KeyError, TypeError):
            broken.append(number)
    return _Record(size, entries, tuple(broken))


def _whole_lines(path: Path) -> int:
    """Where the last line ends that was not cut off."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return size if file.read(1) in (b"\n", b"") else path.read_bytes().rfind(b"\n") + 1
