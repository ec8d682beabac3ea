"""The ledger of a store: one record per committed step, and one per change of a run's state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

IMPORTED = "import"
"""The value of `worker` for a step that an import added to a run."""
_KEY_TAG = "k1"
"""Tag of the key recipe; it changes when the recipe does."""


def key_of(material: str) -> str:
    """The key of a canonical text."""
    return f"{_KEY_TAG}-{hashlib.sha256(material.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One committed step. `material` is the canonical JSON whose hash is `key`; `tables` counts the
    rows written to each table. `origin` is empty for a step computed into this store, else it names
    the export that the step was imported from. `shared` maps a space to the step whose row of
    `spaces` this step shares.
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
        """Whether an import (labels, lists) added it to a run whose spec has no such stage."""
        return self.worker == IMPORTED


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One change of a run's state. The row with the highest `seq` is the current state. States:
    running, done, failed, interrupted.
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
