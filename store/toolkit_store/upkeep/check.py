"""`Store.check`: every file against the size and SHA-256 recorded when it was written, the record
of files against the tables, and the rows against the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from toolkit.errors import StoreError
from toolkit.ledger import StepRow
from toolkit.tables import DATA_TABLES, TABLES
from toolkit_store.location import Location
from toolkit_store.write.ledger import stored_count


@dataclass(frozen=True)
class CheckReport:
    """What `check` read, its problems (each with the file or the step), and notes."""

    files: int
    bytes: int
    problems: Sequence[str]
    notes: Sequence[str]


def report(
    location: Location, ledger: Callable[[], Sequence[StepRow]], used_tables: Callable[[], set[str]]
) -> CheckReport:
    """Check every file and the record and, if they are sound, every row. `used_tables` tells which
    tables have rows of a step.
    """
    problems: list[str] = []
    notes = list(location.notes)
    used: set[str] = set()
    with suppress(StoreError):  # a ledger that cannot be read has a damaged file, which is named
        used = used_tables()
    for name in TABLES:
        problems += [f"{path}: {problem}" for path, problem in location.files.damaged(name)]
        problems += [
            f"{path}: {problem}"
            for path, problem in location.files.faults(name, partial(used.__contains__, name))
        ]
        problems += _lost(location, name)
        unrecorded = len(location.files.unrecorded(name))
        if unrecorded:
            notes.append(
                f"table '{name}': {unrecorded} files of a write that is in progress or was cut off"
            )
    steps = [] if problems else ledger()
    problems += [] if problems else _miscounted(location, steps)
    notes += _imported(steps)
    sizes = [entry.bytes for name in TABLES for entry in location.files.known(name).values()]
    return CheckReport(len(sizes), sum(sizes), problems, notes)


def _lost(location: Location, name: str) -> list[str]:
    """Recorded files that are gone. If a removal of old versions was cut off, they matter only to a
    table that cannot be read.
    """
    missing = location.files.missing(name)
    folder = location.folder / "tables" / f"{name}.lance"
    if not location.files.removing(name):
        return [f"{folder / path}: it is missing" for path in missing]
    if not missing:
        return []
    try:
        for _ in location.database.batches(name):
            pass
    except StoreError as error:
        return [f"{folder / missing[0]}: it is missing. {error}"]
    return []


def _imported(steps: Sequence[StepRow]) -> list[str]:
    """Notes about steps that were imported, not computed here: their rows are only as reliable as
    the export.
    """
    origins = [step.origin for step in steps if step.origin]
    if not origins:
        return []
    count = "1 step was" if len(origins) == 1 else f"{len(origins):,} steps were"
    return [f"{count} imported, not computed here: {', '.join(sorted(set(origins))[:5])}"]


def _miscounted(location: Location, steps: Sequence[StepRow]) -> Iterator[str]:
    """Steps whose number of rows differs from the ledger's."""
    for name in DATA_TABLES:
        counts = location.database.count_by_step(name)
        for row in steps:
            expected = stored_count(row, name)
            if counts[row.key] != expected:
                yield (
                    f"step {row.key}: the ledger says {expected:,} rows in table '{name}', there "
                    f"are {counts[row.key]:,}"
                )
