"""Atomic writes: a reader sees the complete file or none, even if the writer is killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def write_text(path: Path, text: str, *, flush: bool = True) -> None:
    """Write the whole text: a new file is flushed to disk and renamed into place. Without `flush`,
    a power failure (not a kill) may leave a file that is cut off.
    """
    write_bytes(path, text.encode(), flush=flush)


def write_bytes(path: Path, data: bytes | Iterable[bytes], *, flush: bool = True) -> str:
    """Write the whole file, from all its bytes or piece by piece, and return its SHA-256."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(path)
    try:
        with scratch.open("wb") as file:
            for piece in (data,) if isinstance(data, bytes) else data:
                file.write(piece)
                digest.update(piece)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return digest.hexdigest()


def write_arrow(path: Path, rows: pa.Table) -> None:
    """Write one Arrow IPC file, which readers map into memory."""
    write_parts(path, rows.schema, [rows])


def write_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Write one Arrow IPC file from parts, of which one at a time is in memory."""
    import pyarrow as pa

    scratch = _scratch(path)
    try:
        with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for rows in parts:
                writer.write_table(rows)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
