"""Neuronpedia's files, and lists of features."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.store.interchange.made import EXAMPLE, fired, make, space
from toolkit.errors import BadInput, DataError
from toolkit_store.interchange import RunTables, export_run, import_run, run_tables

# --- Neuronpedia ---


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_neuronpedia_batches_are_ordered_by_index_as_text(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "neuronpedia", tmp_path / "out", batch=2)
    folder = tmp_path / "out" / "v1" / "gemma-2-2b" / "20-gemmascope-res-16k"
    batches = sorted((folder / "features").iterdir())
    assert [path.name for path in batches] == ["batch-0.jsonl.gz", "batch-1.jsonl.gz"]
    assert [row["index"] for path in batches for row in lines(path)] == ["10", "11", "2"]
    (last,) = lines(batches[1])
    assert (last["modelId"], last["layer"], last["maxActApprox"]) == (
        "gemma-2-2b",
        "20-gemmascope-res-16k",
        4.0,
    )
    assert (last["frac_nonzero"], sum(last["freq_hist_data_bar_heights"])) == (
        pytest.approx(2 / 3),
        2,
    )
    (activation,) = lines(folder / "activations" / "batch-1.jsonl.gz")
    assert (activation["tokens"], activation["values"]) == (
        ["One", " two", " three"],
        [0.5, 0.0, 4.0],
    )
    assert (activation["maxValue"], activation["maxValueTokenIndex"], activation["minValue"]) == (
        4.0,
        2,
        0.0,
    )
    labelled = [
        (row["index"], row["description"], row["typeName"])
        for row in lines(folder / "explanations" / "batch-1.jsonl.gz")
    ]
    assert labelled == [("2", "counting words", "np_max-act"), ("2", "numbers", "np_max-act")]
    assert {path.name for path in folder.glob("*.jsonl")} == {
        "release.jsonl",
        "model.jsonl",
        "sourceset.jsonl",
        "source.jsonl",
    }
    assert (tmp_path / "out" / "v1" / "gemma-2-2b" / "20-gemmascope-res-16k__l0-139").is_dir()


def test_neuronpedia_gets_the_methods_and_models_that_labels_name(
    run: RunTables, tmp_path: Path
) -> None:
    export_run(run, "neuronpedia", tmp_path / "out")
    config = tmp_path / "out" / "v1" / "config"
    entered = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in config.iterdir()
    }
    assert {name: [row["name"] for row in result] for name, result in entered.items()} == {
        "explanation_type": ["np_max-act", "other"],
        "explanation_model_type": ["gpt"],
    }
    assert {frozenset(row) for result in entered.values() for row in result} == {
        frozenset(("name", "displayName", "description", "creatorName"))
    }
    explained = lines(
        tmp_path
        / "out"
        / "v1"
        / "gemma-2-2b"
        / "20-gemmascope-res-16k"
        / "explanations"
        / "batch-0.jsonl.gz"
    )
    for column, name in (
        ("typeName", "explanation_type"),
        ("explanationModelName", "explanation_model_type"),
    ):
        assert {row[column] for row in explained} - {None} == {row["name"] for row in entered[name]}
    export_run(run, "neuronpedia", tmp_path / "bare", spaces=["s3"])
    assert not (tmp_path / "bare" / "v1" / "config").exists()


def write_labels(folder: Path, *rows: Any, name: str = "20-gemmascope-res-16k") -> Path:
    path = folder / "v1" / "gemma-2-2b" / name / "explanations" / "batch-0.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return folder


def explanation(index: Any, text: str, **fields: Any) -> dict[str, Any]:
    row = {
        "id": "x",
        "modelId": "gemma-2-2b",
        "layer": "20-gemmascope-res-16k",
        "index": index,
        "description": text,
    }
    return row | {"typeName": "np", "explanationModelName": "gpt"} | fields


def labels_of(run: RunTables) -> list[tuple[Any, ...]]:
    rows = [
        row
        for row in run_tables(run.store, run.id).read("features").to_pylist()
        if row["stat"] == "label"
    ]
    return [(row["space"], row["feature"], row["group"], row["text"]) for row in rows]


def test_labels_are_known_by_model_source_and_index_alone(tmp_path: Path) -> None:
    run = make(tmp_path / "memory" / "store", {"spaces": EXAMPLE["spaces"]})
    rows = [
        explanation(3, "three", id="b"),
        explanation("3", "a number", id="c"),
        explanation("3", "three", id="d"),
        explanation(
            "11",
            "eleven",
            layer="20-gemmascope-res-16k__l0-139",
            typeName="other",
            explanationModelName=None,
        ),
        explanation("1", "of another source", layer="7-gemmascope-res-16k"),
        explanation("1", "of another model", modelId="gpt2-small"),
        explanation("1", ""),
    ]
    import_run(
        run.store, "neuronpedia", write_labels(tmp_path / "in", *rows, name="misplaced"), run=run
    )
    expected = [
        ("s1", 3, "np / gpt", "three"),
        ("s1", 3, "np / gpt #2", "a number"),
        ("s2", 11, "other", "eleven"),
    ]
    assert labels_of(run) == expected
    import_run(run.store, "neuronpedia", tmp_path / "in", run=run_tables(run.store, run.id))
    assert labels_of(run) == expected


def test_labels_of_another_name_need_the_space(tmp_path: Path) -> None:
    run = make(tmp_path / "memory" / "store", {"spaces": EXAMPLE["spaces"][:1]})
    folder = write_labels(tmp_path / "in", explanation("1", "one", layer="20-mine"))
    with pytest.raises(
        BadInput,
        match=r"has labels of gemma-2-2b/20-mine, run "
        r"run-1 "
        r"has "
        r"gemma-2-2b/20-gemmascope-res-16k\..*--source",
    ):
        import_run(run.store, "neuronpedia", folder, run=run)
    with pytest.raises(BadInput, match=r"run run-1 has no space s9\. Spaces: s1"):
        import_run(run.store, "neuronpedia", folder, run=run, sources={"20-mine": "s9"})
    import_run(run.store, "neuronpedia", folder, run=run, sources={"20-mine": "s1"})
    assert labels_of(run) == [("s1", 1, "np / gpt", "one")]


def test_bad_labels_name_file_and_line(run: RunTables, tmp_path: Path) -> None:
    def refused(match: str, *rows: Any) -> None:
        with pytest.raises((BadInput, DataError), match=match):
            import_run(run.store, "neuronpedia", write_labels(tmp_path / "in", *rows), run=run)

    refused(
        r"batch-0\.jsonl\.gz:2: an explanation needs .*; it has no 'description'",
        explanation(1, "x"),
        {"modelId": 1, "layer": 2, "index": 3},
    )
    refused(r":1: .* index '-1'", explanation("-1", "x"))
    refused(r":1: .* index '٣'", explanation("٣", "x"))
    refused(r":1: .* no 'modelId'", [1])
    refused(r":1: feature 12 of .*, whose width here is 12", explanation(12, "x"))
    (
        tmp_path
        / "in"
        / "v1"
        / "gemma-2-2b"
        / "20-gemmascope-res-16k"
        / "explanations"
        / "batch-0.jsonl.gz"
    ).write_bytes(b"\x1f\x8bno")
    with pytest.raises(DataError, match="cannot be read as JSON lines"):
        import_run(run.store, "neuronpedia", tmp_path / "in", run=run)
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match=r"holds no explanations/batch-N\.jsonl\.gz"):
        import_run(run.store, "neuronpedia", tmp_path / "none", run=run)


def test_two_spaces_of_one_name_are_told_apart(tmp_path: Path) -> None:
    twins = [space("s1"), space("s2", revision="new")]
    rows = [fired("s1", "a", 0, {1: 1.0}), fired("s2", "a", 0, {1: 1.0})]
    run = make(tmp_path / "memory" / "store", {"spaces": twins, "activations": rows})
    with pytest.raises(
        BadInput,
        match=r"spaces s1 and s2 are both 'gemma-2-2b/20-gemmascope-res-16k' at "
        r"Neuronpedia\. "
        r"Export "
        r"one",
    ):
        export_run(run, "neuronpedia", tmp_path / "out")
    with pytest.raises(BadInput, match="Choose one: --source 20-gemmascope-res-16k=SPACE"):
        import_run(
            run.store, "neuronpedia", write_labels(tmp_path / "in", explanation(1, "x")), run=run
        )


# --- lists ---


def test_lists_as_others_take_them(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "lists", tmp_path / "out")
    quick = json.loads((tmp_path / "out" / "quick-list.json").read_text())
    assert quick == {
        "name": "exp",
        "features": [{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "2"}],
    }
    (plain,) = [
        path
        for path in (tmp_path / "out").iterdir()
        if path.name not in ("quick-list.json", "lists.json")
    ]
    assert json.loads(plain.read_text()) == [2]
    import_run(run.store, "lists", tmp_path / "out", run=run)
    rows = [
        row
        for row in run_tables(run.store, run.id).read("features").to_pylist()
        if row["stat"] == "listed"
    ]
    assert [(row["space"], row["feature"], row["group"], row["number"]) for row in rows] == [
        ("s1", 2, "exp", 0.0)
    ]


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.sampled_from(["s1", "s2", "s3"]), st.integers(0, 11)),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_a_given_list_comes_back(chosen: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "memory"
        run = make(folder / "store", {"spaces": EXAMPLE["spaces"]})
        export_run(run, "lists", folder / "out", features=chosen, name="mine")
        import_run(run.store, "lists", folder / "out", run=run)
        rows = run_tables(run.store, run.id).read("features").to_pylist()
        assert {(row["space"], row["feature"]) for row in rows} == set(chosen)
        assert {row["group"] for row in rows} == {"mine"}


def test_a_plain_list_needs_its_space(run: RunTables, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()

    def refused(content: Any, match: str, **options: Any) -> None:
        (folder / "my.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
        with pytest.raises((BadInput, DataError), match=match):
            import_run(run.store, "lists", folder, run=run, **options)

    refused(
        [1, 2],
        r"does not say which space it is about\. Name it: --space ID\. Spaces of run run-1: s1, "
        r"s2, s3",
    )
    refused([12], "there is no feature 12 in google/.*; its width is 12", space="s1")
    refused("[", "cannot be read as JSON")
    refused({"a": 1}, "is not a feature list: it must hold whole numbers")
    refused([True], "is not a feature list")
    refused(
        [{"modelId": "gemma-2-2b", "layer": "9-x", "index": "1"}],
        "No space corresponds to Neuronpedia's 'gemma-2-2b/9-x'",
    )
    refused(
        [{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "x"}],
        "index 'x' is not a whole number",
    )
    (folder / "my.json").write_text("[3, 1]")
    import_run(run.store, "lists", folder, run=run, space="s2")
    rows = [
        row
        for row in run_tables(run.store, run.id).read("features").to_pylist()
        if row["stat"] == "listed"
    ]
    assert [(row["space"], row["feature"], row["group"], row["number"]) for row in rows] == [
        ("s2", 1, "my", 1.0),
        ("s2", 3, "my", 0.0),
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="holds no lists"):
        import_run(run.store, "lists", tmp_path / "none", run=run)
    with pytest.raises(BadInput, match="has no rows in table 'features'"):
        export_run(make(tmp_path / "memory" / "bare", {"spaces": []}), "lists", tmp_path / "out")
