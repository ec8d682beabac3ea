"""`toolkit store`: what it finds wrong, what it tidies, and runs in other formats from the command
line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from toolkit._cli import query, store
from toolkit._cli.store import FORMATS
from toolkit._run.run_folder import store_folder
from toolkit.errors import BadInput, StoreNotUsable
from toolkit.ledger import key_of
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, interchange, open_store

K1 = key_of("{}")
"""The key of a step as `make_step` makes it."""
SAE = "layer_20/width_16k/average_l0_71"
SPACE = {
    "space": "s1",
    "model": "google/gemma-2-2b",
    "revision": "r",
    "hookpoint": "resid_post.20",
    "sae": SAE,
    "sae_hash": "h",
    "recipe": "j",
    "width": 12,
    "address": f"google/gemma-2-2b/resid_post.20/{SAE}",
}
SAMPLE = {
    "sample": "a1",
    "unit": "u",
    "cluster": "c",
    "text": "one two",
    "token_ids": [1, 2],
    "pieces": ["one", " two"],
    "spans": [],
    "prompt_hash": "h",
}
TABLES: Mapping[str, list[dict[str, Any]]] = {
    "samples": [SAMPLE],
    "spaces": [SPACE],
    "activations": [
        {"space": "s1", "sample": "a1", "position": 1, "features": [3, 7], "values": [0.5, 2.0]}
    ],
    "features": [
        {"space": "s1", "feature": 3, "stat": "d", "group": "x", "number": 0.5, "text": None}
    ],
}


def commit(opened: Store, key: str, tables: Mapping[str, list[dict[str, Any]]] = TABLES) -> None:
    row = make_step(key, run="run-1")
    opened.commit(
        row, {name: pa.Table.from_pylist(rows, arrow_schema(name)) for name, rows in tables.items()}
    )


@pytest.fixture
def opened(tmp_path: Path) -> Store:
    """A store with one run."""
    made = open_store(tmp_path / "store", create=True)
    commit(made, K1)
    made.record_run(
        run="run-1", name="exp", state="done", at="2026-01-02", done=1, total=1, steps=[K1]
    )
    (made.folder / "runs" / "run-1").mkdir()
    (made.folder / "runs" / "run-1" / "manifest.json").write_text(
        json.dumps({"run": "run-1", "stages": []})
    )
    return made


Say = Callable[..., Result]


@pytest.fixture
def say(opened: Store) -> Say:
    """The command on that store."""

    def run(*args: str | Path, at: Path | str = opened.folder) -> Result:
        return CliRunner().invoke(
            store.command, [*map(str, args), "--store", str(at)], catch_exceptions=False
        )

    return run


def test_the_command_offers_what_there_is() -> None:
    assert FORMATS == interchange.FORMATS


# --- keeping house ---


def test_a_whole_store_is_called_whole(say: Say) -> None:
    result = say("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "all are unchanged since they were written" in result.stdout
    facts = json.loads(say("check", "--json").stdout)
    assert facts["problems"] == []
    assert facts["files"] > 0


def test_a_store_at_a_uri(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = (tmp_path / "bucket" / "store").as_uri()
    assert say("export", "parquet", tmp_path / "out").exit_code == 0
    assert say("import", "parquet", tmp_path / "out", at=uri).stdout == "run run-1\n"
    lines = say("check", at=uri).stdout.splitlines()
    assert lines[1].startswith("note   1 step was imported, not computed here: parquet ")
    assert lines[2] == "no files to check; every step has the rows that it wrote"
    local = store_folder(uri)
    assert local == Path(f"toolkit-runs@{uri.replace(':', '%3A').replace('/', '%2F')}")
    assert json.loads((local / "runs" / "run-1" / "manifest.json").read_text())["run"] == "run-1"
    exported = [tmp_path / name / "activations.parquet" for name in ("out", "again")]
    assert say("export", "parquet", tmp_path / "again", at=uri).exit_code == 0
    assert exported[0].read_bytes() == exported[1].read_bytes()


def test_a_store_that_keeps_half_of_each_value_is_made_by_command(say: Say, tmp_path: Path) -> None:
    at = tmp_path / "half"
    assert say("init", "--values", "float16", at=at).stdout == f"{at} keeps values as float16\n"
    commit(
        open_store(at), K1, {"activations": [{**TABLES["activations"][0], "values": [0.1, 2.0]}]}
    )
    (values,) = open_store(at).read("activations", [K1])["values"].to_pylist()
    assert values == [pytest.approx(0.1, rel=1e-3), 2.0]
    assert values[0] != pa.scalar(0.1, pa.float32()).as_py()
    assert say("init", at=at).stdout == f"{at} keeps values as float16\n"
    with pytest.raises(StoreNotUsable, match="keeps values as float16, not as float32"):
        say("init", "--values", "float32", at=at)
    assert say("init", at=tmp_path / "plain").stdout.endswith("keeps values as float32\n")


def test_one_flipped_bit_is_found_and_the_file_named(opened: Store, say: Say) -> None:
    path = max(
        (opened.folder / "tables" / "activations.lance").rglob("*.lance"),
        key=lambda file: file.stat().st_size,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    result = say("check")
    assert result.exit_code == 3
    assert str(path) in result.stdout
    assert result.stdout.startswith("WRONG  ")
    assert "Restore these files from a copy" in result.stderr
    assert len(json.loads(say("check", "--json").stdout)["problems"]) == 1


def test_gc_removes_what_no_step_owns(opened: Store, say: Say) -> None:
    commit(
        opened, "k2", {"sample_meta": [{"sample": "a1", "key": "k", "number": 1.0, "string": None}]}
    )
    opened.database.delete("steps", "key = 'k2'")
    result = say("gc")
    assert result.stdout.splitlines()[:2] == [
        "TABLE        ROWS REMOVED",
        "sample_meta             1",
    ]
    assert json.loads(say("gc", "--json").stdout)["rows"] == {}
    assert opened.read("activations", [K1]).num_rows == 1


def test_decoders_are_kept_layer_by_layer(
    opened: Store, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = (2, 10, 0, 3)
    spaces = [
        SPACE
        | {"space": f"s{at}", "hookpoint": f"resid_post.{at}", "address": f"m/resid_post.{at}/x"}
        for at in layers
    ]
    opened.commit(
        make_step("k2", run="run-2"),
        {"spaces": pa.Table.from_pylist(spaces, arrow_schema("spaces"))},
    )
    opened.record_run(
        run="run-2", name="exp", state="done", at="2026-01-03", done=1, total=1, steps=["k2"]
    )
    (opened.folder / "runs" / "run-2").mkdir()
    (opened.folder / "runs" / "run-2" / "manifest.json").write_text(
        json.dumps({"run": "run-2", "stages": []})
    )
    monkeypatch.setattr(
        "toolkit._cli._decoders.find_decoder", lambda *_: SimpleNamespace(width=12, rows=None)
    )
    monkeypatch.setattr("toolkit_store.index.projections.project", lambda *_, **__: True)
    done = say("project", "--run", "run-2")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        f"m/resid_post.{at}/x" for at in sorted(layers)
    ]


def test_compact_loses_nothing(opened: Store, say: Say) -> None:
    for number in range(3):
        commit(
            opened,
            f"more{number}",
            {"sample_meta": [{"sample": "a1", "key": "k", "number": 1.0, "string": None}]},
        )
    result = say("compact")
    assert result.exit_code == 0
    assert "files fewer" in result.stdout
    assert set(json.loads(say("compact", "--json").stdout)) == {"rows", "files", "bytes"}
    assert opened.read("sample_meta", ["more0", "more1", "more2"]).num_rows == 3
    assert say("check").exit_code == 0


def test_what_is_no_store_is_refused(say: Say, tmp_path: Path) -> None:
    for name in ("check", "compact", "gc"):
        with pytest.raises(StoreNotUsable, match="There is no store at"):
            say(name, at=tmp_path / "nowhere")


# --- formats ---


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_goes_out_and_comes_in(
    opened: Store, say: Say, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "out"
    options = ["--feature", "20/3", "--name", "mine"] if form == "lists" else []
    if form == "neuronpedia":
        labels = [
            {
                "space": "s1",
                "feature": 3,
                "stat": "label",
                "group": "np / gpt",
                "number": None,
                "text": "threes",
            }
        ]
        commit(opened, "k3", {"features": labels})
        opened.record_run(
            run="run-1",
            name="exp",
            state="done",
            at="2026-01-03",
            done=2,
            total=2,
            steps=[K1, "k3"],
        )
    exported = say("export", form, out, "--run", "run", *options)
    assert exported.exit_code == 0
    assert exported.stdout.startswith("run run-1: ")
    attached = form in ("neuronpedia", "lists")
    target = opened.folder if attached else tmp_path / "other"
    took = say("import", form, out, at=target)
    assert took.exit_code == 0
    run = took.stdout.split()[1]
    answers = CliRunner().invoke(
        query.command,
        ["top", "20/7", "--json", "--run", run, "--store", str(target)],
        catch_exceptions=False,
    )
    assert [(row["sample"], row["token"], row["value"]) for row in json.loads(answers.stdout)] == [
        ("a1", " two", 2.0)
    ]


def test_an_imported_run_has_its_index(say: Say, tmp_path: Path) -> None:
    say("export", "safetensors", tmp_path / "out")
    run = say("import", "safetensors", tmp_path / "out", at=tmp_path / "other").stdout.split()[1]
    result = open_store(tmp_path / "other", read_only=True)
    (state,) = result.run_states(run)
    assert result.index_steps([row.key for row in result.steps(state.steps)]) != []
    assert open_store(tmp_path / "other").index(state.steps, run=run) == 0


def test_spaces_are_named_by_address_or_id(say: Say, tmp_path: Path) -> None:
    for number, name in enumerate(("s1", SPACE["address"])):
        assert (
            say("export", "safetensors", tmp_path / str(number), "--space", str(name)).exit_code
            == 0
        )
    with pytest.raises(BadInput, match="has no space 's2'"):
        say("export", "safetensors", tmp_path / "no", "--space", "s2")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["export", "parquet", "out", "--space", "s1"],
            "--space does not apply to format 'parquet'; it is for safetensors, rows,",
        ),
        (
            ["export", "rows", "out", "--feature", "20/3"],
            "--feature does not apply to format 'rows'; it is for lists.",
        ),
        (
            ["export", "tokens", "out", "--samples", "3"],
            "--samples does not apply to format 'tokens'; it is for neuronpedia.",
        ),
        (
            ["import", "parquet", "out", "--model", "m"],
            "--model does not apply to format 'parquet'; it is for rows, tokens.",
        ),
        (
            ["import", "rows", "out", "--run", "r"],
            "--run does not apply to format 'rows'; it is for neuronpedia, lists.",
        ),
        (["import", "neuronpedia", ".", "--source", "x"], "--source x: write SOURCE=SPACE"),
        (["import", "csv", "out"], "'csv' is not one of 'parquet'"),
    ],
)
def test_options_of_other_formats_are_refused(say: Say, args: list[str], message: str) -> None:
    result = say(*args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_source_is_mapped_to_a_space(opened: Store, say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "explanations"
    folder.mkdir(parents=True)
    row = {
        "modelId": "gemma-2-2b",
        "layer": "20-mine",
        "index": 7,
        "description": "sevens",
        "typeName": "t",
    }
    (folder / "batch-0.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadInput, match="If they are the same space, say so: --source SOURCE=SPACE"):
        say("import", "neuronpedia", tmp_path / "in")
    assert say("import", "neuronpedia", tmp_path / "in", "--source", "20-mine=s1").exit_code == 0
    row = {
        "address": "20/7",
        "stage": "import.neuronpedia",
        "contrast": None,
        "label": "sevens",
    }
    assert features(opened, "--stage", "import.neuronpedia") == [row]


def features(opened: Store, *args: str) -> list[dict[str, Any]]:
    asked = ["features", *args, "--json", "--store", str(opened.folder)]
    result: list[dict[str, Any]] = json.loads(
        CliRunner().invoke(query.command, asked, catch_exceptions=False).stdout
    )
    return result


def test_a_label_stands_beside_what_was_measured(opened: Store, say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "explanations"
    folder.mkdir()
    rows = [
        {
            "modelId": "gemma-2-2b",
            "layer": "20-mine",
            "index": str(index),
            "description": f"label {index}",
        }
        for index in (3, 7)
    ]
    (folder / "batch-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    say("import", "neuronpedia", tmp_path, "--source", "20-mine=s1")
    (row,) = features(opened, "--stat", "d", "--stat", "label")
    assert row == {"address": "20/3", "stage": "s", "contrast": "x", "d": 0.5, "label": "label 3"}
    asked = ["coactive", "20/3", "--json", "--store", str(opened.folder)]
    (other,) = json.loads(CliRunner().invoke(query.command, asked, catch_exceptions=False).stdout)
    assert (other["address"], other["label"]) == ("20/7", "label 7")


@pytest.mark.parametrize("words", [("runs",), ("run", "spec.yaml")])
def test_an_empty_store_is_refused(toolkit, words):
    result = toolkit.run(*words, "--store", "")
    assert result.returncode == 2
    assert "--store is empty. Name a folder or a URI" in result.stderr
