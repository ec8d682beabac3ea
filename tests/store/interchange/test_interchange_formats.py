"""Every format: what is written is read back, twice the same, and what is wrong says so."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.store.interchange.made import (
    EXAMPLE,
    Rows,
    fired,
    label,
    make,
    same,
    sample,
    space,
    there_and_back,
)
from toolkit.errors import BadInput, DataError, StoreError
from toolkit_store.interchange import FORMATS, RunTables, export_run, import_run, run_tables

# --- all formats ---


@pytest.mark.parametrize(
    ("form", "spaces", "answers"),
    [
        ("safetensors", None, [3, 1, 1]),
        ("safetensors", ["s2"], [1]),
        ("neuronpedia", ["s3", "s1"], [1, 3]),
    ],
)
def test_an_export_holds_one_space_at_a_time(
    run: RunTables, tmp_path: Path, form: str, spaces: list[str] | None, answers: list[int]
) -> None:
    export_run(run, form, tmp_path / "out", spaces=spaces)
    assert run.store.answers == answers  # type: ignore[attr-defined]


def test_an_export_of_rows_that_are_gone_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "store", EXAMPLE)
    run.store.database.delete("activations", "space = 's2'")
    with pytest.raises(StoreError, match="holds 4 rows of these steps, and the ledger says 5"):
        export_run(run, "safetensors", tmp_path / "out", spaces=["s1"])


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_the_same_bytes_twice(run: RunTables, tmp_path: Path, form: str) -> None:
    for name in ("one", "two"):
        export_run(run, form, tmp_path / name)
    files = [
        path.relative_to(tmp_path / "one")
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    ]
    assert files
    assert [
        path
        for path in files
        if (tmp_path / "one" / path).read_bytes() != (tmp_path / "two" / path).read_bytes()
    ] == []


def test_an_unknown_format_a_full_folder_and_no_folder(run: RunTables, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput,
        match=r"no format 'parkett'\. Did you mean 'parquet'\? "
        r"Formats: "
        r"lists, "
        r"neuronpedia, parquet",
    ):
        export_run(run, "parkett", tmp_path / "out")
    with pytest.raises(BadInput, match=r"is not empty: it holds memory\. Name a new"):
        export_run(run, "parquet", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        export_run(run, "parquet", tmp_path / "file")
    with pytest.raises(BadInput, match="There is no folder"):
        import_run(run.store, "parquet", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="name it with --run"):
        import_run(run.store, "lists", tmp_path)
    with pytest.raises(BadInput, match="has no run 'x'"):
        run_tables(run.store, "x")


@pytest.mark.parametrize("form", ["safetensors", "rows", "tokens", "neuronpedia"])
def test_an_unknown_space_and_a_run_without_activations(
    run: RunTables, tmp_path: Path, form: str
) -> None:
    with pytest.raises(BadInput, match=r"no activations in space s9\. It has some in: s1, s2, s3"):
        export_run(run, form, tmp_path / "out", spaces=["s9"])
    with pytest.raises(BadInput, match="has no activations to export"):
        export_run(make(tmp_path / "memory" / "empty", {"samples": []}), form, tmp_path / "none")
    with pytest.raises(
        DataError,
        match="space s1: it has activations in run run-1, but table 'spaces' does not describe it",
    ):
        export_run(
            make(tmp_path / "memory" / "bare", {"activations": EXAMPLE["activations"][:1]}),
            form,
            tmp_path / "bare-out",
        )


@pytest.mark.parametrize("form", ["parquet", "safetensors", "rows", "tokens"])
def test_importing_twice_adds_nothing(run: RunTables, tmp_path: Path, form: str) -> None:
    first = there_and_back(run, form, tmp_path)
    assert import_run(first.store, form, tmp_path / "out") == first.id
    again = run_tables(first.store, first.id)
    assert (len(first.store.run_states()), again.row, len(first.store.steps())) == (
        1,
        first.row,
        len(first.steps),
    )
    same(first, again, "activations", "samples", "spaces")


@pytest.mark.parametrize("form", ["safetensors", "rows", "tokens"])
def test_an_imported_run_has_a_manifest(run: RunTables, tmp_path: Path, form: str) -> None:
    result = there_and_back(run, form, tmp_path / "memory")
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert (manifest["run"], manifest["stages"][0]["part"]) == (result.id, f"import.{form}")
    assert {"activations", "samples", "spaces"} <= set(manifest["stages"][0]["writes"])


def test_a_place_that_two_steps_looked_at_goes_out_once_with_its_largest_values(
    tmp_path: Path,
) -> None:
    again = [fired("s1", "a b", 0, {2: 0.75, 5: 1.0}), fired("s3", "a b", 2, {})]
    run = make(
        tmp_path / "memory" / "store", EXAMPLE, {"activations": again, "spaces": EXAMPLE["spaces"]}
    )
    result = there_and_back(run, "safetensors", tmp_path / "memory")
    expected = [fired("s1", "a b", 0, {2: 0.75, 5: 1.0, 11: 1.5}), *EXAMPLE["activations"][1:]]
    assert result.read("activations").to_pylist() == expected


# --- properties ---


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


NAME = st.text("abcXY /.é", min_size=1, max_size=4)


VALUE = st.floats(2**-20, 1e6, width=32)


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Samples with tokens, spaces, and activations at some of the tokens."""
    names = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    samples = [sample(name, *draw(st.lists(TEXT, min_size=1, max_size=4))) for name in names]
    spaces = [
        space(f"s{number}", layer)
        for number, layer in enumerate(draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)))
    ]
    rows = [
        fired(entry["space"], each["sample"], position, entries)
        for entry in spaces
        for each in samples
        for position in range(len(each["pieces"]))
        if (entries := draw(st.none() | st.dictionaries(st.integers(0, 11), VALUE, max_size=3)))
        is not None
    ]
    anchor = fired(spaces[0]["space"], names[0], len(samples[0]["pieces"]), {1: 1.0})
    ordered = [
        row | dict(zip(("features", "values"), _by_feature(row), strict=True))
        for row in [*rows, anchor]
    ]
    return {"samples": samples, "spaces": spaces, "activations": ordered}


def _by_feature(row: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    pairs = sorted(zip(row["features"], row["values"], strict=True))
    return [feature for feature, _ in pairs], [value for _, value in pairs]


@pytest.mark.parametrize("form", ["parquet", "safetensors", "rows", "tokens"])
@settings(max_examples=8)
@given(data=tables())
def test_what_is_written_is_read_back(form: str, data: Rows) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "memory"
        run = make(folder / "store", data)
        result = there_and_back(run, form, folder)
        same(run, result, "activations")
        used = {row["space"] for row in data["activations"]}
        there = {row["sample"] for row in data["activations"]}
        kept = [row for row in run.read("samples").to_pylist() if row["sample"] in there]
        assert [row for row in result.read("samples").to_pylist() if row["sample"] in there] == kept
        assert result.spaces == {
            id: row for id, row in run.spaces.items() if form == "parquet" or id in used
        }


@settings(max_examples=8)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 11), st.sampled_from(["m / a", "m / b", "plain"])),
        TEXT.filter(bool),
    )
)
def test_labels_come_back_from_neuronpedia_layout(labels: dict[tuple[int, str], str]) -> None:
    labelled = [label(feature, text, group) for (feature, group), text in labels.items()]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "memory"
        bare = {name: rows for name, rows in EXAMPLE.items() if name != "features"}
        run = make(folder / "store", {**bare, "features": [*labelled, label(0, "always", "m / c")]})
        export_run(run, "neuronpedia", folder / "out")
        other = make(folder / "other", bare)
        results = run_tables(
            other.store, import_run(other.store, "neuronpedia", folder / "out", run=other)
        )
        same(run, results, "features")
