"""A run as Parquet: a file per table, with row groups of one step each. `toolkit-run.json` has the
run and its steps, with a hash of each step's rows in each table.

Steps are committed again under their own keys, so that what is read back is identical and reading
it twice adds nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, DataError
from toolkit.files.local import sha256_of
from toolkit.ledger import RunRow, StepRow, key_of
from toolkit.tables import DATA_TABLES, STORE_FORMAT, TABLES, arrow_schema
from toolkit.version import VERSION
from toolkit_store.interchange._files import read_index, write_json
from toolkit_store.interchange._incoming import MAX_BYTES, check_id, checked, widths
from toolkit_store.interchange._run_tables import RunTables
from toolkit_store.write.rows import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store.store import Store

INDEX = "toolkit-run.json"
EXPORT_VERSION = 1
ROWS_OF_A_GROUP = 16_384
"""Rows of one row group; they are unpacked together."""
MAX_VALUES = 1 << 27
"""Values that a column of a row group may have: a few bytes can unpack to billions."""
MAX_LIST = 1 << 22
"""Values that one row's list may have: no SAE and no stream is wider."""
_KEPT = ("manifest.json", "events.jsonl")
"""Files of the run's folder that are exported too."""


def write(run: RunTables, folder: Path) -> list[Path]:
    """Write every table that has rows, then the ledger."""
    hashes: dict[str, dict[str, str]] = {step.key: {} for step in run.steps}
    files = [_write_table(run, name, folder, hashes) for name in DATA_TABLES if run.keys(name)]
    copied = [
        Path(shutil.copy(run.folder / name, folder / name))
        for name in _KEPT
        if (run.folder / name).is_file()
    ]
    index = {
        "format": "parquet",
        "version": EXPORT_VERSION,
        "toolkit": VERSION,
        "store_format": STORE_FORMAT,
        "tables": {path.stem: _facts(path) for path in files},
        "run": vars(run.row)
        | {"steps": [*dict.fromkeys([*run.row.steps, *(step.key for step in run.steps)])]},
        "steps": [
            vars(step) | {"tables": dict(step.tables), "rows_sha256": hashes[step.key]}
            for step in run.steps
        ],
    }
    return [*files, *copied, write_json(folder / INDEX, index)]


def _write_table(
    run: RunTables, name: str, folder: Path, hashes: Mapping[str, dict[str, str]]
) -> Path:
    """Write a table's rows, one row group per step or more; the hash of a step's rows goes to
    `hashes`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{name}.parquet"
    schema = arrow_schema(name, step=True).with_metadata(
        {"toolkit.table": name, "toolkit.version": str(TABLES[name].version)}
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for key in run.keys(name):
            rows = run.store.read(name, [key])
            hashes[key][name] = digest(rows)
            steps = pa.array([key] * rows.num_rows, pa.string())
            complete = pa.Table.from_arrays([*rows.columns, steps], schema=schema)
            writer.write_table(complete, row_group_size=ROWS_OF_A_GROUP)
    return path


def _facts(path: Path) -> dict[str, Any]:
    return {
        "version": TABLES[path.stem].version,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def read(store: Store, folder: Path) -> str:
    """Commit the run's steps that the store lacks, and enter the run; return its id.

    What the store computed itself is never replaced: a step that it has is left alone, and a run
    that it has under this id must be the same run.
    """
    index = read_index(folder, INDEX, "parquet", EXPORT_VERSION)
    row, steps = _run_row(folder, index), _steps(folder, index)
    if not isinstance(index.get("tables"), dict):
        raise DataError(f"{folder / INDEX}: 'tables' must name the tables. Export the run again.")
    for name, facts in index["tables"].items():
        _check_table(folder, name, facts)
    for step, listed in zip(steps, index["steps"], strict=True):
        _check_step(folder, step, row, index["tables"])
        _check_rows(folder, step, listed.get("rows_sha256"))
    origin = f"parquet {sha256_of(folder / INDEX)[:16]}"
    with store.writer():
        _check_run(store, row, steps)
        known = store.has(step.key for step in steps)
        sizes = widths(_spaces(folder, steps))
        for step in steps:
            if step.key not in known:
                store.commit(replace(step, origin=origin), _rows(folder, step, sizes))
        _enter(store, row, folder)
    store.index(row.steps, run=row.run)
    return row.run


def _run_row(folder: Path, index: dict[str, Any]) -> RunRow:
    row: RunRow = _as_record(RunRow, index.get("run"), f"{folder / INDEX}, 'run'")
    check_id("the run's id", row.run, folder / INDEX)
    check_id("the run's name", row.name, folder / INDEX)
    for key in row.steps:
        check_id("a step's key", key, folder / INDEX)
    # no process continues it here
    return replace(row, state="interrupted") if row.state == "running" else row


def _steps(folder: Path, index: dict[str, Any]) -> list[StepRow]:
    listed = index.get("steps")
    if not isinstance(listed, list):
        raise DataError(f"{folder / INDEX}: 'steps' must be a list. Export the run again.")
    return [
        _as_record(StepRow, step, f"{folder / INDEX}, step {number}")
        for number, step in enumerate(listed)
    ]


def _as_record(kind: type[Any], content: Any, where: str) -> Any:
    """A record of the ledger from JSON, with every field of the declared type."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": ""}
        field = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        raise DataError(
            f"{where}: {field}{first['msg'] or error}. Copy the folder or export the run again."
        ) from None


def _check_step(folder: Path, step: StepRow, row: RunRow, tables: dict[str, Any]) -> None:
    """Check that a step's key matches its material, and that the files have as many of its rows as
    it states.
    """
    where = f"{folder / INDEX}, step {str(step.key)[:80]}"
    if key_of(step.material) != step.key:
        raise DataError(
            f"{where}: its key is not the hash of its material, so these rows are not the result "
            "of what it names. Export the run again from the store that computed it."
        )
    check_id("its experiment", step.experiment, where)
    check_id("its part", step.part, where)
    for name in step.stage.split("/"):  # of another experiment: `experiment/stage`
        check_id("its stage", name, where)
    if step.key not in row.steps:
        raise DataError(f"{where}: the run does not list it. Export the run again.")
    for name, count in step.tables.items():
        if count and name not in tables:
            raise DataError(f"{where}: it has rows in table '{name}', which the export lacks.")
        result = sum(groups for _, groups in _groups(folder / f"{name}.parquet", step.key))
        if count and result != count:
            raise DataError(
                f"{where}: it has {count:,} rows in table '{name}', and {name}.parquet {result:,}. "
                "Export the run again."
            )


def _check_rows(folder: Path, step: StepRow, hashes: Any) -> None:
    """Check that each table's rows of a step are those that were exported with it."""
    for name, count in step.tables.items():
        if not count:
            continue
        path = folder / f"{name}.parquet"
        recorded = hashes.get(name) if isinstance(hashes, dict) else None
        if recorded is None or digest(_batches(path, step.key)) != recorded:
            reason = "has no hash of" if recorded is None else "has another hash than that of"
            raise DataError(
                f"{folder / INDEX}, step {step.key}: it {reason} its rows in {path.name}. Export "
                "the run again from the store that computed it."
            )


def _check_run(store: Store, row: RunRow, steps: Sequence[StepRow]) -> None:
    """Refuse an import that would change an existing run."""
    states = store.run_states(row.run)
    same = bool(states) and replace(states[0], seq=0) == replace(row, seq=0)
    if states and not (same and store.has(row.steps) >= {step.key for step in steps}):
        raise BadInput(
            f"The store at {store.uri} has a run {row.run} already, and an import never changes "
            "a run. Import into another store: --store PATH."
        )


def _spaces(folder: Path, steps: Sequence[StepRow]) -> list[dict[str, Any]]:
    """The spaces that these steps describe."""
    path = folder / "spaces.parquet"
    return [
        row
        for step in steps
        if step.tables.get("spaces")
        for batch in _batches(path, step.key)
        for row in batch.select(["space", "width"]).to_pylist()
    ]


def _rows(folder: Path, step: StepRow, sizes: dict[str, int]) -> dict[str, Iterator[pa.Table]]:
    return {
        name: checked(
            name,
            _batches(folder / f"{name}.parquet", step.key),
            sizes,
            folder / f"{name}.parquet",
        )
        for name, count in step.tables.items()
        if count
    }


def _check_table(folder: Path, name: str, facts: Any) -> None:
    """Check that the table is known, of this version, and that its file is unchanged."""
    path = folder / f"{name}.parquet"
    version = facts.get("version") if isinstance(facts, dict) else None
    if name not in DATA_TABLES or version != TABLES[name].version:
        ours = f"version {TABLES[name].version}" if name in DATA_TABLES else "no such table"
        raise DataError(
            f"{folder / INDEX}: table '{name[:80]}' has version {version}; this toolkit "
            f"({VERSION}) has {ours}. Read it with the toolkit that wrote it, or upgrade: "
            "python -m pip install -U sae-toolkit"
        )
    if not path.is_file() or sha256_of(path) != facts.get("sha256"):
        reason = (
            "has changed since it was written: its SHA-256 differs"
            if path.is_file()
            else "is missing"
        )
        raise DataError(f"{path} {reason}. Copy the folder or export the run again.")


def _groups(path: Path, key: str) -> Iterator[tuple[int, int]]:
    """The row groups of one step, and how many rows each has."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        index = file.schema_arrow.get_field_index("step")
        for number in range(file.num_row_groups if index >= 0 else 0):
            group = file.metadata.row_group(number)
            statistics = group.column(file.metadata.num_columns - 1).statistics
            if statistics is None or statistics.min != statistics.max:
                raise DataError(
                    f"{path}: row group {number} has rows of several steps. Export it again."
                )
            if group.total_byte_size > MAX_BYTES:
                raise DataError(
                    f"{path}: row group {number} has {group.total_byte_size:,} bytes unpacked; at "
                    f"most {MAX_BYTES:,} are read."
                )
            _check_values(group, f"{path}: row group {number}")
            if statistics.min == key:
                yield number, group.num_rows


def _check_values(group: Any, where: str) -> None:
    count = max(group.column(number).num_values for number in range(group.num_columns))
    if count > MAX_VALUES:
        raise DataError(
            f"{where} has {count:,} values in a column; at most {MAX_VALUES:,} are unpacked. "
            "Export the run again."
        )


def _check_lists(batch: pa.RecordBatch, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_list(column.type) and column.nbytes > MAX_LIST:
            longest = pc.max(pc.list_value_length(column)).as_py() or 0
            if longest > MAX_LIST:
                raise DataError(
                    f"{path}: column '{name}' has a list of {longest:,} values; at most "
                    f"{MAX_LIST:,} are read."
                )


def _batches(path: Path, key: str) -> Iterator[pa.Table]:
    """The rows of one step in batches of a few thousand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [number for number, _ in _groups(path, key)]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(8192, numbers):
            _check_lists(batch, path)
            yield pa.Table.from_batches([batch]).drop_columns("step")


def _enter(store: Store, row: RunRow, folder: Path) -> None:
    """Enter the run with its files, unless the store has it already."""
    if store.run_states(row.run):
        return
    target = store.folder / "runs" / row.run
    for name in _KEPT:
        exported = folder / name
        if exported.is_file() and not exported.is_symlink() and not (target / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(exported, target / name)
    _forget_plugin_files(target / "manifest.json")
    store.record_run(**{name: value for name, value in vars(row).items() if name != "seq"})


def _forget_plugin_files(path: Path) -> None:
    """Remove the paths of scratch plugins from an imported manifest: they belong to another
    machine, and an import must not choose which file a command names.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(manifest, dict) and manifest.get("plugin_files"):
        write_json(path, manifest | {"plugin_files": []})
