"""The shared files through which a host and the tasks of its array jobs communicate.

    FOLDER/session                     id of the host's session, empty once it is over
    FOLDER/host                        a number that the host changes while it is alive
    FOLDER/ID/free/SEAT.json           a worker that a task may start
    FOLDER/ID/taken/SEAT@TASK.json     the same, claimed by a task: one atomic rename
    FOLDER/ID/SEAT.in                  the host's messages, one JSON line each
    FOLDER/ID/SEAT.out                 the worker's events, one JSON line each

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
    """The name of the worker."""
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
    """Seconds that its task waits for a silent host."""

    def translations(self) -> dict[Path, PurePosixPath]:
        """The folders, for `PipedWorker`."""
        return {Path(outside): PurePosixPath(inside) for outside, inside in self.folders.items()}


@dataclass(frozen=True)
class Seats:
    """The files of all sessions of one executor in one run."""

    folder: Path

    # --- the session ---

    def session(self) -> str:
        """The id of the open session, or an empty text."""
        return _text(self.folder / "session")

    def open_session(self, session: str) -> None:
        """Begin a session, which ends that of an earlier host."""
        for name in ("free", "taken"):
            (self.folder / session / name).mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "session", session)

    def close_session(self) -> None:
        """End the session; its tasks then end too."""
        write_text(self.folder / "session", "")

    def beat(self, number: int) -> None:
        """Write the next heartbeat of the host."""
        write_text(self.folder / "host", str(number))

    def heartbeat(self) -> str:
        """The last heartbeat of the host."""
        return _text(self.folder / "host")

    # --- seats ---

    def offer(self, session: str, seat: Seat) -> None:
        """Let a task take a seat."""
        path = self.folder / session / "free" / f"{seat.name}.json"
        write_text(path, json.dumps(asdict(seat)))

    def withdraw(self, session: str, seat: str) -> bool:
        """Withdraw a free seat. False if a task has claimed it already."""
        try:
            (self.folder / session / "free" / f"{seat}.json").unlink()
        except FileNotFoundError:
            return False
        return True

    def claim(self, session: str, task: str) -> Seat | None:
        """Claim a free seat by an atomic rename, so that only one of several tasks gets it."""
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
        """The file with the host's messages."""
        return self.folder / session / f"{seat}.in"

    def outbox(self, session: str, seat: str) -> Path:
        """The file with the worker's events."""
        return self.folder / session / f"{seat}.out"


class LineReader:
    """Reads the lines that are appended to a file, each once it is complete."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def lines(self) -> list[bytes]:
        """The complete lines since the last call."""
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
    """Values as they appear in JSON text, without quotation marks: JSON may hold a number."""
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
