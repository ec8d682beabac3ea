"""The input tables of a step, as Arrow files for its job; and the tables of a run, read from the
store.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._plan.plan import Stage, Step
from toolkit._plan.texts import by_text, by_unit
from toolkit._run.atomic import write_arrow, write_parts
from toolkit._run.job_folder import read_arrow
from toolkit.ledger import StepRow
from toolkit.tables import TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store import Store

SAMPLE_RANGE = "input.arrow"
"""A step's range of the samples, in its job folder."""
Rows = Mapping[str, Sequence[StepRow]]
OVERLAPPING = ("activations", "streams")
"""Tables in which several stages may write the same row: activations do not depend on the selector
that asks for them.
"""


class StoreInputs:
    """Reads a run's committed tables, for sinks and report sections."""

    def __init__(self, store: Store, rows: Rows, folder: Path | None = None) -> None:
        """With a `folder`, large tables are written there as files and memory-mapped."""
        self._store, self._rows, self._folder = (
            store,
            [row for stage_rows in rows.values() for row in stage_rows],
            folder,
        )

    def tables(self) -> list[str]:
        """Tables to which a step wrote rows."""
        return sorted({name for row in self._rows for name, count in row.tables.items() if count})

    def newest(self) -> str:
        """When the newest of the steps was committed; empty without any."""
        return max((row.committed_at for row in self._rows), default="")

    def read(self, table: str) -> pa.Table:
        """All rows, sorted by the table's key."""
        keys = sorted(row.key for row in self._rows if table in row.tables)
        if self._folder is not None and _large(table):
            return read_arrow(_file(self._store, self._folder, table, keys))
        return _once(table, self._store.read(table, keys))

    def by_stage(self, table: str) -> dict[str, pa.Table]:
        """The rows of a table by stage, in the order in which stages ended. Stages with the same id
        in two experiments are distinguished by the experiment's name.
        """
        keys: dict[tuple[str, str], list[str]] = {}
        for row in sorted(self._rows, key=lambda row: row.committed_at):
            if row.tables.get(table):
                keys.setdefault((row.experiment, row.stage), []).append(row.key)
        stages = [stage for _, stage in keys]
        return {
            stage if stages.count(stage) == 1 else f"{experiment}/{stage}": _once(
                table, self._store.read(table, sorted(stage_keys))
            )
            for (experiment, stage), stage_keys in keys.items()
        }


class InputFiles:
    """Writes the input files of jobs. Tables that several steps share are written once; a sample
    range is a separate file per step.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._cached_samples: tuple[tuple[str, str], pa.Table] | None = None
        self._samples_of: dict[str, pa.Table] = {}
        self._paths: dict[tuple[str, str], str] = {}
        self._tables: dict[str, tuple[str, ...]] = {}

    def samples(self, stage: Stage, needs: Rows) -> pa.Table:
        """The samples of the needed stages, in the order that the stage's ranges refer to."""
        keys, how = _writers("samples", needs), stage.part.steps
        order = by_text if how.group_equal_texts else by_unit if how.whole_units else None
        name = (_name("samples", keys), "" if order is None else order.__name__)
        if self._cached_samples is None or self._cached_samples[0] != name:
            rows = (
                self._store.read("samples", keys) if keys else arrow_schema("samples").empty_table()
            )
            self._cached_samples = (name, rows if order is None else order(rows))
        return self._cached_samples[1]

    def files(self, step: Step, needs: Rows, folder: Path) -> dict[str, list[str]]:
        """The files of a step's input tables; missing ones are written. Work that does not depend
        on the step is done once per stage. A file of this step only is written to its job folder.
        """
        stage = step.stage
        if stage.id not in self._tables:
            there = [table for table in stage.part.optional if _writers(table, needs)]
            self._tables[stage.id] = (*stage.part.reads, *there)
        return {table: [self._file(table, step, needs, folder)] for table in self._tables[stage.id]}

    def _file(self, table: str, step: Step, needs: Rows, folder: Path) -> str:
        stage = step.stage
        if table == "samples" and step.first is not None and stage.over_samples():
            path = folder / SAMPLE_RANGE
            if stage.id not in self._samples_of:
                self._samples_of[stage.id] = self.samples(stage, needs)
            samples = self._samples_of[stage.id]
            write_arrow(path, samples.slice(step.first, (step.last or 0) - step.first))
            return str(path)
        key = (stage.id, table)
        if key not in self._paths:
            shared = _file(self._store, self._folder, table, _writers(table, needs))
            self._paths[key] = str(shared)
        return self._paths[key]


def _file(store: Store, folder: Path, table: str, keys: Sequence[str]) -> Path:
    """The file of the rows that these steps wrote to a table, made if it is missing; for a large
    table, one space at a time.
    """
    path = folder / f"{_name(table, keys)}.arrow"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if _large(table):
            parts = store.read_by_space(table, keys, path.with_suffix(".parts"))
            write_parts(path, arrow_schema(table), (_once(table, part) for part in parts))
        else:
            write_arrow(path, _once(table, store.read(table, keys)))
    return path


def _large(table: str) -> bool:
    """Whether a table has rows for every space, and so may not fit into memory."""
    return TABLES[table].key[0] == "space" and not TABLES[table].facts


def _writers(table: str, needs: Rows) -> list[str]:
    return sorted(row.key for rows in needs.values() for row in rows if table in row.tables)


def _once(table: str, rows: pa.Table) -> pa.Table:
    """Rows sorted by the table's key. Of rows with equal keys, which overlapping extractions wrote,
    the first remains.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if table not in OVERLAPPING or len(rows) < 2:
        return rows
    changes = [pc.not_equal(rows[column][1:], rows[column][:-1]) for column in TABLES[table].key]
    fresh: pa.ChunkedArray = functools.reduce(pc.or_, changes)
    if pc.all(fresh).as_py():
        return rows
    return rows.filter(pa.chunked_array([pa.array([True]), *fresh.chunks]))


def _name(table: str, keys: Sequence[str]) -> str:
    return f"{table}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}"
