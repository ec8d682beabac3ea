"""Tells slow from stuck: a worker silent for max(60 s, 10 x the median step) gets its phase and
stack printed.

Nothing is killed. A worker's sign of life (`alive`) is no progress. Each silence is told again when
it has doubled.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from toolkit._run.workers import Pool, Seat

PROGRESS = frozenset({"hello", "phase", "progress", "done", "failed"})


class Watchdog:
    """Asked now and then; tells through `emit`."""

    def __init__(self, pool: Pool, emit: Callable[..., None]) -> None:
        self._pool, self._emit = pool, emit
        self._least = float(os.environ.get("TOOLKIT_STALL_SECONDS", "60"))
        self._seconds: list[float] = []
        self._told: dict[str, float] = {}

    def took(self, seconds: float) -> None:
        """A step took so long."""
        self._seconds.append(seconds)

    def patience(self) -> float:
        """How long a silence may be before it is told."""
        return (
            max(self._least, 10 * statistics.median(self._seconds))
            if self._seconds
            else self._least
        )

    def heard(self, seat: Seat, event: str, phase: str | None) -> None:
        """A worker said something."""
        if event in PROGRESS:
            seat.heard = time.monotonic()
            self._told.pop(seat.worker.name, None)
        if phase is not None:
            seat.phase, seat.phase_since = phase, time.monotonic()

    def look(self, describe: Callable[[str | None], tuple[str, int]]) -> None:
        """Tell of every worker that has been silent too long. `describe` gives a job's stage and
        index, or a starting worker's.
        """
        for seat in self._pool.owing():
            age = time.monotonic() - seat.heard
            if age >= self._told.get(seat.worker.name, self.patience()):
                self._told[seat.worker.name] = 2 * age
                stage, index = describe(seat.job)
                self._emit(
                    "stalled",
                    worker=seat.worker.name,
                    age=age,
                    phase=seat.phase,
                    phase_seconds=time.monotonic() - seat.phase_since,
                    stage=stage,
                    index=index,
                    stack=seat.worker.stack(),
                )
