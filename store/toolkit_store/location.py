"""Where a store is: in a folder, or with its tables at a URI and a local folder for the rest.

    <folder>                         everything in it: tables, record of files, locks, run folders
    s3://bucket/prefix and the like  the tables and the lease (`toolkit_store.remote`); run folders
    and scratch files are local

The local part of a URI is the folder `toolkit-runs@<the URI, quoted>` of the working directory, or
one named like that anywhere: its name says which tables belong to it, so that it needs no file that
could be lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from toolkit.errors import StoreNotUsable
from toolkit_store import folder, locks, remote
from toolkit_store.database import Database
from toolkit_store.file_record import Entry, FileRecord

_LOCAL_PART = "toolkit-runs@"
_QUICKLY_HASHED = 16 << 20
"""The largest file, in bytes, that is hashed to say why LanceDB could not read its table."""


def local_part(uri: str) -> Path:
    """The local folder of a store at a URI."""
    return Path(_LOCAL_PART + quote(uri.rstrip("/"), safe=""))


def uri_of(path: str | Path) -> str | None:
    """The URI of a store: `path` itself, or the URI whose local part it is; None for a store that
    is one folder.
    """
    if "://" in str(path):
        return str(path).rstrip("/")
    name = Path(path).name
    return unquote(name.removeprefix(_LOCAL_PART)) if name.startswith(_LOCAL_PART) else None


def open_location(
    path: str | Path, *, create: bool, read_only: bool, values: str | None
) -> Location:
    """The location of a usable store, created if requested; otherwise an error says what to do."""
    uri = uri_of(path)
    if uri is None and (scheme := re.match(r"([a-z][a-z0-9+]+):/", str(path))):
        rest = str(path)[scheme.end() :]
        raise StoreNotUsable(
            f"The store '{path}' would be a folder named '{scheme[1]}:'. If it is a URI, write two "
            f"slashes, {scheme[1]}://{rest}, and in Python a text, since Path removes one of them; "
            "if it is a folder, give its absolute path."
        )
    if uri is None:
        return _InFolder(folder.prepare(path, create=create, read_only=read_only, values=values))
    return _AtUri(
        uri, local_part(uri) if "://" in str(path) else Path(path), create, read_only, values
    )


class Record(Protocol):
    """The interface of `toolkit_store.file_record.FileRecord`."""

    def begin(self, table: str, used: Callable[[], bool]) -> None: ...
    def verify(self, table: str) -> None: ...
    def note(self, table: str) -> None: ...
    def begin_removal(self, table: str) -> None: ...
    def renew(self, table: str) -> None: ...
    def faults(self, table: str, used: Callable[[], bool]) -> Iterator[tuple[str, str]]: ...
    def known(self, table: str) -> dict[str, Entry]: ...
    def damaged(self, table: str, up_to: int | None = None) -> Iterator[tuple[str, str]]: ...
    def missing(self, table: str) -> list[str]: ...
    def removing(self, table: str) -> bool: ...
    def unrecorded(self, table: str) -> list[str]: ...


class Location(Protocol):
    """What a store needs from its location."""

    uri: str
    folder: Path
    """Its local part: run folders and scratch files."""
    database: Database
    files: Record
    lease: locks.Lease
    notes: tuple[str, ...]
    """Notes about what cannot be checked at this location."""

    def reading(self) -> AbstractContextManager[None]:
        """Keep files that a read may need from being removed inside the block."""

    def alone(self, wait_s: float) -> AbstractContextManager[None]:
        """Inside the block, removing files is safe for readers."""


class _InFolder:
    """A folder with everything in it."""

    notes: tuple[str, ...] = ()

    def __init__(self, where: Path) -> None:
        self.folder, self.uri = where, str(where)
        self.database = Database(where / "tables", half=folder.values_of(where) == "float16")
        self.files: Record = FileRecord(where / "tables", where / "files")
        self.database.damaged = partial(self.files.damaged, up_to=_QUICKLY_HASHED)
        self.lease = locks.lease(where / "locks" / "writer.lock")
        self._readers = where / "locks" / "readers.lock"

    def reading(self) -> AbstractContextManager[None]:
        return locks.reading(self._readers)

    def alone(self, wait_s: float) -> AbstractContextManager[None]:
        return locks.alone(self._readers, wait_s)


class _AtUri:
    """Tables at a URI. Its readers are unknown, so files are removed a day after they were last
    needed.
    """

    notes: tuple[str, ...] = (
        "the files at a URI have no record of sizes and hashes here; an object store checks its "
        "own",
    )

    def __init__(
        self, uri: str, local: Path, create: bool, read_only: bool, values: str | None
    ) -> None:
        self.uri, self.folder = uri, local.expanduser().absolute()
        self.database = Database(uri)
        marker = remote.prepare(self.database, create=create, read_only=read_only, values=values)
        self.database.half = marker.values == "float16"
        self.files: Record = _NoRecord()
        self.lease = remote.lease(self.database)
        if not read_only:
            folder.make_local(self.folder)

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    def alone(self, wait_s: float) -> AbstractContextManager[None]:
        return nullcontext()


class _NoRecord:
    """Records nothing and finds no fault: these files are not in a file system."""

    def begin(self, table: str, used: Callable[[], bool]) -> None: ...

    def verify(self, table: str) -> None: ...

    def note(self, table: str) -> None: ...

    def begin_removal(self, table: str) -> None: ...

    def renew(self, table: str) -> None: ...

    def faults(self, table: str, used: Callable[[], bool]) -> Iterator[tuple[str, str]]:
        return iter(())

    def known(self, table: str) -> dict[str, Entry]:
        return {}

    def damaged(self, table: str, up_to: int | None = None) -> Iterator[tuple[str, str]]:
        return iter(())

    def missing(self, table: str) -> list[str]:
        return []

    def removing(self, table: str) -> bool:
        return False

    def unrecorded(self, table: str) -> list[str]:
        return []
