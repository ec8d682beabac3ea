"""A run as Parquet: a file a table, each row with its step, a row group for one step; the ledger in
`toolkit-run.json`.

Steps are committed again under their own keys, so that what is read back is identical and reading
it twice adds nothing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import __version__
from toolkit.errors import DataError
from toolkit.ledger import RunRow, StepRow
from toolkit.tables import DATA_TABLES, STORE_FORMAT, TABLES, arrow_schema
from toolkit_store.interchange._run import RunTables, read_index, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store.store import Store

INDEX = "toolkit-run.json"
VERSION = 1
_KEPT = ("manifest.json", "events.jsonl")
"""Files of the run's folder that go along."""


def write(run: RunTables, folder: Path) -> list[Path]:
    """Every table that has rows, then the ledger."""
    files = [_write_table(run, name, folder) for name in DATA_TABLES if run.keys(name)]
    kept = [
        Path(shutil.copy(run.folder / name, folder / name))
        for name in _KEPT
        if (run.folder / name).is_file()
    ]
    index = {
        "format": "parquet",
        "version": VERSION,
        "toolkit": __version__,
        "store_format": STORE_FORMAT,
        "tables": {path.stem: _facts(path) for path in files},
        "run": vars(run.row)
        | {"steps": [*dict.fromkeys([*run.row.steps, *(step.key for step in run.steps)])]},
        "steps": [vars(step) | {"tables": dict(step.tables)} for step in run.steps],
    }
    return [*files, *kept, write_json(folder / INDEX, index)]


def _write_table(run: RunTables, name: str, folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{name}.parquet"
    schema = arrow_schema(name, step=True).with_metadata(
        {"toolkit.table": name, "toolkit.version": str(TABLES[name].version)}
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for key in run.keys(name):
            rows = run.store.read(name, [key])
            steps = pa.array([key] * rows.num_rows, pa.string())
            writer.write_table(pa.Table.from_arrays([*rows.columns, steps], schema=schema))
    return path


def _facts(path: Path) -> dict[str, Any]:
    return {
        "version": TABLES[path.stem].version,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(store: Store, folder: Path) -> str:
    """Commit the run's steps that the store lacks, and enter the run; its id."""
    index = read_index(folder, INDEX, "parquet", VERSION)
    for name, facts in index["tables"].items():
        _check_table(folder, name, facts)
    row = RunRow(**{**index["run"], "steps": tuple(index["run"]["steps"])})
    row = (
        replace(row, state="interrupted") if row.state == "running" else row
    )  # here nobody goes on with it
    with store.writer():
        known = store.has(step["key"] for step in index["steps"])
        missing = [StepRow(**step) for step in index["steps"] if step["key"] not in known]
        for step in missing:
            store.commit(
                step, {name: _groups(folder / f"{name}.parquet", step.key) for name in step.tables}
            )
        _enter(store, row, folder)
    store.index(row.steps, run=row.run)
    return row.run


def _check_table(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """The table is one of ours, of this version, and its file holds what was written."""
    path = folder / f"{name}.parquet"
    if name not in DATA_TABLES or facts["version"] != TABLES[name].version:
        ours = f"version {TABLES[name].version}" if name in DATA_TABLES else "no such table"
        raise DataError(
            f"{folder / INDEX}: table '{name}' has version {facts['version']}; this toolkit "
            f"({__version__}) has {ours}. Read it with the toolkit that wrote it, or upgrade: "
            "python -m pip install -U sae-toolkit"
        )
    if not path.is_file() or _sha256(path) != facts["sha256"]:
        said = "is not what was written: its SHA-256 differs" if path.is_file() else "is missing"
        raise DataError(f"{path} {said}. Copy the folder or export the run again.")


def _groups(path: Path, key: str) -> Iterator[pa.Table]:
    """The rows of one step, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        at = file.schema_arrow.get_field_index("step")
        for number in range(file.num_row_groups):
            if (
                file.metadata.row_group(number).column(file.metadata.num_columns - 1).statistics.min
                == key
            ):
                yield file.read_row_group(number).remove_column(at)


def _enter(store: Store, row: RunRow, folder: Path) -> None:
    """The run with its files, unless the store has this state of it already."""
    target = store.folder / "runs" / row.run
    for name in _KEPT:
        if (folder / name).is_file() and not (target / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, target / name)
    found = store.run_states(row.run)
    if not found or (found[0].state, found[0].steps) != (row.state, row.steps):
        store.record_run(**{name: value for name, value in vars(row).items() if name != "seq"})
