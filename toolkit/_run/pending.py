"""Steps that workers have finished and the host has not committed yet.

Several are committed in one write. A write costs about as much for sixty short steps as for one, so
while workers are busy steps wait `WRITE_SHARE` times as long as the last write took, at most
`CHATTER_SECONDS`: short writes then take a fifth of the host's time at most. A store at a URI is
written to at most once in `URI_SECONDS`, since each write is requests to a server. A kill loses
nothing: the job folders remain, and the next run commits them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit._plan.plan import Step
    from toolkit.executors.protocol import Done

TOGETHER = 64
"""So many finished steps are committed without waiting for more, at a URI after its interval."""
URI_SECONDS = 2.0
"""Seconds from one commit to the next at a URI."""
WRITE_SHARE = 4.0
"""Steps wait for others this many times as long as the last write took."""
CHATTER_SECONDS = 0.5
"""The longest time that steps wait while other events of workers are handled."""


@dataclass(frozen=True)
class FinishedStep:
    """A step, the worker that computed it, and the worker's `Done` event."""

    step: Step
    worker: str
    done: Done


@dataclass
class PendingCommits:
    """The finished steps that wait to be committed, and when they are due."""

    interval: float
    """Seconds from one commit to the next."""
    steps: list[FinishedStep] = field(default_factory=list)
    _since: float = 0.0
    _last: float = -URI_SECONDS
    _write_seconds: float = 0.0

    def add(self, finished: FinishedStep) -> None:
        """Add a finished step."""
        if not self.steps:
            self._since = time.monotonic()
        self.steps.append(finished)

    def seconds_left(self, *, is_busy: bool) -> float:
        """Seconds until they are due: when the interval is over and, while workers are busy, a
        write is worth its time.
        """
        pause = self.interval
        if is_busy:
            pause = max(pause, min(WRITE_SHARE * self._write_seconds, CHATTER_SECONDS))
        return max(0.0, self._last + pause - time.monotonic())

    def is_overdue(self) -> bool:
        """Whether they have to be committed now, before other events of workers."""
        now, allowed = time.monotonic(), self._last + self.interval
        if not self.steps or now < allowed:
            return False
        return len(self.steps) >= TOGETHER or now - max(self._since, allowed) > CHATTER_SECONDS

    @contextmanager
    def writing(self) -> Iterator[list[FinishedStep]]:
        """All waiting steps, in order, to be written inside the block; the interval begins
        again.
        """
        taken, self.steps = self.steps, []
        with self._timing():
            yield taken

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """Steps of an earlier run are written inside the block, once the interval is over, which
        then begins again.
        """
        time.sleep(self.seconds_left(is_busy=False))
        with self._timing():
            yield

    @contextmanager
    def _timing(self) -> Iterator[None]:
        self._last = began = time.monotonic()
        yield
        self._last = time.monotonic() if not self.interval else began
        self._write_seconds = time.monotonic() - began
