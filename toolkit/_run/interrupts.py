"""Stopping a run: the first Ctrl-C finishes the steps in flight, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Counts Ctrl-C (and SIGTERM) while a run goes on: once finishes the steps in flight, twice
    stops at once.
    """

    def __init__(self) -> None:
        self.count = 0

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    @contextmanager
    def listening(self) -> Iterator[Interrupts]:
        """Take the signals, and give them back afterwards."""
        before = {
            number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
