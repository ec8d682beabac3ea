"""Commit imported rows as a step: of a new run, or of an existing one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.ledger import IMPORTED, StepRow, key_of
from toolkit.version import VERSION
from toolkit_store.interchange._files import slug, write_json
from toolkit_store.interchange._incoming import checked, widths
from toolkit_store.interchange._run_tables import RunTables

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store.store import Store


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
    run = f"{slug(name)[:80]}-{key[-8:]}"
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
        )  # the run may have progressed since it was looked up
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
        committed_at=now(),
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
        "created_at": now(),
        "executor": "import",
        "stages": [stage],
        "command": f"toolkit store import {part.removeprefix('import.')} FOLDER",
    }
    write_json(store.folder / "runs" / run / "manifest.json", manifest)


def now() -> str:
    return datetime.now(UTC).isoformat()
