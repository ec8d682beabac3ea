"""Which steps are still to be computed, which are computing, and which are committed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.ledger import StepRow

if TYPE_CHECKING:
    from toolkit._plan.plan import Stage, Step

MAX_ATTEMPTS = 3


@dataclass
class StepQueue:
    """The stages and steps of one run. The cost per step does not grow with the number of steps."""

    unexpanded: list[Stage]
    """Stages whose inputs are not committed yet."""
    steps: dict[str, list[Step]] = field(default_factory=dict)
    """The steps of each expanded stage."""
    rows: dict[str, list[StepRow]] = field(default_factory=dict)
    """The ledger rows of the steps that are committed, by stage."""
    running: dict[str, Step] = field(default_factory=dict)
    """The steps that workers have, by key."""

    def __post_init__(self) -> None:
        self._todo: dict[str, deque[tuple[Step, str]]] = {}
        self._left: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()
        self._sharing: dict[str, list[Step]] = {}

    # --- stages ---

    def ready_stages(self) -> list[Stage]:
        """The stages that can be expanded now."""
        return [
            stage
            for stage in self.unexpanded
            if all(map(self.is_complete, (*stage.needs, *stage.after)))
        ]

    def open(self, stage: Stage, steps: Sequence[Step]) -> None:
        """Add the steps of an expanded stage."""
        self.unexpanded.remove(stage)
        self.steps[stage.id], self.rows[stage.id] = list(steps), []

    def is_complete(self, stage: str) -> bool:
        """Whether all steps of a stage are committed."""
        return stage in self.steps and len(self.rows[stage]) == len(self.steps[stage])

    def rows_of(self, stages: Iterable[str]) -> dict[str, list[StepRow]]:
        """The committed steps of some stages."""
        return {stage: self.rows[stage] for stage in stages}

    # --- steps ---

    def add(self, step: Step, reason: str) -> None:
        """Queue a step, unless another stage of this run has a step with the same content: that is
        computed once for both.
        """
        sharing = self._sharing.setdefault(step.key, [])
        sharing.append(step)
        if len(sharing) == 1:
            self._todo.setdefault(step.stage.on, deque()).append((step, reason))
            self._left[step.stage.id] += 1

    def next_step(self, executor: str) -> tuple[Step, str] | None:
        """The next step for an executor's workers, and why it is computed."""
        todo = self._todo.get(executor)
        return todo[0] if todo else None

    def start(self, executor: str) -> Step:
        """Take the next step for a worker."""
        step, _ = self._todo[executor].popleft()
        self.running[step.key] = step
        return step

    def commit(self, step: Step, row: StepRow) -> Iterator[Step]:
        """Mark a step as committed; return the steps of other stages that share it."""
        if self.running.pop(step.key, None) is not None:
            self._left[step.stage.id] -= 1
        self.rows[step.stage.id].append(row)
        for other in self._sharing.pop(step.key, [])[1:]:
            self.rows[other.stage.id].append(row)
            yield other

    def fail(self, key: str) -> Step:
        """Give up a step."""
        step = self.running.pop(key)
        self._left[step.stage.id] -= 1
        return step

    def retry(self, key: str, reason: str) -> tuple[Step, int]:
        """Requeue a step whose worker died, unless that was its last attempt. Returns the number of
        the next attempt, which may exceed the limit.
        """
        step = self.running[key]
        self._attempts[key] += 1
        attempt = self._attempts[key] + 1
        if attempt > MAX_ATTEMPTS:
            self.fail(key)
        else:
            del self.running[key]
            self._todo[step.stage.on].appendleft((step, reason))
        return step, attempt

    def left_of(self, stage: str) -> int:
        """How many steps of a stage are waiting or running."""
        return self._left[stage]

    def waiting(self, executor: str) -> int:
        """How many steps wait for an executor's workers."""
        return len(self._todo.get(executor, ()))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to expand or start."""
        return not self.unexpanded and not any(self._todo.values())

    # --- sums ---

    def keys(self) -> list[str]:
        """The keys of the run's committed steps."""
        return [row.key for rows in self.rows.values() for row in rows]

    def counts(self) -> tuple[int, int | None]:
        """Committed steps, and how many there are once every stage is expanded."""
        done = sum(len(rows) for rows in self.rows.values())
        total = None if self.unexpanded else sum(len(steps) for steps in self.steps.values())
        return done, total


def step_fields(step: Step) -> dict[str, Any]:
    """The fields by which an event names its step."""
    return {"key": step.key, "stage": step.stage.id, "index": step.index}
