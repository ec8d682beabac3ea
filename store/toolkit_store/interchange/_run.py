"""Read a run's committed rows for an export, and commit imported rows as a step and a run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, DataError
from toolkit.ledger import IMPORTED, RunRow, StepRow, key_of
from toolkit.tables import arrow_schema, table
from toolkit.version import VERSION
from toolkit_store.database import among
from toolkit_store.interchange._incoming import check_json_size, checked, widths
from toolkit_store.query.committed_rows import CommittedRows
from toolkit_store.write.ledger import check_count

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from toolkit_store.store import Store

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunTables:
    """The committed rows of one run."""

    store: Store
    row: RunRow
    steps: Sequence[StepRow]

    @property
    def id(self) -> str:
        """The run's id."""
        return self.row.run

    @property
    def folder(self) -> Path:
        """The folder with its manifest and journal."""
        return self.store.folder / "runs" / self.id

    def keys(self, name: str) -> list[str]:
        """The steps that wrote rows to a table."""
        return [step.key for step in self.steps if step.tables.get(name)]

    def read(self, name: str) -> pa.Table:
        """A table's rows, by its key; of rows that several steps wrote under one key, the first."""
        import polars as pl

        rows = self.store.read(name, self.keys(name))
        keys = pl.DataFrame(rows.select(list(table(name).key)))
        return rows.filter(
            keys.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_arrow()
        )

    @cached_property
    def spaces(self) -> dict[str, dict[str, Any]]:
        """Id of a space -> its row of `spaces`."""
        return {row["space"]: row for row in self.read("spaces").to_pylist()}

    @cached_property
    def samples(self) -> dict[str, dict[str, Any]]:
        """Id of a sample -> its row of `samples`, in order of ids."""
        return {row["sample"]: row for row in self.read("samples").to_pylist()}

    def activations(
        self, spaces: Iterable[str] | None = None
    ) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
        """Each space with its rows (sample, position, features, values), by sample and position;
        one is read at a time.
        """
        import polars as pl

        columns = ("space", "sample", "position", "features", "values")
        for space in self._chosen(self._with_activations(), spaces):
            rows = self._rows.read(
                "activations", self.keys("activations"), {"space": [space]}, columns
            )
            yield self.spaces[space], _merged(pl.DataFrame(rows)).drop("space").rechunk()

    @cached_property
    def _rows(self) -> CommittedRows:
        return CommittedRows(self.store, self.steps)

    def _with_activations(self) -> list[str]:
        """The spaces that have rows; all rows have to be there."""
        counts: Counter[str] = Counter()
        for where in among("step", self.keys("activations")):
            for batch in self._rows.find_in_batches("activations", where, ["space"]):
                counts.update(dict(batch["space"].value_counts().iter_rows()))
        expected = sum(step.tables.get("activations", 0) for step in self.steps)
        check_count(f"Table 'activations' in {self.store.uri}", counts.total(), expected)
        return list(counts)

    def _chosen(self, there: Iterable[str], requested: Iterable[str] | None) -> list[str]:
        known = sorted(there)
        if not known:
            raise BadInput(
                f"Run {self.id} has no activations to export. Stages that extract write them: "
                "extract.activations."
            )
        for space in known:
            if space not in self.spaces:
                raise DataError(
                    f"space {space}: it has activations in run {self.id}, but table 'spaces' does "
                    "not describe it."
                )
        if requested is None:
            return known
        missing = [space for space in requested if space not in known]
        if missing:
            raise BadInput(
                f"Run {self.id} has no activations in space {missing[0]}. It has some in: "
                f"{', '.join(known)}."
            )
        return list(dict.fromkeys(requested))


def _merged(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per sample and position. Where two steps kept one, each entry has its largest value,
    as in a query.
    """
    import polars as pl

    position_key = ["space", "sample", "position"]
    repeated = rows.select(pl.struct(position_key).is_duplicated()).to_series()
    if not repeated.any():
        return rows
    entries = (
        rows.filter(repeated)
        .explode("features", "values")
        .group_by([*position_key, "features"])
        .agg(pl.col("values").max())
    )
    filled = (
        entries.drop_nulls("features")
        .sort([*position_key, "features"])
        .group_by(position_key, maintain_order=True)
    )
    lists = filled.agg(pl.col("features", "values"))
    once = (
        rows.filter(repeated).select(position_key).unique().join(lists, on=position_key, how="left")
    )  # where nothing fired there are no entries
    whole = once.with_columns(pl.col("features", "values").fill_null([]))
    return pl.concat([rows.filter(~repeated), whole.select(rows.columns)]).sort(position_key)


def run_tables(store: Store, run: str, also: Iterable[str] = ()) -> RunTables:
    """The run of that id; `also`: keys of steps that its journal names and its last row may not."""
    states = store.run_states(run)
    if not states:
        raise BadInput(f"{store.uri} has no run '{run}'. All runs: toolkit runs.")
    return RunTables(store, states[0], store.steps(sorted({*states[0].steps, *also})))


# --- into a store ---


def id_of(*parts: str) -> str:
    """An id derived from these texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _material(part: str, digest: str, run: str = "") -> str:
    """The material of an import's key: what was read, and how."""
    results = {"part": part, "version": VERSION, "digest": digest, "run": run}
    return json.dumps(results, sort_keys=True, separators=(",", ":"))


def digest_of(files: Iterable[Path]) -> str:
    """One hash of files by content, whatever their folder."""
    seen = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            seen.update(hashlib.file_digest(file, "sha256").digest())
    return seen.hexdigest()


def land(
    store: Store,
    name: str,
    part: str,
    digest: str,
    tables: Mapping[str, Iterable[pa.Table] | pa.Table],
) -> str:
    """Commit imported tables as the single step of a new run; return its id. Existing rows are
    unchanged.
    """
    material = _material(part, digest)
    key = key_of(material)
    run = f"{_slug(name)[:80]}-{key[-8:]}"
    sizes = widths(_rows_of(tables, "spaces"))
    looked_at = {
        table: checked(table, rows, sizes, f"{part} {name}") for table, rows in tables.items()
    }
    with store.writer():
        store.commit(_step(key, run, part, material, digest), looked_at)
        if not store.run_states(run):
            _write_manifest(store, run, name, part, key, sorted(tables))
            store.record_run(
                run=run, name=name, state="done", done=1, total=1, note=f"from {part}", steps=[key]
            )
    store.index([key], run=run)
    return run


def _rows_of(tables: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return tables[name].to_pylist() if name in tables else []


def attach(run: RunTables, part: str, digest: str, tables: Mapping[str, pa.Table]) -> str:
    """Commit imported tables as one more step of a run; return the run's id."""
    material = _material(part, digest, run.id)
    key = key_of(material)
    sizes = widths(run.spaces.values())
    looked_at = {name: checked(name, rows, sizes, part) for name, rows in tables.items()}
    with run.store.writer():
        run.store.commit(_step(key, run.id, part, material, digest), looked_at)
        row = next(
            iter(run.store.run_states(run.id)), run.row
        )  # the run may have gone on since it was looked up
        steps = dict.fromkeys([*row.steps, *(step.key for step in run.steps)])
        if key not in row.steps:
            run.store.record_run(
                run=row.run,
                name=row.name,
                state=row.state,
                done=row.done,
                total=row.total,
                note=f"{part} added",
                steps=list(steps | {key: None}),
                pid=row.pid,
                host=row.host,
            )
    return run.id


def _step(key: str, run: str, part: str, material: str, digest: str) -> StepRow:
    return StepRow(
        key=key,
        experiment=run,
        stage=part,
        part=part,
        part_version=VERSION,
        run=run,
        index=0,
        material=material,
        tables={},
        worker=IMPORTED,
        seconds=0.0,
        committed_at=_now(),
        origin=f"{part} {digest[:16]}",
    )


def _write_manifest(
    store: Store, run: str, name: str, part: str, key: str, writes: Sequence[str]
) -> None:
    stage = {
        "id": part,
        "experiment": run,
        "part": part,
        "version": VERSION,
        "needs": [],
        "writes": list(writes),
        "key": key,
    }
    manifest = {
        "format": 1,
        "run": run,
        "name": name,
        "toolkit": VERSION,
        "created_at": _now(),
        "executor": "import",
        "stages": [stage],
        "command": f"toolkit store import {part.removeprefix('import.')} FOLDER",
    }
    write_json(store.folder / "runs" / run / "manifest.json", manifest)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "import"


def _now() -> str:
    return datetime.now(UTC).isoformat()


# --- files ---


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    unfinished.replace(path)
    return path


def read_index(folder: Path, name: str, form: str, version: int) -> dict[str, Any]:
    """The index of an exported folder, of this version or an older one."""
    from toolkit.files import read_json

    path = folder / name
    if not path.is_file():
        raise BadInput(
            f"{folder} is not a finished export of format '{form}': it has no {name}. "
            f"Export it again."
        )
    check_json_size(path)
    content = read_json(path)
    if content.get("format") != form:
        raise BadInput(
            f"{path} is of format {content.get('format')!r}; wanted {form!r}. Give --format what "
            "it was exported as."
        )
    if not isinstance(content.get("version"), int) or content["version"] > version:
        raise BadInput(
            f"{path} has version {content.get('version')!r}; this toolkit ({VERSION}) reads up "
            f"to version {version}. Upgrade: python -m pip install -U sae-toolkit"
        )
    return content


def safe_names(spaces: Sequence[Row]) -> dict[str, str]:
    """Space id -> its address as a file name; spaces whose names would be equal get their ids
    too.
    """
    plain = {str(row["space"]): _slug(str(row["address"])) for row in spaces}
    seen = Counter(name.lower() for name in plain.values())
    return {
        space: name if seen[name.lower()] == 1 else f"{name}-{_slug(space)}"
        for space, name in plain.items()
    }


def arrow(name: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as a declared table."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(name))


def activation_rows(
    space: str, samples: Sequence[str], positions: Any, counts: Any, features: Any, values: Any
) -> pa.Table:
    """Rows of `activations` from flat arrays: row i has `counts[i]` entries of `features` and
    `values`, in order.
    """
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("activations")
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(flat, kind.value_type), type=kind)
        for flat, kind in (
            (features, schema.field("features").type),
            (values, schema.field("values").type),
        )
    ]
    columns = [
        pa.array([space] * len(samples), pa.string()),
        pa.array(list(samples), pa.string()),
        pa.array(positions, pa.int32()),
    ]
    return pa.Table.from_arrays([*columns, *lists], schema=schema)


def joined(parts: Iterable[pa.Table], max_rows: int = 50_000) -> Iterator[pa.Table]:
    """Join rows to fewer tables: each table costs time in a commit."""
    import pyarrow as pa

    kept: list[pa.Table] = []
    count = 0
    for part in parts:
        kept.append(part)
        count += part.num_rows
        if count >= max_rows:
            yield pa.concat_tables(kept).combine_chunks()
            kept, count = [], 0
    if kept:
        yield pa.concat_tables(kept).combine_chunks()


def flat(rows: pl.DataFrame) -> tuple[Any, Any, Any]:
    """Counts per row, and features and values of all entries, as arrays."""
    import pyarrow.compute as pc

    features, values = (
        pc.list_flatten(rows[name].to_arrow()).to_numpy(zero_copy_only=False)
        for name in ("features", "values")
    )
    return rows["features"].list.len().to_numpy(), features, values
