"""The ledger rows of the store's own steps: which steps hold an index or projections."""

from __future__ import annotations

import json
from collections.abc import Iterable

from toolkit.ledger import StepRow

PART = "store.index"
"""The part of steps that hold an index."""
PROJECTIONS_PART = "store.projections"
"""The part of steps that hold projections of a decoder."""


def is_index(row: StepRow) -> bool:
    """Whether a step of the ledger belongs to an index."""
    return row.part == PART


def is_derived(row: StepRow) -> bool:
    """Whether a step is the store's own; such steps belong to no experiment."""
    return row.part in (PART, PROJECTIONS_PART)


def covered(rows: Iterable[StepRow]) -> list[str]:
    """The activation steps among these, which an index covers."""
    return sorted(row.key for row in rows if row.tables.get("activations") and not is_index(row))


def spaces_of(row: StepRow) -> list[str]:
    """The spaces of an index, from the step that numbers its samples."""
    return list(json.loads(row.material)["spaces"])
