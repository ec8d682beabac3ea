"""Report workers that may be stuck: if a worker is silent for max(60 s, 10 x the median step), its
phase and stack are shown. Nothing is killed. A worker's sign of life does not count as progress. A
silence is reported again when it has doubled. The stack is requested over the protocol, and only
from a worker that has said hello.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit._run.events import RunEvent, Stalled
from toolkit._run.workers import WorkerSlot
from toolkit.executors.protocol import Alive, Phase, Stack, WorkerEvent

if TYPE_CHECKING:
    from toolkit._plan.plan import Step

ANSWER_SECONDS = 2.0
"""How long a worker may take to report its stack."""
RECENT_STEPS = 501


@dataclass
class _Question:
    """A silent worker that was asked for its stack."""

    slot: WorkerSlot
    step: Step | None
    """None for a worker that is starting."""
    answer_by: float


class Watchdog:
    """Checks the workers regularly and reports the silent ones."""

    def __init__(self, emit: Callable[[RunEvent], None]) -> None:
        self._emit = emit
        self._least = float(os.environ.get("TOOLKIT_STALL_SECONDS", "60"))
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._report_at: dict[str, float] = {}
        self._questions: dict[str, _Question] = {}

    def step_took(self, seconds: float) -> None:
        """Record how long a step took."""
        self._seconds.append(seconds)

    def patience(self) -> float:
        """Seconds of silence before a worker is reported."""
        if not self._seconds:
            return self._least
        return max(self._least, 10 * statistics.median(self._seconds))

    def record(self, slot: WorkerSlot, event: WorkerEvent) -> None:
        """Record an event of a worker."""
        name = slot.worker.name
        if isinstance(event, Stack):
            question = self._questions.pop(name, None)
            if question is not None:
                self._report(question, event.text)
        elif not isinstance(event, Alive):
            slot.last_event = time.monotonic()
            self._report_at.pop(name, None)
            self._questions.pop(name, None)
        if isinstance(event, Phase):
            slot.phase, slot.phase_since = event.phase, time.monotonic()

    def check(self, slots: Iterable[WorkerSlot], running: Mapping[str, Step]) -> None:
        """Ask every worker that has been silent too long for its stack, and report it. `running`
        has the steps of the workers' jobs.
        """
        for slot in slots:
            age = time.monotonic() - slot.last_event
            name = slot.worker.name
            if slot.awaiting_reply and age >= self._report_at.get(name, self.patience()):
                self._report_at[name] = 2 * age
                self._ask(slot, running.get(slot.job) if slot.job else None)
        for name, question in list(self._questions.items()):
            if time.monotonic() >= question.answer_by:
                del self._questions[name]
                self._report(question, _no_answer(question.slot))

    def _ask(self, slot: WorkerSlot, step: Step | None) -> None:
        question = _Question(slot, step, time.monotonic() + ANSWER_SECONDS)
        if slot.hello is None:
            self._report(question, "it has not sent its hello message yet")
            return
        self._questions[slot.worker.name] = question
        slot.worker.send({"type": "stack"})

    def _report(self, question: _Question, stack: str) -> None:
        slot, moment = question.slot, time.monotonic()
        step = question.step
        self._emit(
            Stalled(
                worker=slot.worker.name,
                stage=step.stage.id if step else None,
                index=step.index if step else None,
                phase=slot.phase,
                phase_seconds=moment - slot.phase_since,
                age=moment - slot.last_event,
                stack=stack,
            )
        )


def _no_answer(slot: WorkerSlot) -> str:
    log = slot.request.folder / f"{slot.worker.name}.log"
    return f"the worker does not answer; if it is frozen, its stack is at the end of {log}"
