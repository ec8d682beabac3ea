"""Build the index of a run after its steps have committed, in separate steps that can be repeated
and never change. One step numbers the samples (`sample_index`), and one per space holds its
postings. Their keys are made from the activation steps that they cover, so that existing ones are
reused and two runs of the same steps share them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import StoreError
from toolkit.ledger import StepRow
from toolkit.tables import arrow_schema
from toolkit_store import locks
from toolkit_store.database import Database
from toolkit_store.derived_steps import PART, spaces_of
from toolkit_store.filters import among
from toolkit_store.index.postings import LAYOUT, Summary, number_key, posting_rows, space_key
from toolkit_store.index.scratch import Numbered, Scratch, numbered

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store.step_store import StepStore, Tables

STAGE = "(index)"
_COMMITTED_AT_ONCE = 16 << 20
"""The most entries committed together, unless a single space has more."""


def build(
    store: StepStore, database: Database, cover: Sequence[str], sampled: Sequence[str], run: str
) -> int:
    """Build the missing parts of the index; return the number of new steps. `sampled`: the steps
    that wrote the samples.
    """
    key = number_key(cover)
    known = next((row for row in store.index_steps([key])), None)
    if known is not None and not _missing_spaces(store, key, spaces_of(known)):
        return 0
    with _scratch(store.folder / "scratch") as folder, store.reading():
        store.verify("activations")
        store.verify("samples")
        numbers = numbered(lambda columns: _rows(database, "activations", cover, columns))
        scratch = Scratch(folder, numbers)
        scratch.fill(lambda columns: _rows(database, "activations", cover, columns))
        units = _units(database, sampled)
        made = _commit_numbers(store, key, numbers, units, run)
        for spaces in _groups(scratch, _missing_spaces(store, key, sorted(numbers.spaces))):
            made += store.commit_derived(
                [_space_step(key, space, scratch, numbers, run) for space in spaces]
            )
    return made


def _missing_spaces(store: StepStore, key: str, spaces: Sequence[str]) -> list[str]:
    existing = {row.key for row in store.index_steps([space_key(key, space) for space in spaces])}
    return [space for space in spaces if space_key(key, space) not in existing]


def _rows(
    database: Database, name: str, steps: Sequence[str], columns: Sequence[str]
) -> Iterator[pa.Table]:
    for where in among("step", steps):
        yield from database.batches(name, where, columns)


def _units(database: Database, steps: Sequence[str]) -> dict[str, str]:
    units: dict[str, str] = {}
    for batch in _rows(database, "samples", steps, ["sample", "unit"]):
        units.update(zip(batch["sample"].to_pylist(), batch["unit"].to_pylist(), strict=True))
    return units


def _commit_numbers(
    store: StepStore, key: str, numbered: Numbered, units: dict[str, str], run: str
) -> int:
    import pyarrow as pa

    columns = {
        "number": range(len(numbered.names)),
        "sample": numbered.names,
        "unit": [units.get(name) for name in numbered.names],
    }
    row = _step(key, run, 0, {"spaces": sorted(numbered.spaces)})
    return store.commit_derived(
        [(row, {"sample_index": pa.table(columns, schema=arrow_schema("sample_index"))})]
    )


def _groups(scratch: Scratch, spaces: Sequence[str]) -> Iterator[list[str]]:
    """Group spaces that are committed together: each commit takes time and makes files to join."""
    group: list[str] = []
    for space in spaces:
        if group and sum(map(scratch.entries, [*group, space])) > _COMMITTED_AT_ONCE:
            yield group
            group = []
        group.append(space)
    if group:
        yield group


def _space_step(
    key: str, space: str, scratch: Scratch, numbered: Numbered, run: str
) -> tuple[StepRow, Tables]:
    step, summary = space_key(key, space), Summary()
    postings = posting_rows(step, space, scratch.chunks(space), numbered.bits, summary)
    index = (
        summary.rows(space, scratch.token_count(space), scratch.samples(space)) for _ in range(1)
    )  # computed after the postings
    row = _step(step, run, 1 + sorted(numbered.spaces).index(space), {"space": space})
    return row, {"postings": postings, "feature_index": index}


def _step(key: str, run: str, index: int, material: dict[str, Any]) -> StepRow:
    return StepRow(
        key=key,
        experiment="",
        stage=STAGE,
        part=PART,
        part_version=LAYOUT,
        run=run,
        index=index,
        material=json.dumps(material, sort_keys=True),
        tables={},
        worker="store",
        seconds=0.0,
        committed_at=datetime.now(UTC).isoformat(),
    )


# --- scratch files ---


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A scratch folder, removed at the end; its lock tells `sweep` that it is in use."""
    try:
        parent.mkdir(exist_ok=True)
        sweep(parent)
        with tempfile.TemporaryDirectory(dir=parent) as name, locks.alone(Path(name) / "lock", 0):
            yield Path(name)
    except OSError as error:
        raise StoreError(
            f"The postings could not be built: {error.strerror or error}. What was "
            "committed is safe; free space and issue the same command again."
        ) from error


def sweep(parent: Path) -> None:
    """Remove scratch folders of killed processes."""
    for folder in parent.iterdir() if parent.exists() else ():
        try:
            with locks.alone(folder / "lock", 0):
                shutil.rmtree(folder, ignore_errors=True)
        except StoreError:
            continue  # in use
