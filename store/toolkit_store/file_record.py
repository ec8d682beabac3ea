"""The record of files: size and SHA-256 of every file that a table consists of, taken when the file
was written.

    <store>/files/<table>.jsonl   a seal, then one JSON line per file: {"file", "bytes", "sha256"}

LanceDB silently returns wrong numbers when a bit of a file has flipped. So `Store.check` compares
every file with this record, and `verify` does so before new files are made from old ones: the new
files get hashes of their own, which would hide the damage for good.

Table files never change once written; they only appear and disappear. The record exists before its
table. It is written after the rows and before the ledger row that commits them, so a file that is
not in the record belongs to a write that is going on or was cut off.

The seal holds the length and the SHA-256 of the lines that count, and is written after them: lines
beyond it belong to a write that was cut off, fewer lines than it says are damage. It also says
whether files are being removed: only then may a recorded file be missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import StoreError

_CHUNK = 1 << 20
_SEAL_BYTES = 160
"""Length of the seal's line: it is rewritten in place."""
_REWRITTEN = ("latest_version_hint.json",)
"""The only file of LanceDB that changes in place; it saves a listing and holds no data."""
_VERSIONS, _ENDING = "_versions/", ".manifest"
_LAST_NUMBER = (1 << 64) - 1
_GONE = "the record of the table's files is gone"
_MISSING = "it is missing"
_READS = 3
"""How often a record that does not match its seal is read before it counts as damaged: another
process may be writing it."""


@dataclass(frozen=True)
class Entry:
    """One recorded file."""

    bytes: int
    sha256: str


class Damaged(StoreError):
    """A file is damaged, and the operation would hide the damage."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path}: {what}. Nothing is written from it, since that would hide the damage for "
            "good. Put the file back from a copy of the store and issue the same command again, "
            "or run into a new store; `toolkit store check` names every such file."
        )


@dataclass
class _CachedRecord:
    """A record as it was last read or written. `fault` says why it cannot be trusted."""

    seal: bytes = b""
    entries: dict[str, Entry] = field(default_factory=dict)
    hash: Any = field(default_factory=hashlib.sha256)
    length: int = 0
    removing: bool = False
    newest: str | None = None
    fault: str | None = None

    def add(self, entries: dict[str, Entry]) -> bytes:
        """Add entries; return their lines."""
        lines = _lines(entries)
        self.entries.update(entries)
        self.hash.update(lines)
        self.length += len(lines)
        self.newest = newest([*entries, *([self.newest] if self.newest else [])])
        return lines

    def sealed(self) -> bytes:
        """The seal for the entries so far."""
        self.seal = _seal(self.length, self.hash.hexdigest(), self.removing)
        return self.seal


class FileRecord:
    """The records of the tables below `tables`, kept in `folder`."""

    def __init__(self, tables: Path, folder: Path) -> None:
        self.tables, self.folder = tables, folder
        self._records: dict[str, _CachedRecord] = {}
        self._verified: dict[str, tuple[int, int, int, int]] = {}

    # --- writing ---

    def begin(self, table: str, used: Callable[[], bool]) -> None:
        """Make a record before a table is first written to; refuse a record that is not sound.

        `used` tells whether a committed step has rows in the table: its record must be there.
        """
        if self._path(table).exists():
            self._refuse_faults(table)
            return
        if used():
            raise Damaged(str(self._path(table)), _GONE)
        self._replace(table, {})

    def note(self, table: str) -> None:
        """Enter the files that are not in the record yet."""
        self._refuse_faults(table)
        record = self._record(table)
        folder = self._table(table)
        new = sorted(name for name in _names(folder) if name not in record.entries)
        if not new:
            return
        with self._path(table).open("r+b") as file:
            file.truncate(_SEAL_BYTES + record.length)  # without lines that were cut off
            file.seek(0, os.SEEK_END)
            file.write(record.add({name: self._hashed(folder / name) for name in new}))
            _flush(file)
            file.seek(0)
            file.write(record.sealed())

    def begin_removal(self, table: str) -> None:
        """Record that files of old versions are being removed, until `renew`."""
        self._refuse_faults(table)
        if not self._path(table).exists():
            return
        record = self._record(table)
        record.removing = True
        with self._path(table).open("r+b") as file:
            file.write(record.sealed())
            _flush(file)

    def renew(self, table: str) -> None:
        """Rewrite the record without the files that are gone."""
        self._refuse_faults(table)
        if not self._path(table).exists():
            return
        known, folder = self.known(table), self._table(table)
        self._replace(
            table, {name: known.get(name) or self._hashed(folder / name) for name in _names(folder)}
        )

    def _replace(self, table: str, entries: dict[str, Entry]) -> None:
        record = _CachedRecord()
        lines = record.add(entries)
        unfinished = self._path(table).with_suffix(f".{os.getpid()}")
        with unfinished.open("wb") as file:
            file.write(record.sealed() + lines)
            _flush(file)
        unfinished.replace(self._path(table))
        self._records[table] = record

    def _hashed(self, path: Path) -> Entry:
        """The entry of a file that was just written."""
        state = _state(path)
        entry = _entry(path)
        self._verified[str(path)] = state
        return entry

    # --- checking ---

    def verify(self, table: str) -> None:
        """Raise an error if a file of the table differs from what was written.

        A file is hashed once per process, and again when its size or times have changed.
        """
        self._refuse_faults(table)
        for name, entry in self.known(table).items():
            path = self._table(table) / name
            difference = self._changed(table, path, entry)
            if difference:
                raise Damaged(str(path), difference)

    def _changed(self, table: str, path: Path, entry: Entry) -> str | None:
        try:
            state = _state(path)
        except FileNotFoundError:
            return None if self._record(table).removing else _MISSING
        if self._verified.get(str(path)) == state:
            return None
        difference = _difference(path, entry)
        if difference is None:
            self._verified[str(path)] = state
        return difference

    def damaged(self, table: str, up_to: int | None = None) -> Iterator[tuple[str, str]]:
        """Files that differ from what was written, and how; all files are hashed, or those of at
        most `up_to` bytes.
        """
        for name, entry in self.known(table).items():
            if up_to is not None and entry.bytes > up_to:
                continue
            path = self._table(table) / name
            difference = _difference(path, entry)
            if difference:  # a file that is gone is named by `missing`
                yield str(path), difference

    def faults(self, table: str, used: Callable[[], bool]) -> Iterator[tuple[str, str]]:
        """The problems of the record itself: it is missing, differs from what was written, or the
        table's last version is missing.
        """
        if not self._path(table).exists():
            if used():
                yield str(self._path(table)), _GONE
            return
        record = self._record(table)
        if record.fault:
            yield str(self._path(table)), record.fault
        elif record.newest and not self._has_version(table, record.newest):
            path = self._table(table) / record.newest
            yield str(path), f"{_MISSING}: it is the last version of the table that is recorded"

    def _has_version(self, table: str, name: str) -> bool:
        """Whether a version exists, or was removed because later ones exist."""
        if (self._table(table) / name).exists():
            return True
        there = newest(_manifests(self._table(table)))
        return there is not None and (version_of(there) or 0) > (version_of(name) or 0)

    def _refuse_faults(self, table: str) -> None:
        for path, fault in self.faults(table, lambda: False):
            raise Damaged(path, fault)

    # --- what is recorded ---

    def known(self, table: str) -> dict[str, Entry]:
        """The recorded files."""
        return self._record(table).entries

    def missing(self, table: str) -> list[str]:
        """Recorded files that are missing."""
        there = set(_names(self._table(table)))
        return [name for name in self.known(table) if name not in there]

    def removing(self, table: str) -> bool:
        """Whether a removal of files is going on or was cut off: recorded files may be missing."""
        return self._record(table).removing

    def unrecorded(self, table: str) -> list[str]:
        """Files that are not in the record."""
        known = self.known(table)
        return [name for name in _names(self._table(table)) if name not in known]

    def _record(self, table: str) -> _CachedRecord:
        """The record; read again when another process has written to it."""
        cached = self._records.get(table)
        if cached is None or cached.seal != self._read_seal(table):
            cached = self._records[table] = self._read(table)
        return cached

    def _read_seal(self, table: str) -> bytes:
        try:
            with self._path(table).open("rb") as file:
                return file.read(_SEAL_BYTES)
        except FileNotFoundError:
            return b""

    def _read(self, table: str) -> _CachedRecord:
        path = self._path(table)
        record = _CachedRecord()
        for attempt in range(_READS):
            try:
                record = _parsed(path.read_bytes())
            except FileNotFoundError:
                return _CachedRecord()
            if record.fault is None:
                break
            time.sleep(0.01 * attempt)
        return record

    def _table(self, table: str) -> Path:
        return self.tables / f"{table}.lance"

    def _path(self, table: str) -> Path:
        return self.folder / f"{table}.jsonl"


# --- versions of a table ---


def version_of(name: str) -> int | None:
    """The version whose manifest this file of a table is; None for any other file. Newer versions
    have smaller names.
    """
    number = name.removeprefix(_VERSIONS).removesuffix(_ENDING)
    if not (name.startswith(_VERSIONS) and name.endswith(_ENDING) and number.isdigit()):
        return None
    return _LAST_NUMBER - int(number) if len(number) == len(str(_LAST_NUMBER)) else int(number)


def newest(names: Iterable[str]) -> str | None:
    """The manifest of the last version, among a table's files."""
    versions = {name: version for name in names if (version := version_of(name)) is not None}
    return max(versions, key=versions.__getitem__, default=None)


def _manifests(table: Path) -> list[str]:
    try:
        return [_VERSIONS + name for name in os.listdir(table / _VERSIONS)]
    except FileNotFoundError:
        return []


# --- files ---


def _names(folder: Path, below: str = "") -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _names(Path(entry.path), f"{below}{entry.name}/")
        elif entry.name not in _REWRITTEN:
            yield below + entry.name


def _state(path: Path) -> tuple[int, int, int, int]:
    """Facts that change when a file is changed: size, times, and so on."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _entry(path: Path) -> Entry:
    content, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
            size += len(chunk)
    return Entry(size, content.hexdigest())


def _difference(path: Path, entry: Entry) -> str | None:
    """How a file differs from what was written; None if it is unchanged or gone."""
    try:
        now = _entry(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if now.bytes != entry.bytes:
        return f"it has {now.bytes:,} bytes, {entry.bytes:,} were written"
    if now.sha256 != entry.sha256:
        return f"its SHA-256 is {now.sha256[:16]}…, what was written had {entry.sha256[:16]}…"
    return None


def _flush(file: Any) -> None:
    """Flush a file to disk."""
    file.flush()
    with suppress(OSError):  # some file systems cannot
        os.fdatasync(file.fileno())


# --- lines ---


def _seal(length: int, digest: str, removing: bool) -> bytes:
    seal = json.dumps({"length": length, "sha256": digest, "removing": removing})
    return seal.encode().ljust(_SEAL_BYTES - 1) + b"\n"


def _lines(entries: dict[str, Entry]) -> bytes:
    lines = (
        {"file": name, "bytes": entry.bytes, "sha256": entry.sha256}
        for name, entry in entries.items()
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _parsed(content: bytes) -> _CachedRecord:
    """The lines that the seal counts."""
    try:
        seal = json.loads(content[:_SEAL_BYTES])
        length, digest, removing = int(seal["length"]), str(seal["sha256"]), bool(seal["removing"])
    except (ValueError, KeyError, TypeError):
        return _CachedRecord(fault="its first line cannot be read")
    if _seal(length, digest, removing) != content[:_SEAL_BYTES]:
        return _CachedRecord(fault="its first line is not as it was written")
    lines = content[_SEAL_BYTES : _SEAL_BYTES + length]
    if len(lines) < length:
        return _CachedRecord(fault=f"it is cut off: {length - len(lines):,} bytes are missing")
    if hashlib.sha256(lines).hexdigest() != digest:
        return _CachedRecord(fault="its SHA-256 is not the one in its first line")
    record = _CachedRecord(removing=removing)
    rows = map(json.loads, lines.splitlines())
    record.add({row["file"]: Entry(row["bytes"], row["sha256"]) for row in rows})
    record.sealed()
    return record
