"""Locks for writing and reading a store: two lock files in `<store>/locks/`.

`writer.lock` is the lease: one process at a time writes. `readers.lock` is held shared by every
read, and exclusively by `clean`, which removes files that a read may still need. Both are `flock`
locks: the kernel drops them when their process ends, however it ends, so that a lock is never left
behind. The text in a lock file only names the holder for messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from toolkit.errors import StoreError
from toolkit.terminal import printable


class InUse(StoreError):
    """Another process holds the lock."""


OnWait = Callable[[str], None]
_POLL_S = 0.05
_TELL_EVERY_S = 60.0


def log_wait(message: str) -> None:
    """Print to stderr what this process waits for."""
    logging.getLogger("toolkit_store").warning("%s", printable(message))


class Wait:
    """Waits for a lock: reports once a minute who holds it, and gives up after `wait_s` seconds."""

    def __init__(self, uri: object, wait_s: float | None, on_wait: OnWait | None) -> None:
        self._uri, self._wait_s, self._on_wait = uri, wait_s, on_wait
        self._begin = time.monotonic()
        self._next = self._begin

    def go_on(self, holder: str, advice: str = "") -> None:
        """Stop waiting after the limit; once a minute report who holds the lock."""
        now = time.monotonic()
        if self._wait_s is not None and now >= self._begin + self._wait_s:
            raise InUse(
                f"The store at {self._uri} is in use by {holder}, still after {self._wait_s:g} s. "
                f"Wait for it to end, or stop it, and issue the same command again.{advice}"
            )
        if self._on_wait and now >= self._next:
            waited = f", waited {now - self._begin:.0f} s" if now - self._begin >= 1 else ""
            self._on_wait(f"Waiting for {holder} to finish with the store at {self._uri}{waited}")
            self._next = now + _TELL_EVERY_S


class Hold(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise an error if it is no longer held."""

    def let_go(self) -> None:
        """Release it."""


Take = Callable[[float | None, OnWait | None], Hold]
"""Waits for a lock; after `wait_s` seconds, if given, gives up and names who has it."""


class Lease:
    """This process's hold on a store's writer lock. Entering it again only increments a count;
    `turn` makes its threads take turns.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self.turn = threading.RLock()
        self._guard = threading.Lock()
        self._depth = 0
        self._hold: Hold | None = None

    @staticmethod
    def shared(name: str, take: Take) -> Lease:
        """The one lease object of this process by that name: two stores opened at one path or URI
        share it. The store that was opened last takes it, since the connection of an earlier one
        may be dead.
        """
        with _leases_guard:
            lease = _leases.setdefault(name, Lease(take))
            lease._take = take
            return lease

    def check(self) -> None:
        """Raise an error if the lock is no longer held."""
        if self._hold is not None:
            self._hold.check()

    @contextlib.contextmanager
    def holding(self, wait_s: float | None, on_wait: OnWait | None) -> Iterator[None]:
        """Hold the lease inside the block, after another process has let it go."""
        with self._guard:
            if self._depth == 0:
                self._hold = self._take(wait_s, on_wait)
            self._depth += 1
        try:
            yield
        finally:
            with self._guard:
                self._depth -= 1
                if self._depth == 0 and self._hold is not None:
                    self._hold.let_go()
                    self._hold = None


_leases: dict[str, Lease] = {}
_leases_guard = threading.Lock()


def lease(path: Path) -> Lease:
    """The lease by a lock file."""
    return Lease.shared(
        os.path.realpath(path), lambda wait_s, on_wait: _FileHold(path, wait_s, on_wait)
    )


class _FileHold:
    """A held lock file; only the kernel releases it."""

    def __init__(self, path: Path, wait_s: float | None, on_wait: OnWait | None) -> None:
        self._file = _locked(path, fcntl.LOCK_EX, wait_s, on_wait)
        _sign(self._file)

    def check(self) -> None: ...

    def let_go(self) -> None:
        os.close(self._file)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Keep `clean` away inside the block. A store on a read-only medium may have no lock file, and
    cannot be cleaned.
    """
    if not path.exists() and not os.access(path.parent, os.W_OK):
        yield
        return
    with _file_lock(path, fcntl.LOCK_SH, 60.0):
        yield


@contextlib.contextmanager
def alone(path: Path, wait_s: float) -> Iterator[None]:
    """Wait until all reads have ended and keep new ones away inside the block."""
    with _file_lock(path, fcntl.LOCK_EX, wait_s):
        yield


@contextlib.contextmanager
def _file_lock(path: Path, kind: int, wait_s: float | None) -> Iterator[None]:
    file = _locked(path, kind, wait_s, None)
    try:
        if kind == fcntl.LOCK_EX:
            _sign(file)
        yield
    finally:
        os.close(file)


def _locked(path: Path, kind: int, wait_s: float | None, on_wait: OnWait | None) -> int:
    """A descriptor that holds the lock; closing it releases the lock."""
    try:
        file = _open(path)
    except OSError as error:
        raise StoreError(
            f"The lock {path} cannot be opened: {error.strerror}. Check the store's permissions "
            "and space."
        ) from error
    try:
        _wait(file, path, kind, wait_s, on_wait)
    except BaseException:
        os.close(file)
        raise
    return file


def _open(path: Path) -> int:
    if path.exists() and not os.access(path, os.W_OK):
        return os.open(path, os.O_RDONLY)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _wait(file: int, path: Path, kind: int, wait_s: float | None, on_wait: OnWait | None) -> None:
    waiting = Wait(path.parent.parent, wait_s, on_wait)
    while not _try(file, kind):
        holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip() or "another process"
        waiting.go_on(holder)
        time.sleep(_POLL_S)


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: int) -> None:
    """Write who holds the lock. If the disk is full or read-only the lock is still held."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        os.pwrite(file, holder.encode(), 0)
