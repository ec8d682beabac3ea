"""The job folder: how a step's result gets from a worker to the host, and how the host checks that
it is complete.

A worker writes `<table>.arrow` files and, last and by atomic rename, `done.json` with the rows and
SHA-256 of each. A folder without a valid `done.json` of its own step is discarded; one with it can
be committed even if the host that requested it is gone.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._run.atomic import write_text
from toolkit.errors import DataError
from toolkit.files.local import sha256_of
from toolkit.tables import arrow_schema, table

if TYPE_CHECKING:
    import pyarrow as pa

DONE = "done.json"
WAITING = 8
SMALL_BYTES = 1 << 20
"""Up to this size, a file is read: mapping it would take longer."""


def read_arrow(path: Path) -> pa.Table:
    """The rows of an Arrow IPC file. A large file is mapped and not copied."""
    import pyarrow as pa

    if path.stat().st_size <= SMALL_BYTES:
        return _rows_in(path.read_bytes())
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _rows_in(content: bytes) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_file(pa.py_buffer(content)).read_all()


class JobWriter:
    """Checks what a part yields against the table's schema, and writes it to the job folder in a
    separate thread.

    A few tables may wait to be written, so that computing continues meanwhile and memory stays
    bounded.
    """

    def __init__(self, folder: Path, part: str, writes: Sequence[str]) -> None:
        self._folder, self._part, self._writes = folder, part, tuple(writes)
        self._waiting: queue.Queue[tuple[str, pa.Table] | None] = queue.Queue(WAITING)
        self._counts = dict.fromkeys(writes, 0)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)
        self._thread.start()

    def add(self, name: str, rows: pa.Table) -> None:
        """Take rows for a table that the part declared, with exactly the table's columns."""
        if name not in self._counts:
            raise DataError(
                f"{self._part} yielded rows for table '{name}', which it does not declare. It "
                f"writes: {self._writes}."
            )
        expected = arrow_schema(name)
        if not rows.schema.equals(expected):
            raise DataError(
                f"{self._part} yielded rows for '{name}' with other columns. "
                f"{_mismatch(rows.schema, expected)}"
            )
        self._waiting.put((name, rows))
        self._raise_failure()

    def finish(self, facts: Mapping[str, Any]) -> dict[str, int]:
        """Wait for the files of all tables, and write `done.json`; gives the rows of each table."""
        self.close()
        self._raise_failure()
        files = {
            name: {"rows": count, "sha256": sha256_of(self._folder / f"{name}.arrow")}
            for name, count in self._counts.items()
        }
        text = json.dumps({"tables": files, **facts}, sort_keys=True)
        write_text(self._folder / DONE, text, flush=False)  # the hashes tell what a crash cut off
        return dict(self._counts)

    def close(self) -> None:
        """Write the waiting tables and end the thread. Without `finish` the folder is not valid."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        """The thread's loop. After a failure it continues to take tables, so that `add` never
        blocks.
        """
        coming = iter(self._waiting.get, None)
        try:
            self._write_tables(coming)
        except BaseException as error:
            self._failure = error
            for _ in coming:
                continue

    def _write_tables(self, coming: Iterator[tuple[str, pa.Table]]) -> None:
        import pyarrow as pa

        with ExitStack() as open_files:
            writers = {}
            for name in self._writes:
                sink = open_files.enter_context(
                    pa.OSFile(str(self._folder / f"{name}.arrow"), "wb")
                )
                writers[name] = open_files.enter_context(pa.ipc.new_file(sink, arrow_schema(name)))
            for name, rows in coming:
                writers[name].write_table(rows)
                self._counts[name] += len(rows)


def _mismatch(actual: pa.Schema, expected: pa.Schema) -> str:
    for field in expected:
        if field.name not in actual.names:
            return f"Column '{field.name}' ({field.type}) is missing."
        if not actual.field(field.name).equals(field):
            return f"Column '{field.name}' is {actual.field(field.name)!s}; it must be {field!s}."
    extra = [name for name in actual.names if name not in expected.names]
    return (
        f"Columns that the table does not have: {extra}."
        if extra
        else "The columns are in another order."
    )


def collect(folder: Path) -> tuple[dict[str, Any], dict[str, pa.Table]] | None:
    """The content of a finished job folder, or None if it is unfinished, has the result of another
    step, or a file does not match its recorded hash.
    """
    try:
        done = json.loads((folder / DONE).read_text())
        if done["key"] != folder.name:
            return None
        tables: dict[str, pa.Table] = {}
        for name, file in done["tables"].items():
            table(name)
            rows = _read_checked(folder / f"{name}.arrow", file["sha256"])
            if rows is None:
                return None
            tables[name] = rows
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return done, tables


def _read_checked(path: Path, sha256: str) -> pa.Table | None:
    """The rows of a file with this hash, or None if it has another one."""
    if path.stat().st_size > SMALL_BYTES:
        return read_arrow(path) if sha256_of(path) == sha256 else None
    content = path.read_bytes()
    return _rows_in(content) if hashlib.sha256(content).hexdigest() == sha256 else None
