"""The job folder: how a step's result crosses from a worker to the host, and how the host knows that it is whole.

A worker writes `<table>.arrow` files and, last and by atomic rename, `done.json` with the rows and SHA-256 of each. A folder
without a valid `done.json` is worth nothing; one with it can be committed even if the host that asked for it is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.tables import arrow_schema, table

if TYPE_CHECKING:
    import pyarrow as pa

DONE = "done.json"


def write_text(path: Path, text: str) -> None:
    """The whole text or nothing: a new file is flushed to disk and renamed into place."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_arrow(path: Path, rows: pa.Table) -> None:
    """One Arrow IPC file; readers map it into memory."""
    import pyarrow as pa

    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    scratch.replace(path)


def read_arrow(path: Path) -> pa.Table:
    """The rows of an Arrow IPC file, mapped and not copied."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


class JobWriter:
    """Collects what a part yields, checks it against the table's schema and writes the job folder."""

    def __init__(self, folder: Path, part: str, writes: Sequence[str]) -> None:
        self._folder, self._part, self._writes = folder, part, tuple(writes)
        self._rows: dict[str, list[pa.Table]] = {name: [] for name in writes}

    def add(self, name: str, rows: pa.Table) -> None:
        """Take rows for a table that the part declared, with exactly the table's columns."""
        if name not in self._rows:
            raise DataError(
                f"{self._part} yielded rows for table '{name}', which it does not declare. It writes: {self._writes}."
            )
        wanted = arrow_schema(name)
        if not rows.schema.equals(wanted):
            raise DataError(f"{self._part} yielded rows for '{name}' of another shape. {_mismatch(rows.schema, wanted)}")
        self._rows[name].append(rows)

    def finish(self, facts: Mapping[str, Any]) -> dict[str, int]:
        """Write one file a table and then `done.json`; gives the rows of each table."""
        import pyarrow as pa

        files, counts = {}, {}
        for name, chunks in self._rows.items():
            rows = pa.concat_tables(chunks) if chunks else arrow_schema(name).empty_table()
            path = self._folder / f"{name}.arrow"
            write_arrow(path, rows)
            counts[name] = len(rows)
            files[name] = {"rows": len(rows), "sha256": _hash(path)}
        write_text(self._folder / DONE, json.dumps({"tables": files, **facts}, sort_keys=True))
        return counts


def _mismatch(found: pa.Schema, wanted: pa.Schema) -> str:
    for field in wanted:
        if field.name not in found.names:
            return f"Column '{field.name}' ({field.type}) is missing."
        if not found.field(field.name).equals(field):
            return f"Column '{field.name}' is {found.field(field.name)!s}; wanted {field!s}."
    extra = [name for name in found.names if name not in wanted.names]
    return f"Columns that the table does not have: {extra}." if extra else "The columns stand in another order."


def collect(folder: Path) -> tuple[dict[str, Any], dict[str, pa.Table]] | None:
    """What a finished job folder holds, or None when it is unfinished or a file does not match its recorded hash."""
    try:
        done = json.loads((folder / DONE).read_text())
        for name, file in done["tables"].items():
            table(name)
            if _hash(folder / f"{name}.arrow") != file["sha256"]:
                return None
        return done, {name: read_arrow(folder / f"{name}.arrow") for name in done["tables"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
