"""A store's folder: recognise, create or refuse it.

    <store>/toolkit-store.json   the marker: {"format", "made_by", "made_at", "values"}; a folder
    with it is a store
    <store>/tables/              the LanceDB database
    <store>/files/               size and SHA-256 of its files (`toolkit_store.file_record`)
    <store>/locks/               the lock files (`toolkit_store.locks`)
    <store>/runs/                the host's: journals and reports

The marker is written first and by rename, so a kill while a store is being made leaves an empty
folder or a store.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, StoreNotUsable, choices
from toolkit.tables import STORE_FORMAT
from toolkit.version import VERSION

MARKER = "toolkit-store.json"
VALUES = ("float32", "float16")


def prepare(path: str | Path, *, create: bool, read_only: bool, values: str | None = None) -> Path:
    """The folder of a usable store, created if requested; otherwise an error says what to do."""
    folder = _absolute(path)
    if values not in (None, *VALUES):
        raise BadInput(f"A store can keep values as {choices(VALUES)}, not as '{values}'.")
    if _exists(folder):
        _check_format(folder)
        _check_values(folder, values)
    elif create and not read_only:
        _make(folder, values or VALUES[0])
    else:
        raise StoreNotUsable(
            f"There is no store at {folder}. Check --store and TOOLKIT_STORE, or run a spec "
            "first, which creates one."
        )
    if not read_only:
        _check_writable(folder)
    return folder


def make_local(folder: Path) -> None:
    """Make the local part of a store whose tables are elsewhere."""
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreNotUsable(
            f"The local files of the store cannot be written at {folder}: "
            f"{error.strerror or error}. Run the command in a writable folder."
        ) from error


def _absolute(path: str | Path) -> Path:
    folder = Path(path).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise StoreNotUsable(
            f"The store path {folder} is a file. A store is a folder; give --store another path."
        )
    return folder


def _exists(folder: Path) -> bool:
    """Whether `folder` is a store. A single listing decides, so that a store that another process
    is creating is not called foreign.
    """
    try:
        names = sorted(os.listdir(folder)) if folder.exists() else []
    except OSError as error:
        raise StoreNotUsable(
            f"The store at {folder} cannot be opened: {error.strerror}. Check the folder's "
            "permissions."
        ) from error
    if MARKER in names:
        return True
    foreign = [
        name for name in names if not name.startswith(MARKER)
    ]  # an unfinished marker is ours
    if foreign:
        listed = ", ".join(foreign[:5]) + (
            f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        )
        raise StoreNotUsable(
            f"The folder {folder} is not a store: it has no {MARKER} and holds {listed}. Give "
            "--store an empty or a new folder."
        )
    return False


def values_of(folder: Path) -> str:
    """The type in which a store keeps the values of activations."""
    values = _read_marker(folder).get("values")
    if values not in VALUES:
        raise StoreNotUsable(
            f"The marker {folder / MARKER} says that values are kept as {values!r}; it must be "
            f"{choices(VALUES)}. {_RESTORE}"
        )
    return str(values)


def _check_values(folder: Path, values: str | None) -> None:
    result = values_of(folder)
    if values not in (None, result):
        raise StoreNotUsable(
            f"The store at {folder} keeps values as {result}, not as {values}; the type is "
            "set when a store is created. Give --store a new folder, or leave the type out."
        )


def _make(folder: Path, values: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_marker(folder, values)
        _make_folders(folder)
    except OSError as error:
        raise StoreNotUsable(
            f"A store cannot be created at {folder}: {error.strerror or error}. Give "
            "--store a writable folder."
        ) from error


def _make_folders(folder: Path) -> None:
    for name in ("tables", "files", "locks", "runs"):
        (folder / name).mkdir(exist_ok=True)


def _write_marker(folder: Path, values: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    marker = {
        "format": STORE_FORMAT,
        "made_by": f"sae-toolkit {VERSION}",
        "made_at": now,
        "values": values,
    }
    unfinished = folder / f"{MARKER}.{os.getpid()}"
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps(marker, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / MARKER)


def _read_marker(folder: Path) -> dict[str, Any]:
    marker = folder / MARKER
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreNotUsable(f"The marker {marker} cannot be read: {error}. {_RESTORE}") from error
    return content if isinstance(content, dict) else {}


def _read_format(folder: Path) -> int:
    marker, number = folder / MARKER, _read_marker(folder).get("format")
    if type(number) is not int:
        raise StoreNotUsable(
            f"The marker {marker} has no whole number under 'format' (found {number!r}). {_RESTORE}"
        )
    return number


_RESTORE = "Put back the file from a copy of the store, or give --store a new folder."


def _check_format(folder: Path) -> None:
    number = _read_format(folder)
    if number > STORE_FORMAT:
        raise StoreNotUsable(
            f"The store at {folder} has format {number}; this toolkit ({VERSION}) reads "
            f"format {STORE_FORMAT}. Upgrade: python -m pip install -U sae-toolkit"
        )
    if number < STORE_FORMAT:
        raise StoreNotUsable(
            f"The store at {folder} has format {number}; this toolkit ({VERSION}) reads "
            f"format {STORE_FORMAT} and converts none. Give --store a new folder."
        )


def _check_writable(folder: Path) -> None:
    """Write a test file: permissions alone do not decide (root, read-only mounts)."""
    try:
        _make_folders(folder)
        _probe(folder / "locks")
    except OSError as error:
        raise StoreNotUsable(
            f"The store at {folder} cannot be written to: {error.strerror or error}. Make it "
            "writable, free space, or give --store another folder; reading commands still work."
        ) from error


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"?")
