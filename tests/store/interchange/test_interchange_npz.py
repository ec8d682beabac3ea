"""Runs as npz, in the two shapes of scripts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.interchange.made import fired, make, same, space, there_and_back
from toolkit.errors import BadInput, DataError
from toolkit_store.interchange import RunTables, export_run, import_run, run_tables

# --- npz ---


def test_rows_have_the_arrays_that_scripts_read(run: RunTables, tmp_path: Path) -> None:
    files = export_run(run, "rows", tmp_path / "out")
    assert [path.name for path in files] == [
        "layer_20_l0_71_activations.npz",
        "layer_20_l0_139_activations.npz",
        "layer_5_l0_68_activations.npz",
    ]
    loaded = np.load(files[0])
    assert loaded["activations"].shape == (3, 12)
    assert loaded["activations"][0, 11] == np.float32(1.5)
    assert loaded["fragments"].tolist() == ["One", "One two three", "x\n"]
    assert loaded["original_sentences"].tolist() == ["One two three", "One two three", "x\né"]
    assert np.nan_to_num(loaded["concept_strength_labels"], nan=-1).tolist() == [2.0, 2.0, -1.0]
    assert (loaded["sentence_indices"].tolist(), loaded["token_positions"].tolist()) == (
        [0, 0, 1],
        [0, 2, 1],
    )
    assert (loaded["is_final_token"].tolist(), loaded["fragment_lengths"].tolist()) == (
        [False, True, False],
        [1, 3, 1],
    )
    assert (int(loaded["layer"]), float(loaded["average_l0"]), int(loaded["num_features"])) == (
        20,
        71.0,
        12,
    )


def test_rows_bring_back_labels_and_refuse_to_fill_the_memory(
    run: RunTables, tmp_path: Path
) -> None:
    same(
        run,
        there_and_back(run, "rows", tmp_path / "memory"),
        "activations",
        "samples",
        "sample_meta",
    )
    with pytest.raises(
        DataError, match=r"3 rows of 12 features are 144 bytes dense; at most 100 are written"
    ):
        export_run(run, "rows", tmp_path / "small", max_bytes=100)


FOREIGN = {
    "activations": np.array([[0, 2.5, 0], [1, 0, 0]], np.float32),
    "fragments": np.array(["I am", "You"]),
    "original_sentences": np.array(["I am here.", "You are."]),
    "concept_strength_labels": np.array([3, 0]),
    "sentence_indices": np.array([4, 7]),
    "token_positions": np.array([1, 0]),
    "layer": 3,
    "average_l0": 59.0,
    "num_features": 3,
}


def test_rows_of_another_program_need_the_model(run: RunTables, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "layer_3_l0_59_activations.npz"
    np.savez_compressed(path, **FOREIGN)
    with pytest.raises(BadInput, match="does not say which model it is from"):
        import_run(run.store, "rows", tmp_path / "in")
    results = run_tables(
        run.store, import_run(run.store, "rows", tmp_path / "in", model="google/gemma-2-2b")
    )
    (row,) = results.spaces.values()
    assert (row["hookpoint"], row["width"], row["sae"]) == (
        "resid_post.3",
        3,
        "imported/layer_3/average_l0_59",
    )
    rows = [
        (row["sample"], row["position"], row["features"], row["values"])
        for row in results.read("activations").to_pylist()
    ]
    assert rows == [("sentence-000004", 1, [1], [2.5]), ("sentence-000007", 0, [0], [1.0])]
    assert results.samples["sentence-000004"]["text"] == "I am here."
    assert [row["number"] for row in results.read("sample_meta").to_pylist()] == [3.0, 0.0]


def test_archives_that_are_none_say_so(run: RunTables, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(BadInput, match=r"holds no \.npz files"):
        import_run(run.store, "rows", folder)
    path = folder / "layer_3_l0_59_activations.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as a NumPy archive"):
        import_run(run.store, "rows", folder, model="m")
    np.savez(path, activations=np.zeros((1, 1)))
    with pytest.raises(DataError, match="has no array 'original_sentences'"):
        import_run(run.store, "rows", folder, model="m")
    np.savez(path, **FOREIGN | {"num_features": 4})
    with pytest.raises(
        DataError,
        match=r"`activations` has the shape \(2, 3\); it must be \(2, "
        r"4\)",
    ):
        import_run(run.store, "rows", folder, model="m")
    np.savez(path, **FOREIGN | {"fragments": np.array([object()])})
    with pytest.raises(
        DataError, match="array 'fragments': it holds Python objects, which are not read"
    ):
        import_run(run.store, "rows", folder, model="m")


def test_tokens_have_a_folder_a_sample_and_a_file_a_layer(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "tokens", tmp_path / "out", spaces=["s1", "s3"])
    loaded = np.load(tmp_path / "out" / "a b" / "layer_20.npz")
    assert loaded["features"].shape == (3, 12)
    assert loaded["features"][2, 2] == np.float32(4)
    assert loaded["attention"].shape == (2, 3, 3)
    assert loaded["attention"][1, 2].tolist() == [0.5, 0.25, 0.25]
    (path,) = (tmp_path / "out").glob("metadata_L5_20_*.json")
    (first, second) = json.loads(path.read_text())["scenarios"]
    assert (first["scenario"], first["tokens"], first["seq_len"]) == (
        "a b",
        ["One", " two", " three"],
        3,
    )
    assert first["key_positions"] == {"goal": [1, 2]}
    assert second["scenario"].startswith("sample-")
    same(
        run,
        there_and_back(run, "tokens", tmp_path / "memory" / "all"),
        "activations",
        "samples",
        "attention",
    )


def foreign_tokens(folder: Path, **arrays: Any) -> Path:
    (folder / "Desperate_10").mkdir(parents=True)
    scenario = {
        "scenario": "Desperate_10",
        "tokens": ["<s>", "Slot", " 10"],
        "token_ids": [1, 2, 3],
        "seq_len": 3,
    }
    known = {"n_scenarios": 1, "scenarios": [scenario | {"key_positions": {"balance": [1, 2]}}]}
    (folder / "metadata_L1_31_20251017.json").write_text(json.dumps(known))
    np.savez_compressed(folder / "Desperate_10" / "layer_15.npz", **arrays)
    return folder


def test_tokens_of_another_program(run: RunTables, tmp_path: Path) -> None:
    features, attention = np.eye(3, 5, dtype=np.float32), np.full((2, 3, 3), 0.5, np.float32)
    folder = foreign_tokens(tmp_path / "in", features=features, attention=attention)
    with pytest.raises(BadInput, match="--model meta-llama/Llama"):
        import_run(run.store, "tokens", folder)
    results = run_tables(
        run.store, import_run(run.store, "tokens", folder, model="meta-llama/Llama-3.1-8B")
    )
    assert [
        (row["position"], row["features"]) for row in results.read("activations").to_pylist()
    ] == [(0, [0]), (1, [1]), (2, [2])]
    assert results.read("attention").num_rows == 6
    assert results.samples["Desperate_10"]["spans"] == [{"name": "balance", "start": 1, "end": 3}]
    alone = foreign_tokens(tmp_path / "alone", attention=attention)
    results = run_tables(run.store, import_run(run.store, "tokens", alone, model="m"))
    assert (
        results.read("attention").num_rows,
        results.read("activations").num_rows,
        results.spaces,
    ) == (
        6,
        0,
        {},
    )


def test_attention_that_was_kept_in_part_comes_back_in_part(run: RunTables, tmp_path: Path) -> None:
    nan = np.nan
    attention = np.array([[[nan] * 3, [0.5, 0.5, 0], [nan, 0.75, nan]]], np.float16)
    folder = foreign_tokens(tmp_path / "in", attention=attention)
    results = run_tables(run.store, import_run(run.store, "tokens", folder, model="m"))
    rows = results.read("attention").to_pylist()
    assert [(row["query"], row["keys"], row["weights"], row["rest"]) for row in rows] == [
        (1, None, [0.5, 0.5, 0.0], 0.0),
        (2, [1], [0.75], 0.25),
    ]


def test_tokens_that_do_not_fit_are_refused(run: RunTables, tmp_path: Path) -> None:
    folder = foreign_tokens(
        tmp_path / "in", features=np.zeros((3, 5), np.float32), positions=np.array([3])
    )
    with pytest.raises(DataError, match="`positions` names a token beyond the 3 rows"):
        import_run(run.store, "tokens", folder, model="m")
    (folder / "metadata_2.json").write_text("{}")
    with pytest.raises(
        BadInput, match=r"must hold one metadata_\*\.json.*it holds metadata_2\.json, metadata_L1"
    ):
        import_run(run.store, "tokens", folder, model="m")
    (folder / "metadata_L1_31_20251017.json").unlink()
    with pytest.raises(DataError, match="has no list `scenarios`"):
        import_run(run.store, "tokens", folder, model="m")
    (folder / "metadata_2.json").write_text('{"scenarios": []}')
    shutil.rmtree(folder / "Desperate_10")
    with pytest.raises(BadInput, match="holds no files such as"):
        import_run(run.store, "tokens", folder, model="m")


def test_tokens_need_layers(tmp_path: Path) -> None:
    rows = {
        "spaces": [space("s1", hookpoint="embedding")],
        "activations": [fired("s1", "a", 0, {1: 1.0})],
    }
    with pytest.raises(BadInput, match="belongs to no layer"):
        export_run(make(tmp_path / "memory" / "store", rows), "tokens", tmp_path / "out")
