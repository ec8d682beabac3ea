"""The writer lock of a store, shared by all stores that a process opens at one path or URI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from toolkit_store import locks


class FakeHold:
    """A lock that is held, as one connection took it."""

    def __init__(self, connection: str, released: list[str]) -> None:
        self.connection, self.released = connection, released

    def check(self) -> None:
        """Still held."""

    def let_go(self) -> None:
        self.released.append(self.connection)


@pytest.fixture
def name() -> Iterator[str]:
    yield "s3://bucket/of/the/lease/test"
    locks._leases.pop("s3://bucket/of/the/lease/test", None)


def test_the_connection_that_was_opened_last_takes_the_lock(name: str) -> None:
    """The first one may be dead: its server restarted elsewhere, its credentials expired."""
    released: list[str] = []

    def lease_of(connection: str) -> locks.Lease:
        return locks.Lease.shared(name, lambda wait_s, on_wait: FakeHold(connection, released))

    dead, alive = lease_of("dead"), lease_of("alive")
    assert dead is alive
    with ExitStack() as inner:
        inner.enter_context(dead.holding(None, None))
        inner.enter_context(alive.holding(None, None))
        lease_of("third")  # opened meanwhile: the lock that is held stays held
    assert released == ["alive"]
    with alive.holding(None, None):
        pass
    assert released == ["alive", "third"]
