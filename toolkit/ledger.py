"""What the ledger of a store keeps: one record a committed step, one a change of a run's state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

IMPORTED = "import"
"""The worker of a step that an import added to a run."""
_KEY_TAG = "k1"
"""Changes when the recipe of keys does."""


def key_of(material: str) -> str:
    """The key of a canonical text."""
    return f"{_KEY_TAG}-{hashlib.sha256(material.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One committed step. `material` is the canonical JSON whose hash is `key`; `tables` the rows
    written to each table. `origin` is empty for a step that was computed into this store, else it
    names the export that the step was read from. `shared` says which step's rows of `spaces` are
    also this one's: space to step.
    """

    key: str
    experiment: str
    stage: str
    part: str
    part_version: str
    run: str
    index: int
    material: str
    tables: Mapping[str, int]
    worker: str
    seconds: float
    committed_at: str
    first: int | None = None
    last: int | None = None
    origin: str = ""
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def imported(self) -> bool:
        """Whether an import added it to a run whose spec does not know of it: labels, lists."""
        return self.worker == IMPORTED


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One change of a run's state. The row with the highest `seq` counts. States: running, done,
    failed, interrupted.
    """

    run: str
    seq: int
    name: str
    state: str
    at: str
    done: int
    total: int | None
    note: str
    steps: tuple[str, ...]
    pid: int
    host: str
