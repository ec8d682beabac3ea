"""Stopping a run: the first Ctrl-C finishes the steps in flight, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from toolkit.errors import Interrupted

Value = TypeVar("Value")
POLL_SECONDS = 0.2


class Interrupts:
    """Counts Ctrl-C and SIGTERM during a run."""

    def __init__(self) -> None:
        self.count = 0
        self.abandoned = False
        """Whether work was abandoned in its thread, which may hold the store."""

    @contextmanager
    def listening(self) -> Iterator[Interrupts]:
        """Handle the signals inside the block, and restore their handlers afterwards."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` once the user has asked to stop."""
        if self.count:
            raise Interrupted("stopped; the same command continues.")

    def obey(self, work: Callable[[], Value]) -> Value:
        """Do work in a separate thread and abandon it on the first Ctrl-C: the store's engine does
        not react to signals while it works. The abandoned work ends with the process, as after a
        kill.
        """
        results: list[Value] = []
        failures: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run, name="interruptible", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            if self.count and thread.is_alive():
                self.abandoned = True
                self.check()
        if failures:
            raise failures[0]
        return results[0]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
