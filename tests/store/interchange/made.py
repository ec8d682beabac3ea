"""Runs to export, and how they go out and come back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from toolkit.ledger import RunRow, StepRow, key_of
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store
from toolkit_store.interchange import RunTables, export_run, import_run, run_tables
from toolkit_store.write import rows

Rows = Mapping[str, list[dict[str, Any]]]


def space(id: str, layer: int = 20, l0: int = 71, **fields: Any) -> dict[str, Any]:
    sae = f"layer_{layer}/width_16k/average_l0_{l0}"
    base = {
        "space": id,
        "model": "google/gemma-2-2b",
        "revision": "r",
        "hookpoint": f"resid_post.{layer}",
        "sae": sae,
    }
    return (
        base
        | {
            "sae_hash": "h",
            "recipe": "j",
            "width": 12,
            "address": f"google/gemma-2-2b/resid_post.{layer}/{sae}",
        }
        | fields
    )


def sample(name: str, *pieces: str, spans: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    base = {
        "sample": name,
        "unit": f"u-{name}",
        "cluster": "c",
        "text": "".join(pieces),
        "token_ids": list(range(len(pieces))),
    }
    return base | {"pieces": list(pieces), "spans": spans or [], "prompt_hash": f"h-{name}"}


def fired(space: str, sample: str, position: int, entries: Mapping[int, float]) -> dict[str, Any]:
    row = {"space": space, "sample": sample, "position": position}
    return row | {"features": list(entries), "values": list(entries.values())}


def label(feature: int, text: str, group: str, space: str = "s1") -> dict[str, Any]:
    return {
        "space": space,
        "feature": feature,
        "stat": "label",
        "group": group,
        "number": None,
        "text": text,
    }


EXAMPLE: Rows = {
    "samples": [
        sample("a b", "One", " two", " three", spans=[{"name": "goal", "start": 1, "end": 3}]),
        sample("b/2", "x", "\n", "é"),
    ],
    "sample_meta": [
        {"sample": "a b", "key": "concept_strength_label", "number": 2.0, "string": None}
    ],
    "spaces": [space("s1"), space("s2", l0=139), space("s3", 5, 68)],
    "saes": [
        {
            "space": "s1",
            "site": "resid_post.20",
            "l0": 70.0,
            "declared_l0": 71.0,
            "explained_variance": 0.9,
            "cosine": 0.9,
        }
        | {"dead_share": 0.1, "tokens": 5, "verdict": "fits", "message": ""}
    ],
    "activations": [
        fired("s1", "a b", 0, {2: 0.5, 11: 1.5}),
        fired("s1", "a b", 2, {2: 4.0}),
        fired("s1", "b/2", 1, {10: 0.25}),
        fired("s2", "b/2", 2, {0: 1.0, 3: 3.0}),
        fired("s3", "a b", 2, {}),
    ],
    "attention": [
        {
            "model": "google/gemma-2-2b",
            "sample": "a b",
            "layer": 20,
            "head": 1,
            "query": 2,
            "keys": None,
            "weights": [0.5, 0.25, 0.25],
            "rest": 0.0,
        }
    ],
    "features": [
        label(2, "counting words", "np_max-act / gpt"),
        label(2, "numbers", "np_max-act / gpt #2"),
        label(10, "letters", "other"),
        {
            "space": "s1",
            "feature": 2,
            "stat": "significant",
            "group": "x",
            "number": 1.0,
            "text": None,
        },
        {
            "space": "s2",
            "feature": 3,
            "stat": "significant",
            "group": "x",
            "number": 0.0,
            "text": None,
        },
    ],
}


class Memory:
    """A store that keeps its rows in memory: what an export reads and an import calls, a hundred
    times as quick as files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, str(folder)
        self.ledger: dict[str, StepRow] = {}
        self.data: dict[tuple[str, str], pa.Table] = {}
        self.runs: dict[str, RunRow] = {}
        self.answers: list[int] = []

    def writer(self) -> nullcontext[None]:
        return nullcontext()

    def commit(self, row: StepRow, tables: Mapping[str, Any]) -> bool:
        if row.key in self.ledger:
            return False
        for name, chunks in tables.items():
            parts = [
                arrow_schema(name, step=True).empty_table(),
                *rows.batches(name, chunks, row.key),
            ]
            self.data[name, row.key] = pa.concat_tables(parts)
        counts = {name: self.data[name, row.key].num_rows for name in tables}
        self.ledger[row.key] = replace(row, tables=counts)
        return True

    def record_run(self, **fields: Any) -> None:
        base = {"seq": 1, "at": "2026", "note": "", "pid": 1, "host": "h"}
        self.runs[fields["run"]] = RunRow(**base | fields | {"steps": tuple(fields["steps"])})

    def run_states(self, run: str) -> list[RunRow]:
        return [self.runs[run]] if run in self.runs else []

    def has(self, keys: Iterable[str]) -> set[str]:
        return set(keys) & set(self.ledger)

    def steps(self, keys: Iterable[str]) -> list[StepRow]:
        return [self.ledger[key] for key in keys if key in self.ledger]

    def read(self, name: str, keys: Iterable[str]) -> pa.Table:
        parts = [self.data[name, key] for key in keys if (name, key) in self.data]
        result = rows.ordered(
            name, pa.concat_tables([arrow_schema(name, step=True).empty_table(), *parts])
        )
        return result.drop_columns("step")

    def index(self, keys: Iterable[str], *, run: str = "") -> int:
        return 0

    # --- as the database of a store ---

    @property
    def database(self) -> Memory:
        return self

    def reading(self) -> nullcontext[None]:
        return nullcontext()

    def rows(self, name: str, where: str, columns: Sequence[str]) -> pa.Table:
        schema = arrow_schema(name, step=True)
        parts = [part for (table, _), part in self.data.items() if table == name]
        with pl.SQLContext(
            t=pl.DataFrame(pa.concat_tables([schema.empty_table(), *parts])), eager=True
        ) as context:
            result = context.execute(f"SELECT * FROM t WHERE {where.replace('`', '')}").to_arrow()
        self.answers.append(result.num_rows)
        return result.cast(schema).select(list(columns))

    def batches(self, name: str, where: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        result = self.rows(name, where, columns)
        self.answers.pop()
        yield from (result.slice(index, 2) for index in range(0, result.num_rows, 2))


def opened(folder: Path) -> Any:
    """A store: of files, unless the folder says that memory will do."""
    return Memory(folder) if "memory" in folder.parts else open_store(folder, create=True)


def make(folder: Path, *steps: Rows, run: str = "run-1") -> RunTables:
    """A store with one run of the given steps."""
    store = opened(folder)
    materials = [f'{{"step":{number}}}' for number in range(len(steps))]
    keys = [key_of(material) for material in materials]
    for key, material, tables in zip(keys, materials, steps, strict=True):
        row = make_step(key, run=run, material=material)
        store.commit(
            row,
            {
                name: pa.Table.from_pylist(list(rows), arrow_schema(name))
                for name, rows in tables.items()
            },
        )
    store.record_run(
        run=run,
        name="exp",
        state="done",
        at="2026-01-02",
        done=len(keys),
        total=len(keys),
        steps=keys,
    )
    (store.folder / "runs" / run).mkdir(parents=True)
    (store.folder / "runs" / run / "manifest.json").write_text(
        json.dumps({"run": run, "stages": []})
    )
    return run_tables(store, run)


def there_and_back(run: RunTables, form: str, folder: Path, **options: Any) -> RunTables:
    """The run after an export, and an import into a new store."""
    export_run(run, form, folder / "out", **options)
    target = opened(folder / "new")
    return run_tables(target, import_run(target, form, folder / "out"))


def same(written: RunTables, other: RunTables, *tables: str) -> None:
    for name in tables:
        assert written.read(name).to_pylist() == other.read(name).to_pylist(), name
