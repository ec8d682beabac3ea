"""Runs as Parquet, and as safetensors in coordinates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.store.interchange.made import EXAMPLE, make, opened, same, there_and_back
from toolkit.errors import BadInput, DataError
from toolkit_store import open_store
from toolkit_store.interchange import RunTables, export_run, import_run, run_tables

# --- parquet ---


def test_parquet_brings_back_everything(tmp_path: Path) -> None:
    run = make(tmp_path / "store", EXAMPLE)
    result = there_and_back(run, "parquet", tmp_path)
    assert result.row == run.row
    assert [replace(step, origin="") for step in result.steps] == list(run.steps)
    assert {step.origin[:8] for step in result.steps} == {"parquet "}
    keys = [step.key for step in run.steps]
    assert result.store.fingerprint(keys) == run.store.fingerprint(keys)
    assert (result.folder / "manifest.json").read_bytes() == (
        run.folder / "manifest.json"
    ).read_bytes()
    assert pq.read_table(tmp_path / "out" / "activations.parquet").num_rows == 5


def test_parquet_of_another_version_or_with_a_flipped_bit_is_refused(
    run: RunTables, tmp_path: Path
) -> None:
    export_run(run, "parquet", tmp_path / "out")
    index = tmp_path / "out" / "toolkit-run.json"
    good = json.loads(index.read_text())

    def refused(match: str, **changes: Any) -> None:
        index.write_text(json.dumps(good | changes))
        with pytest.raises((BadInput, DataError), match=match):
            import_run(opened(tmp_path / "memory" / "new"), "parquet", tmp_path / "out")

    refused(r"has version 99; this toolkit .* Upgrade", version=99)
    refused(r"has the format 'safetensors', not 'parquet'", format="safetensors")
    tables = good["tables"]
    refused(
        "table 'samples' has version 99",
        tables=tables | {"samples": tables["samples"] | {"version": 99}},
    )
    refused(
        "table 'evil' has version 1; .* no such table", tables=tables | {"evil": tables["samples"]}
    )
    data = bytearray((tmp_path / "out" / "samples.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "out" / "samples.parquet").write_bytes(data)
    refused(r"samples\.parquet has changed since it was written: its SHA-256 differs")
    (tmp_path / "out" / "samples.parquet").unlink()
    refused(r"samples\.parquet is missing")
    index.unlink()
    with pytest.raises(
        BadInput, match=r"not a finished export of format 'parquet': it has no toolkit-run\.json"
    ):
        import_run(opened(tmp_path / "memory" / "new"), "parquet", tmp_path / "out")


def test_a_cut_off_parquet_import_continues(tmp_path: Path) -> None:
    run = make(
        tmp_path / "store",
        EXAMPLE,
        {"sample_meta": [{"sample": "z", "key": "k", "number": 1.0, "string": None}]},
    )
    export_run(run, "parquet", tmp_path / "out")
    target = open_store(tmp_path / "new", create=True)
    rows = {name: run.store.read(name, [run.steps[0].key]) for name in run.steps[0].tables}
    target.commit(run.steps[0], rows)
    results = run_tables(target, import_run(target, "parquet", tmp_path / "out"))
    assert [step.key for step in results.steps] == [step.key for step in run.steps]
    assert [bool(step.origin) for step in results.steps] == [False, True]
    same(run, results, "activations", "sample_meta")


# --- safetensors ---


def test_safetensors_in_coordinates(run: RunTables, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    export_run(run, "safetensors", tmp_path / "out", spaces=["s1"])
    (path,) = (tmp_path / "out").glob("*.safetensors")
    result = load_file(path)
    assert (
        path.name == "google-gemma-2-2b-resid_post.20-layer_20-width_16k-average_l0_71.safetensors"
    )
    assert result["indices"].tolist() == [[0, 0, 1, 2], [2, 11, 2, 10]]
    assert result["values"].tolist() == [0.5, 1.5, 4.0, 0.25]
    assert (result["sample"].tolist(), result["position"].tolist()) == ([0, 0, 1], [0, 2, 1])


def test_safetensors_that_do_not_fit_together_are_refused(run: RunTables, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    export_run(run, "safetensors", tmp_path / "good", spaces=["s1"])
    (path,) = (tmp_path / "good").glob("*.safetensors")
    good = load_file(path)

    def refused(match: str, change: Callable[[Path], Any]) -> None:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        change(tmp_path / "bad" / path.name)
        with pytest.raises(DataError, match=match):
            import_run(opened(tmp_path / "memory" / "new"), "safetensors", tmp_path / "bad")

    def put(**arrays: Any) -> Callable[[Path], Any]:
        return lambda file: save_file(
            {name: array for name, array in (good | arrays).items() if array is not None}, file
        )

    refused("not a complete safetensors file", lambda file: file.write_bytes(b"no"))
    refused("is missing, though", lambda file: file.unlink())
    refused("has no tensor 'sample'", put(sample=None))
    refused(
        "an index is outside the matrix of 3 rows by 12 features", put(indices=np.full((2, 4), 12))
    )
    refused("an index is outside", put(indices=np.full((2, 4), -1)))
    refused("`indices` must be", put(values=good["values"][:2]))
    refused("sample 9 is beyond the 2 lines", put(sample=np.full(3, 9, np.uint32)))
    refused(
        r"samples\.jsonl:1 cannot be read as JSON",
        lambda file: (file.parent / "samples.jsonl").write_text("{"),
    )
