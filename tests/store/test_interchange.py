"""Runs in other formats: what is written is read back, what others wrote is understood, and what is wrong says so."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from toolkit.errors import BadInput, DataError, StoreError
from toolkit.records import RunRow, StepRow
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store, rows
from toolkit_store.interchange import FORMATS, RunTables, export_run, import_run, run_tables

Rows = Mapping[str, list[dict[str, Any]]]


def space(id: str, layer: int = 20, l0: int = 71, **fields: Any) -> dict[str, Any]:
    sae = f"layer_{layer}/width_16k/average_l0_{l0}"
    base = {"space": id, "model": "google/gemma-2-2b", "revision": "r", "hookpoint": f"resid_post.{layer}", "sae": sae}
    return base | {"sae_hash": "h", "recipe": "j", "width": 12, "address": f"google/gemma-2-2b/resid_post.{layer}/{sae}"} | fields


def sample(name: str, *pieces: str, spans: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    base = {"sample": name, "unit": f"u-{name}", "cluster": "c", "text": "".join(pieces), "token_ids": list(range(len(pieces)))}
    return base | {"pieces": list(pieces), "spans": spans or [], "prompt_hash": f"h-{name}"}


def fired(space: str, sample: str, position: int, entries: Mapping[int, float]) -> dict[str, Any]:
    row = {"space": space, "sample": sample, "position": position}
    return row | {"features": list(entries), "values": list(entries.values())}


def label(feature: int, text: str, group: str, space: str = "s1") -> dict[str, Any]:
    return {"space": space, "feature": feature, "stat": "label", "group": group, "number": None, "text": text}


EXAMPLE: Rows = {
    "samples": [
        sample("a b", "One", " two", " three", spans=[{"name": "goal", "start": 1, "end": 3}]),
        sample("b/2", "x", "\n", "é"),
    ],
    "sample_meta": [{"sample": "a b", "key": "concept_strength_label", "number": 2.0, "string": None}],
    "spaces": [space("s1"), space("s2", l0=139), space("s3", 5, 68)],
    "saes": [
        {"space": "s1", "place": "resid_post.20", "l0": 70.0, "declared_l0": 71.0, "explained_variance": 0.9, "cosine": 0.9}
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
        {"model": "google/gemma-2-2b", "sample": "a b", "layer": 20, "head": 1, "query": 2, "key_position": 0, "weight": 0.5}
    ],
    "features": [
        label(2, "counting words", "np_max-act / gpt"),
        label(2, "numbers", "np_max-act / gpt #2"),
        label(10, "letters", "other"),
        {"space": "s1", "feature": 2, "stat": "significant", "group": "x", "number": 1.0, "text": None},
        {"space": "s2", "feature": 3, "stat": "significant", "group": "x", "number": 0.0, "text": None},
    ],
}


class Memory:
    """A store that keeps its rows in memory: what an export reads and an import calls, a hundred times as quick as files."""

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
            parts = [arrow_schema(name, step=True).empty_table(), *rows.batches(name, chunks, row.key)]
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
        found = rows.ordered(name, pa.concat_tables([arrow_schema(name, step=True).empty_table(), *parts]))
        return found.drop_columns("step")

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
        with pl.SQLContext(t=pl.DataFrame(pa.concat_tables([schema.empty_table(), *parts])), eager=True) as context:
            found = context.execute(f"SELECT * FROM t WHERE {where.replace('`', '')}").to_arrow()
        self.answers.append(found.num_rows)
        return found.cast(schema).select(list(columns))

    def batches(self, name: str, where: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        found = self.rows(name, where, columns)
        self.answers.pop()
        yield from (found.slice(at, 2) for at in range(0, found.num_rows, 2))


def opened(folder: Path) -> Any:
    """A store: of files, unless the folder says that memory will do."""
    return Memory(folder) if "memory" in folder.parts else open_store(folder, create=True)


def make(folder: Path, *steps: Rows, run: str = "run-1") -> RunTables:
    """A store with one run of the given steps."""
    store = opened(folder)
    keys = [f"key{number}" for number in range(len(steps))]
    for key, tables in zip(keys, steps, strict=True):
        row = make_step(key, run=run)
        store.commit(row, {name: pa.Table.from_pylist(list(rows), arrow_schema(name)) for name, rows in tables.items()})
    store.record_run(run=run, name="exp", state="done", at="2026-01-02", done=len(keys), total=len(keys), steps=keys)
    (store.folder / "runs" / run).mkdir(parents=True)
    (store.folder / "runs" / run / "manifest.json").write_text(json.dumps({"run": run, "stages": []}))
    return run_tables(store, run)


@pytest.fixture
def run(tmp_path: Path) -> RunTables:
    return make(tmp_path / "memory" / "store", EXAMPLE)


def there_and_back(run: RunTables, form: str, folder: Path, **options: Any) -> RunTables:
    """The run after an export, and an import into a new store."""
    export_run(run, form, folder / "out", **options)
    target = opened(folder / "new")
    return run_tables(target, import_run(target, form, folder / "out"))


def same(one: RunTables, other: RunTables, *tables: str) -> None:
    for name in tables:
        assert one.read(name).to_pylist() == other.read(name).to_pylist(), name


# --- all formats ---


@pytest.mark.parametrize(
    ("form", "spaces", "answers"),
    [("safetensors", None, [3, 1, 1]), ("safetensors", ["s2"], [1]), ("neuronpedia", ["s3", "s1"], [1, 3])],
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
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if (tmp_path / "one" / path).read_bytes() != (tmp_path / "two" / path).read_bytes()] == []


def test_an_unknown_format_a_full_folder_and_no_folder(run: RunTables, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no format 'parkett'\. Did you mean 'parquet'\? Formats: lists, neuronpedia, parquet"):
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
def test_an_unknown_space_and_a_run_without_activations(run: RunTables, tmp_path: Path, form: str) -> None:
    with pytest.raises(BadInput, match=r"no activations in space s9\. It has some in: s1, s2, s3"):
        export_run(run, form, tmp_path / "out", spaces=["s9"])
    with pytest.raises(BadInput, match="has no activations to export"):
        export_run(make(tmp_path / "memory" / "empty", {"samples": []}), form, tmp_path / "none")
    with pytest.raises(DataError, match="space s1: it has activations in run run-1, but table 'spaces' does not describe it"):
        export_run(make(tmp_path / "memory" / "bare", {"activations": EXAMPLE["activations"][:1]}), form, tmp_path / "bare-out")


@pytest.mark.parametrize("form", ["parquet", "safetensors", "rows", "tokens"])
def test_importing_twice_adds_nothing(run: RunTables, tmp_path: Path, form: str) -> None:
    first = there_and_back(run, form, tmp_path)
    assert import_run(first.store, form, tmp_path / "out") == first.id
    again = run_tables(first.store, first.id)
    assert (len(first.store.run_states()), again.row, len(first.store.steps())) == (1, first.row, len(first.steps))
    same(first, again, "activations", "samples", "spaces")


@pytest.mark.parametrize("form", ["safetensors", "rows", "tokens"])
def test_an_imported_run_has_a_manifest(run: RunTables, tmp_path: Path, form: str) -> None:
    found = there_and_back(run, form, tmp_path / "memory")
    manifest = json.loads((found.folder / "manifest.json").read_text())
    assert (manifest["run"], manifest["stages"][0]["part"]) == (found.id, f"import.{form}")
    assert {"activations", "samples", "spaces"} <= set(manifest["stages"][0]["writes"])


def test_a_place_that_two_steps_looked_at_goes_out_once_with_its_largest_values(tmp_path: Path) -> None:
    again = [fired("s1", "a b", 0, {2: 0.75, 5: 1.0}), fired("s3", "a b", 2, {})]
    run = make(tmp_path / "memory" / "store", EXAMPLE, {"activations": again, "spaces": EXAMPLE["spaces"]})
    found = there_and_back(run, "safetensors", tmp_path / "memory")
    wanted = [fired("s1", "a b", 0, {2: 0.75, 5: 1.0, 11: 1.5}), *EXAMPLE["activations"][1:]]
    assert found.read("activations").to_pylist() == wanted


# --- parquet ---


def test_parquet_brings_back_everything(tmp_path: Path) -> None:
    run = make(tmp_path / "store", EXAMPLE)
    found = there_and_back(run, "parquet", tmp_path)
    assert found.row == run.row
    assert found.steps == run.steps
    keys = [step.key for step in run.steps]
    assert found.store.fingerprint(keys) == run.store.fingerprint(keys)
    assert (found.folder / "manifest.json").read_bytes() == (run.folder / "manifest.json").read_bytes()
    assert pq.read_table(tmp_path / "out" / "activations.parquet").num_rows == 5


def test_parquet_of_another_version_or_with_a_flipped_bit_is_refused(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "parquet", tmp_path / "out")
    index = tmp_path / "out" / "toolkit-run.json"
    good = json.loads(index.read_text())

    def refused(match: str, **changes: Any) -> None:
        index.write_text(json.dumps(good | changes))
        with pytest.raises((BadInput, DataError), match=match):
            import_run(opened(tmp_path / "memory" / "new"), "parquet", tmp_path / "out")

    refused(r"has version 99; this toolkit .* Upgrade", version=99)
    refused(r"is of format 'safetensors'; wanted 'parquet'", format="safetensors")
    tables = good["tables"]
    refused("table 'samples' has version 99", tables=tables | {"samples": tables["samples"] | {"version": 99}})
    refused("table 'evil' has version 1; .* no such table", tables=tables | {"evil": tables["samples"]})
    data = bytearray((tmp_path / "out" / "samples.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "out" / "samples.parquet").write_bytes(data)
    refused(r"samples\.parquet is not what was written: its SHA-256 differs")
    (tmp_path / "out" / "samples.parquet").unlink()
    refused(r"samples\.parquet is missing")
    index.unlink()
    with pytest.raises(BadInput, match=r"no finished export of format 'parquet': it has no toolkit-run\.json"):
        import_run(opened(tmp_path / "memory" / "new"), "parquet", tmp_path / "out")


def test_a_cut_off_parquet_import_goes_on(tmp_path: Path) -> None:
    run = make(tmp_path / "store", EXAMPLE, {"sample_meta": [{"sample": "z", "key": "k", "number": 1.0, "string": None}]})
    export_run(run, "parquet", tmp_path / "out")
    target = open_store(tmp_path / "new", create=True)
    rows = {name: run.store.read(name, ["key0"]) for name in run.steps[0].tables}
    target.commit(run.steps[0], rows)
    found = run_tables(target, import_run(target, "parquet", tmp_path / "out"))
    assert found.steps == run.steps
    same(run, found, "activations", "sample_meta")


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
        space(f"s{number}", layer) for number, layer in enumerate(draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)))
    ]
    rows = [
        fired(one["space"], each["sample"], position, entries)
        for one in spaces
        for each in samples
        for position in range(len(each["pieces"]))
        if (entries := draw(st.none() | st.dictionaries(st.integers(0, 11), VALUE, max_size=3))) is not None
    ]
    anchor = fired(spaces[0]["space"], names[0], len(samples[0]["pieces"]), {1: 1.0})
    ordered = [row | dict(zip(("features", "values"), _by_feature(row), strict=True)) for row in [*rows, anchor]]
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
        found = there_and_back(run, form, folder)
        same(run, found, "activations")
        used = {row["space"] for row in data["activations"]}
        there = {row["sample"] for row in data["activations"]}
        kept = [row for row in run.read("samples").to_pylist() if row["sample"] in there]
        assert [row for row in found.read("samples").to_pylist() if row["sample"] in there] == kept
        assert found.spaces == {id: row for id, row in run.spaces.items() if form == "parquet" or id in used}


@settings(max_examples=8)
@given(st.dictionaries(st.tuples(st.integers(0, 11), st.sampled_from(["m / a", "m / b", "plain"])), TEXT.filter(bool)))
def test_labels_come_back_from_neuronpedia_layout(labels: dict[tuple[int, str], str]) -> None:
    said = [label(feature, text, group) for (feature, group), text in labels.items()]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "memory"
        bare = {name: rows for name, rows in EXAMPLE.items() if name != "features"}
        run = make(folder / "store", {**bare, "features": [*said, label(0, "always", "m / c")]})
        export_run(run, "neuronpedia", folder / "out")
        other = make(folder / "other", bare)
        found = run_tables(other.store, import_run(other.store, "neuronpedia", folder / "out", run=other))
        same(run, found, "features")


# --- safetensors ---


def test_safetensors_in_coordinates(run: RunTables, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    export_run(run, "safetensors", tmp_path / "out", spaces=["s1"])
    (path,) = (tmp_path / "out").glob("*.safetensors")
    found = load_file(path)
    assert path.name == "google-gemma-2-2b-resid_post.20-layer_20-width_16k-average_l0_71.safetensors"
    assert found["indices"].tolist() == [[0, 0, 1, 2], [2, 11, 2, 10]]
    assert found["values"].tolist() == [0.5, 1.5, 4.0, 0.25]
    assert (found["sample"].tolist(), found["position"].tolist()) == ([0, 0, 1], [0, 2, 1])


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
        return lambda file: save_file({name: array for name, array in (good | arrays).items() if array is not None}, file)

    refused("no whole safetensors file", lambda file: file.write_bytes(b"no"))
    refused("is missing, though", lambda file: file.unlink())
    refused("has no tensor 'sample'", put(sample=None))
    refused("an index lies outside of 3 rows by 12 features", put(indices=np.full((2, 4), 12)))
    refused("an index lies outside", put(indices=np.full((2, 4), -1)))
    refused("`indices` must be", put(values=good["values"][:2]))
    refused("sample 9 is past the 2 lines", put(sample=np.full(3, 9, np.uint32)))
    refused("cannot be read as JSON lines", lambda file: (file.parent / "samples.jsonl").write_text("{"))


# --- npz ---


def test_rows_have_the_arrays_that_scripts_read(run: RunTables, tmp_path: Path) -> None:
    files = export_run(run, "rows", tmp_path / "out")
    assert [path.name for path in files] == [
        "layer_20_l0_71_activations.npz",
        "layer_20_l0_139_activations.npz",
        "layer_5_l0_68_activations.npz",
    ]
    found = np.load(files[0])
    assert found["activations"].shape == (3, 12)
    assert found["activations"][0, 11] == np.float32(1.5)
    assert found["fragments"].tolist() == ["One", "One two three", "x\n"]
    assert found["original_sentences"].tolist() == ["One two three", "One two three", "x\né"]
    assert np.nan_to_num(found["concept_strength_labels"], nan=-1).tolist() == [2.0, 2.0, -1.0]
    assert (found["sentence_indices"].tolist(), found["token_positions"].tolist()) == ([0, 0, 1], [0, 2, 1])
    assert (found["is_final_token"].tolist(), found["fragment_lengths"].tolist()) == ([False, True, False], [1, 3, 1])
    assert (int(found["layer"]), float(found["average_l0"]), int(found["num_features"])) == (20, 71.0, 12)


def test_rows_bring_back_labels_and_refuse_to_fill_the_memory(run: RunTables, tmp_path: Path) -> None:
    same(run, there_and_back(run, "rows", tmp_path / "memory"), "activations", "samples", "sample_meta")
    with pytest.raises(DataError, match=r"3 rows of 12 features are 144 bytes dense; at most 100 are written"):
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
    with pytest.raises(BadInput, match="does not say which model it is of"):
        import_run(run.store, "rows", tmp_path / "in")
    found = run_tables(run.store, import_run(run.store, "rows", tmp_path / "in", model="google/gemma-2-2b"))
    (row,) = found.spaces.values()
    assert (row["hookpoint"], row["width"], row["sae"]) == ("resid_post.3", 3, "imported/layer_3/average_l0_59")
    rows = [(row["sample"], row["position"], row["features"], row["values"]) for row in found.read("activations").to_pylist()]
    assert rows == [("sentence-000004", 1, [1], [2.5]), ("sentence-000007", 0, [0], [1.0])]
    assert found.samples["sentence-000004"]["text"] == "I am here."
    assert [row["number"] for row in found.read("sample_meta").to_pylist()] == [3.0, 0.0]


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
    with pytest.raises(DataError, match=r"`activations` is \(2, 3\); wanted \(2, 4\)"):
        import_run(run.store, "rows", folder, model="m")
    np.savez(path, **FOREIGN | {"fragments": np.array([object()])})
    with pytest.raises(DataError, match="cannot be read as a NumPy archive: Object arrays"):
        import_run(run.store, "rows", folder, model="m")


def test_tokens_have_a_folder_a_sample_and_a_file_a_layer(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "tokens", tmp_path / "out", spaces=["s1", "s3"])
    found = np.load(tmp_path / "out" / "a b" / "layer_20.npz")
    assert found["features"].shape == (3, 12)
    assert found["features"][2, 2] == np.float32(4)
    assert found["attention"].shape == (2, 3, 3)
    assert found["attention"][1, 2, 0] == np.float32(0.5)
    (path,) = (tmp_path / "out").glob("metadata_L5_20_*.json")
    (first, second) = json.loads(path.read_text())["scenarios"]
    assert (first["scenario"], first["tokens"], first["seq_len"]) == ("a b", ["One", " two", " three"], 3)
    assert first["key_positions"] == {"goal": [1, 2]}
    assert second["scenario"].startswith("sample-")
    same(run, there_and_back(run, "tokens", tmp_path / "memory" / "all"), "activations", "samples", "attention")


def foreign_tokens(folder: Path, **arrays: Any) -> Path:
    (folder / "Desperate_10").mkdir(parents=True)
    scenario = {"scenario": "Desperate_10", "tokens": ["<s>", "Slot", " 10"], "token_ids": [1, 2, 3], "seq_len": 3}
    known = {"n_scenarios": 1, "scenarios": [scenario | {"key_positions": {"balance": [1, 2]}}]}
    (folder / "metadata_L1_31_20251017.json").write_text(json.dumps(known))
    np.savez_compressed(folder / "Desperate_10" / "layer_15.npz", **arrays)
    return folder


def test_tokens_of_another_program(run: RunTables, tmp_path: Path) -> None:
    features, attention = np.eye(3, 5, dtype=np.float32), np.full((2, 3, 3), 0.5, np.float32)
    folder = foreign_tokens(tmp_path / "in", features=features, attention=attention)
    with pytest.raises(BadInput, match="--model meta-llama/Llama"):
        import_run(run.store, "tokens", folder)
    found = run_tables(run.store, import_run(run.store, "tokens", folder, model="meta-llama/Llama-3.1-8B"))
    assert [(row["position"], row["features"]) for row in found.read("activations").to_pylist()] == [(0, [0]), (1, [1]), (2, [2])]
    assert found.read("attention").num_rows == 18
    assert found.samples["Desperate_10"]["spans"] == [{"name": "balance", "start": 1, "end": 3}]
    alone = foreign_tokens(tmp_path / "alone", attention=attention)
    found = run_tables(run.store, import_run(run.store, "tokens", alone, model="m"))
    assert (found.read("attention").num_rows, found.read("activations").num_rows, found.spaces) == (18, 0, {})


def test_tokens_that_do_not_fit_are_refused(run: RunTables, tmp_path: Path) -> None:
    folder = foreign_tokens(tmp_path / "in", features=np.zeros((3, 5), np.float32), positions=np.array([3]))
    with pytest.raises(DataError, match="`positions` names a token outside of the 3 rows"):
        import_run(run.store, "tokens", folder, model="m")
    (folder / "metadata_2.json").write_text("{}")
    with pytest.raises(BadInput, match=r"must hold one metadata_\*\.json.*found metadata_2\.json, metadata_L1"):
        import_run(run.store, "tokens", folder, model="m")
    (folder / "metadata_L1_31_20251017.json").unlink()
    with pytest.raises(DataError, match="has no list `scenarios`"):
        import_run(run.store, "tokens", folder, model="m")
    (folder / "metadata_2.json").write_text('{"scenarios": []}')
    shutil.rmtree(folder / "Desperate_10")
    with pytest.raises(BadInput, match="holds no files such as"):
        import_run(run.store, "tokens", folder, model="m")


def test_tokens_need_layers(tmp_path: Path) -> None:
    rows = {"spaces": [space("s1", hookpoint="embedding")], "activations": [fired("s1", "a", 0, {1: 1.0})]}
    with pytest.raises(BadInput, match="is at no layer"):
        export_run(make(tmp_path / "memory" / "store", rows), "tokens", tmp_path / "out")


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
    assert (last["modelId"], last["layer"], last["maxActApprox"]) == ("gemma-2-2b", "20-gemmascope-res-16k", 4.0)
    assert (last["frac_nonzero"], sum(last["freq_hist_data_bar_heights"])) == (pytest.approx(2 / 3), 2)
    (activation,) = lines(folder / "activations" / "batch-1.jsonl.gz")
    assert (activation["tokens"], activation["values"]) == (["One", " two", " three"], [0.5, 0.0, 4.0])
    assert (activation["maxValue"], activation["maxValueTokenIndex"], activation["minValue"]) == (4.0, 2, 0.0)
    said = [(row["index"], row["description"], row["typeName"]) for row in lines(folder / "explanations" / "batch-1.jsonl.gz")]
    assert said == [("2", "counting words", "np_max-act"), ("2", "numbers", "np_max-act")]
    assert {path.name for path in folder.glob("*.jsonl")} == {"release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl"}
    assert (tmp_path / "out" / "v1" / "gemma-2-2b" / "20-gemmascope-res-16k__l0-139").is_dir()


def test_neuronpedia_gets_the_methods_and_models_that_labels_name(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "neuronpedia", tmp_path / "out")
    config = tmp_path / "out" / "v1" / "config"
    entered = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in config.iterdir()}
    assert {name: [row["name"] for row in found] for name, found in entered.items()} == {
        "explanation_type": ["np_max-act", "other"],
        "explanation_model_type": ["gpt"],
    }
    assert {frozenset(row) for found in entered.values() for row in found} == {
        frozenset(("name", "displayName", "description", "creatorName"))
    }
    explained = lines(tmp_path / "out" / "v1" / "gemma-2-2b" / "20-gemmascope-res-16k" / "explanations" / "batch-0.jsonl.gz")
    for column, name in (("typeName", "explanation_type"), ("explanationModelName", "explanation_model_type")):
        assert {row[column] for row in explained} - {None} == {row["name"] for row in entered[name]}
    export_run(run, "neuronpedia", tmp_path / "bare", spaces=["s3"])
    assert not (tmp_path / "bare" / "v1" / "config").exists()


def write_labels(folder: Path, *rows: Any, name: str = "20-gemmascope-res-16k") -> Path:
    path = folder / "v1" / "gemma-2-2b" / name / "explanations" / "batch-0.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return folder


def said(index: Any, text: str, **fields: Any) -> dict[str, Any]:
    row = {"id": "x", "modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": index, "description": text}
    return row | {"typeName": "np", "explanationModelName": "gpt"} | fields


def labels_of(run: RunTables) -> list[tuple[Any, ...]]:
    rows = [row for row in run_tables(run.store, run.id).read("features").to_pylist() if row["stat"] == "label"]
    return [(row["space"], row["feature"], row["group"], row["text"]) for row in rows]


def test_labels_are_known_by_model_source_and_index_alone(tmp_path: Path) -> None:
    run = make(tmp_path / "memory" / "store", {"spaces": EXAMPLE["spaces"]})
    rows = [
        said(3, "three", id="b"),
        said("3", "a number", id="c"),
        said("3", "three", id="d"),
        said("11", "eleven", layer="20-gemmascope-res-16k__l0-139", typeName="other", explanationModelName=None),
        said("1", "of another source", layer="7-gemmascope-res-16k"),
        said("1", "of another model", modelId="gpt2-small"),
        said("1", ""),
    ]
    import_run(run.store, "neuronpedia", write_labels(tmp_path / "in", *rows, name="misplaced"), run=run)
    wanted = [("s1", 3, "np / gpt", "three"), ("s1", 3, "np / gpt #2", "a number"), ("s2", 11, "other", "eleven")]
    assert labels_of(run) == wanted
    import_run(run.store, "neuronpedia", tmp_path / "in", run=run_tables(run.store, run.id))
    assert labels_of(run) == wanted


def test_labels_of_another_name_need_the_space(tmp_path: Path) -> None:
    run = make(tmp_path / "memory" / "store", {"spaces": EXAMPLE["spaces"][:1]})
    folder = write_labels(tmp_path / "in", said("1", "one", layer="20-mine"))
    with pytest.raises(
        BadInput, match=r"has labels of gemma-2-2b/20-mine, run run-1 has gemma-2-2b/20-gemmascope-res-16k\..*--source"
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
        said(1, "x"),
        {"modelId": 1, "layer": 2, "index": 3},
    )
    refused(r":1: .* index '-1'", said("-1", "x"))
    refused(r":1: .* index '٣'", said("٣", "x"))
    refused(r":1: .* no 'modelId'", [1])
    refused(r":1: feature 12 of .*, whose width here is 12", said(12, "x"))
    (tmp_path / "in" / "v1" / "gemma-2-2b" / "20-gemmascope-res-16k" / "explanations" / "batch-0.jsonl.gz").write_bytes(
        b"\x1f\x8bno"
    )
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
        BadInput, match=r"spaces s1 and s2 are both 'gemma-2-2b/20-gemmascope-res-16k' at Neuronpedia\. Export one"
    ):
        export_run(run, "neuronpedia", tmp_path / "out")
    with pytest.raises(BadInput, match="Say which is meant: --source 20-gemmascope-res-16k=SPACE"):
        import_run(run.store, "neuronpedia", write_labels(tmp_path / "in", said(1, "x")), run=run)


# --- lists ---


def test_lists_as_others_take_them(run: RunTables, tmp_path: Path) -> None:
    export_run(run, "lists", tmp_path / "out")
    quick = json.loads((tmp_path / "out" / "quick-list.json").read_text())
    assert quick == {"name": "exp", "features": [{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "2"}]}
    (plain,) = [path for path in (tmp_path / "out").iterdir() if path.name not in ("quick-list.json", "lists.json")]
    assert json.loads(plain.read_text()) == [2]
    import_run(run.store, "lists", tmp_path / "out", run=run)
    rows = [row for row in run_tables(run.store, run.id).read("features").to_pylist() if row["stat"] == "listed"]
    assert [(row["space"], row["feature"], row["group"], row["number"]) for row in rows] == [("s1", 2, "exp", 0.0)]


@settings(max_examples=8)
@given(st.lists(st.tuples(st.sampled_from(["s1", "s2", "s3"]), st.integers(0, 11)), min_size=1, max_size=6, unique=True))
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
        (folder / "my.json").write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises((BadInput, DataError), match=match):
            import_run(run.store, "lists", folder, run=run, **options)

    refused([1, 2], r"does not say of which space it is\. Name it: --space ID\. Spaces of run run-1: s1, s2, s3")
    refused([12], "there is no feature 12 in google/.*; its width is 12", space="s1")
    refused("[", "cannot be read as JSON")
    refused({"a": 1}, "is no feature list: wanted whole numbers")
    refused([True], "is no feature list")
    refused([{"modelId": "gemma-2-2b", "layer": "9-x", "index": "1"}], "No space here is Neuronpedia's 'gemma-2-2b/9-x'")
    refused([{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "x"}], "index 'x' is no whole number")
    (folder / "my.json").write_text("[3, 1]")
    import_run(run.store, "lists", folder, run=run, space="s2")
    rows = [row for row in run_tables(run.store, run.id).read("features").to_pylist() if row["stat"] == "listed"]
    assert [(row["space"], row["feature"], row["group"], row["number"]) for row in rows] == [
        ("s2", 1, "my", 1.0),
        ("s2", 3, "my", 0.0),
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="holds no lists"):
        import_run(run.store, "lists", tmp_path / "none", run=run)
    with pytest.raises(BadInput, match="has no rows in table 'features'"):
        export_run(make(tmp_path / "memory" / "bare", {"spaces": []}), "lists", tmp_path / "out")
