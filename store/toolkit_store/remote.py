"""A store at a URI: its marker and its lease, both the one row of the table `toolkit_store` there.

Object storage has no locks, but LanceDB lets one of several commits on the same version win. So the
lease is a row that is only changed by compare-and-swap: `epoch` goes up with each holder, and an
update that names an old epoch changes nothing. The holder also increments `beat` every few seconds.
A waiting process takes the lease over when neither has changed for half a minute by its own clock;
clocks are never compared between machines. A delayed holder checks its lease before it appends or
removes rows and before it enters a step into the ledger, and gives up when its last sign of life is
older than half of that. One risk remains: a write that lands more than a quarter of a minute after
the check may add rows to a step that another process has entered. `Store.read` refuses such a step,
since its rows are more than the ledger says, and `Store.check` names it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from toolkit.errors import BadInput, StoreError, StoreNotUsable, choices
from toolkit.tables import STORE_FORMAT
from toolkit.version import VERSION
from toolkit_store.database import Database
from toolkit_store.folder import VALUES
from toolkit_store.lance import LanceFault, Patience, lance_faults, repeated
from toolkit_store.locks import Lease, OnWait, Wait

TABLE = "toolkit_store"
BEAT_S, EXPIRES_S, POLL_S = 5.0, 30.0, 0.25
_ATTEMPTS = 3
_TIDY_EVERY = 100
_KEPT = timedelta(minutes=10)
IN_MEMORY = ("memory", "shared-memory")
"""LanceDB's schemes whose files end with the process."""


class NoStore(StoreNotUsable):
    """There is no store at the URI yet."""


@dataclass(frozen=True)
class Marker:
    """The row as last read."""

    format: int
    made_by: str
    made_at: str
    values: str
    holder: str
    epoch: int
    beat: int


def prepare(database: Database, *, create: bool, read_only: bool, values: str | None) -> Marker:
    """The marker of the store, created if requested; otherwise an error says what to do."""
    check_uri(database.uri)
    if values not in (None, *VALUES):
        raise BadInput(f"A store can keep values as {choices(VALUES)}, not as '{values}'.")
    with _reached(database):
        table = repeated(lambda: _opened(database))
        names = [] if table is not None else database.names()
        if TABLE in names:  # another process made it in between, or is making it
            table = repeated(lambda: _opened(database))
    others = [name for name in names if name != TABLE]
    if table is None and others:
        listed = ", ".join(others[:5])
        raise StoreNotUsable(
            f"{database.uri} is not a store: it has no table '{TABLE}' and holds {listed}. Give "
            "another URI."
        )
    if table is None and (read_only or not create):
        raise NoStore(
            f"There is no store at {database.uri}. Check --store and TOOLKIT_STORE, or run "
            "a spec first, which creates one."
        )
    with _reached(database):
        if table is None:
            table = repeated(lambda: _made(database, values or VALUES[0]))
        found_marker = repeated(lambda: _seen(table))
    _check(database, found_marker, values)
    return found_marker


def check_uri(uri: str) -> None:
    """Refuse a URI that would be misread, recorded with a password, or forgotten."""
    scheme, _, rest = uri.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise StoreNotUsable(
            f"The {scheme} URI of the store holds credentials, which would be recorded with every "
            "run. Remove what is before the @, and give them in the environment (for s3: "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )
    if set(uri) & set(" %?#\t\n"):
        raise StoreNotUsable(
            f"LanceDB would misread some characters of the store's URI {uri!r}. Give --store a URI "
            "without blanks, %, ? and #."
        )
    if not scheme:
        raise StoreNotUsable(
            f"The store's URI {uri!r} begins with no scheme. Give --store a URI such as "
            "s3://bucket/store, or a folder."
        )
    if scheme in IN_MEMORY:
        raise StoreNotUsable(
            f"A store at {uri} would be in the memory of one process and gone with it. Give "
            "--store a folder, or a URI such as s3://bucket/store."
        )


def _made(database: Database, values: str) -> Any:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = Marker(STORE_FORMAT, f"sae-toolkit {VERSION}", now, values, "", 0, 0)
    try:
        return database.connection.create_table(TABLE, data=[vars(row)])
    except ValueError as error:
        if "already exists" not in str(error):
            raise
        return _opened(database)  # another process was faster


def _opened(database: Database) -> Any:
    try:
        return database.connection.open_table(TABLE)
    except ValueError as error:
        if "was not found" not in str(error):
            raise
        return None


def _seen(table: Any) -> Marker:
    return Marker(**table.search().limit(1).to_list()[0])


def _check(database: Database, marker: Marker, values: str | None) -> None:
    if marker.format != STORE_FORMAT:
        raise StoreNotUsable(
            f"The store at {database.uri} has format {marker.format}; this toolkit "
            f"({VERSION}) reads format {STORE_FORMAT}. The store was created by "
            f"{marker.made_by}. Use that version, or give --store a new URI."
        )
    if values not in (None, marker.values):
        raise StoreNotUsable(
            f"The store at {database.uri} keeps values as {marker.values}, not as {values}; "
            "the type is set when a store is created. Give --store a new URI, or leave the "
            "type out."
        )


@contextmanager
def _reached(database: Database) -> Iterator[None]:
    try:
        with lance_faults():
            yield
    except LanceFault as error:
        advice = _SCHEME if "for scheme" in str(error) else _ADDRESS
        raise StoreNotUsable(
            f"The store at {database.uri} cannot be reached: {error}. {advice}"
        ) from error


_SCHEME = "Begin --store with one of these schemes, or name a folder."
_ADDRESS = (
    "Check the address, the network and the credentials, which are read from the environment "
    "(for s3: AWS_ACCESS_KEY_ID and the like)."
)


# --- the lease ---


def lease(database: Database) -> Lease:
    """The one lease object of this process for that URI."""
    return Lease.shared(database.uri, lambda wait_s, on_wait: _taken(database, wait_s, on_wait))


def _taken(database: Database, wait_s: float | None, on_wait: OnWait | None) -> HeldLease:
    """Take the lease once it is free or its holder has been silent for too long."""
    with _reached(database):
        table = repeated(lambda: _opened(database))
    if table is None:
        raise StoreNotUsable(f"The store at {database.uri} is gone.")
    waiting = Wait(database.uri, wait_s, on_wait)
    last, since, patience = None, time.monotonic(), Patience()
    while True:
        with _reached(database):
            beats = repeated(lambda: _seen(table))
        if beats != last:
            last, since = beats, time.monotonic()
        silent = time.monotonic() - since
        if not beats.holder or silent >= EXPIRES_S:
            hold = _try(database, table, beats, patience)
            if hold is not None:
                return hold
            last = None
        else:
            advice = f" If it was killed, the store is free {EXPIRES_S:g} s after that."
            waiting.go_on(beats.holder, advice)
        time.sleep(POLL_S)


def _try(database: Database, table: Any, marker: Marker, patience: Patience) -> HeldLease | None:
    """Try to take the lease; another process may be faster. A change whose answer is lost was still
    made, and LanceDB then reports a conflict, or that nothing changed.
    """
    started, epoch = time.monotonic(), marker.epoch + 1
    now = datetime.now(UTC).isoformat(sep=" ", timespec="microseconds")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    where = (
        f"epoch = {marker.epoch} AND beat = {marker.beat} AND holder = "
        f"'{marker.holder.replace(chr(39), chr(39) * 2)}'"
    )
    failure: LanceFault | None = None
    try:
        with lance_faults():
            done = table.update(where=where, values={"epoch": epoch, "beat": 0, "holder": holder})
        taken = done.rows_updated == 1
    except LanceFault as error:
        failure, taken = error, False
    if not taken and not _is_held_by(table, epoch, holder):
        if failure is None or "conflict" in str(failure).lower() or patience.covers(failure):
            return None
        raise StoreError(
            f"The lease of the store at {database.uri} cannot be taken: {failure}."
        ) from failure
    with suppress(LanceFault), lance_faults():  # a failure leaves only old versions of one row
        if table.version % _TIDY_EVERY == 0:
            table.optimize(cleanup_older_than=_KEPT)
    return HeldLease(database.uri, table, epoch, started)


def _is_held_by(table: Any, epoch: int, holder: str) -> bool:
    for _ in range(_ATTEMPTS):
        with suppress(LanceFault), lance_faults():
            marker = _seen(table)
            return (marker.epoch, marker.holder) == (epoch, holder)
    return False


class HeldLease:
    """The held lease: a thread renews it every few seconds."""

    def __init__(self, uri: str, table: Any, epoch: int, seen_at: float) -> None:
        self._uri, self._table, self._epoch, self._last_beat, self._lost = (
            uri,
            table,
            epoch,
            seen_at,
            False,
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="toolkit-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise an error if another process may have the lease by now."""
        if self._lost or time.monotonic() - self._last_beat > EXPIRES_S / 2:
            raise StoreError(
                f"The lease of the store at {self._uri} is lost: it could not be renewed for "
                f"{time.monotonic() - self._last_beat:.0f} s. Check the network and issue the same "
                "command again."
            )

    def let_go(self) -> None:
        """Release the lease."""
        self._end.set()
        self._thread.join()
        for _ in range(_ATTEMPTS):  # it expires when it is not renewed
            with suppress(LanceFault), lance_faults():
                self._table.update(where=f"epoch = {self._epoch}", values={"holder": ""})
                return

    def _beats(self) -> None:
        beat = 0
        while not self._end.wait(BEAT_S):
            beat_time, beat = time.monotonic(), beat + 1
            try:
                with lance_faults():
                    done = self._table.update(where=f"epoch = {self._epoch}", values={"beat": beat})
            except LanceFault:
                continue
            if done.rows_updated != 1:
                self._lost = True
                return
            self._last_beat = beat_time
