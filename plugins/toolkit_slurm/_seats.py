"""The files through which a host and the tasks of its array jobs speak, on a shared file system.

    FOLDER/session                     id of the session of the host, empty when it is over
    FOLDER/host                        a number that the living host changes
    FOLDER/ID/free/SEAT.json           a worker that a task may start
    FOLDER/ID/taken/SEAT@TASK.json     the same, claimed by a task: one atomic rename
    FOLDER/ID/SEAT.in                  messages of the host, one JSON line each
    FOLDER/ID/SEAT.out                 events of the worker, one JSON line each

Each file has one writer. Files are opened anew for each read and closed after each write, which is
what makes changes visible on a network file system.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.secrets import NONE, Secrets


@dataclass(frozen=True)
class Seat:
    """One worker that a task may start."""

    name: str
    """Unique in its session."""
    worker: str
    """The name of its worker."""
    command: list[str]
    log: str
    jobs: str
    """The folder of all job folders."""
    folders: dict[str, str] = field(default_factory=dict)
    """Folders that the worker sees under another path."""
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Names of environment variables that messages refer to as `${env:NAME}`."""
    wait: float = 600.0
    """Seconds that it waits for a host that is not heard of."""

    def translations(self) -> dict[Path, PurePosixPath]:
        """The folders, for `PipedWorker`."""
        return {Path(outside): PurePosixPath(inside) for outside, inside in self.folders.items()}


@dataclass(frozen=True)
class Seats:
    """The files of all sessions of one executor in one run."""

    folder: Path

    # --- the session ---

    def session(self) -> str:
        """The id of the session that is open, or an empty text."""
        return _text(self.folder / "session")

    def open_session(self, session: str) -> None:
        """Begin a session; that of an earlier host is over."""
        for name in ("free", "taken"):
            (self.folder / session / name).mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "session", session)

    def close_session(self) -> None:
        """End the session: its tasks end."""
        write_text(self.folder / "session", "")

    def beat(self, number: int) -> None:
        """Show that the host lives."""
        write_text(self.folder / "host", str(number))

    def heartbeat(self) -> str:
        """What the host wrote last to show that it lives."""
        return _text(self.folder / "host")

    # --- seats ---

    def offer(self, session: str, seat: Seat) -> None:
        """Let a task take a seat."""
        path = self.folder / session / "free" / f"{seat.name}.json"
        write_text(path, json.dumps(asdict(seat)))

    def withdraw(self, session: str, seat: str) -> bool:
        """Take back a seat that no task has claimed; whether that was in time."""
        try:
            (self.folder / session / "free" / f"{seat}.json").unlink()
        except FileNotFoundError:
            return False
        return True

    def claim(self, session: str, task: str) -> Seat | None:
        """Claim a free seat for a task, by an atomic rename: of several claimants one gets it."""
        free, taken = (self.folder / session / name for name in ("free", "taken"))
        for name in sorted(_names(free)):
            claimed = taken / f"{name.removesuffix('.json')}@{task}.json"
            try:
                os.rename(free / name, claimed)
            except FileNotFoundError:
                continue
            return Seat(**json.loads(claimed.read_text()))
        return None

    def owners(self, session: str) -> dict[str, str]:
        """The task of every claimed seat."""
        names = (name.removesuffix(".json") for name in _names(self.folder / session / "taken"))
        pairs = (name.partition("@") for name in names)
        return {seat: owner for seat, _, owner in pairs if owner}

    def inbox(self, session: str, seat: str) -> Path:
        """The file of the host's messages."""
        return self.folder / session / f"{seat}.in"

    def outbox(self, session: str, seat: str) -> Path:
        """The file of the worker's events."""
        return self.folder / session / f"{seat}.out"


class LineReader:
    """Reads the lines that a file gains; the last line counts once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def lines(self) -> list[bytes]:
        """The whole lines that have come since."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()


def append(path: Path, records: Iterable[Mapping[str, Any]], secrets: Secrets = NONE) -> None:
    """Append records as lines, in one write, with `${env:NAME}` in place of secrets."""
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    with path.open("ab", buffering=0) as file:
        file.write(_as_in_json(secrets.values, secrets.values).hide(text).encode())


def read_message(line: bytes, names: Iterable[str], values: Mapping[str, str]) -> dict[str, Any]:
    """A record, with the named environment values in place of the references to them."""
    text = line.decode()
    for name, value in _as_in_json(names, values).values.items():
        text = text.replace(f"${{env:{name}}}", value)
    message: dict[str, Any] = json.loads(text)
    return message


def _as_in_json(names: Iterable[str], values: Mapping[str, str]) -> Secrets:
    """Values as JSON text holds them, without quotation marks: a value may be a number there."""
    return Secrets({name: json.dumps(values[name])[1:-1] for name in names})


def write_text(path: Path, text: str) -> None:
    """Write a whole file by an atomic rename."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
