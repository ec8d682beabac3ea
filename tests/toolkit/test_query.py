"""`toolkit query` on a small store: a finished run, one that goes on, one that only compares toys, and one without rows."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import _plugins
from toolkit._cli import _answers, _around, _feature_rows, _query_run, query, status
from toolkit._cli import store as store_command
from toolkit.errors import BadInput, PluginError, ToolkitError
from toolkit.files import content_digest
from toolkit.records import StagePart
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store
from toolkit_store.database import Database

STAGES = [
    {"id": "prompts", "part": "count", "writes": ["samples", "sample_meta"]},
    {"id": "extract", "part": "extract.activations", "writes": ["activations", "spaces"]},
    {"id": "groups", "part": "compare.welch", "writes": ["features"]},
    {"id": "cause", "part": "patch.delta", "writes": ["effects", "features"]},
]
WORDS = [f"word{number}" for number in range(40)]
CONTRAST = "lost vs won"


def space(id: str, layer: int, sae: str) -> dict[str, Any]:
    base = {"space": id, "model": "m/gpt", "revision": "r", "hookpoint": f"resid_post.{layer}", "sae": sae, "sae_hash": "h"}
    return base | {"recipe": "topk", "width": 100, "address": f"m/gpt/resid_post.{layer}/{sae}"}


def text(name: str, text: str, pieces: list[str]) -> dict[str, Any]:
    row = {"sample": name, "unit": f"unit of {name}", "cluster": name, "text": text, "token_ids": list(range(len(pieces)))}
    return row | {"pieces": pieces, "spans": [], "prompt_hash": name}


def fired(space: str, sample: str, position: int, **values: float) -> dict[str, Any]:
    features = [int(name[1:]) for name in values]
    return {"space": space, "sample": sample, "position": position, "features": features, "values": list(values.values())}


def stat(feature: int, stat: str, group: str, number: float | None, text: str | None = None, space: str = "s1") -> dict[str, Any]:
    return {"space": space, "feature": feature, "stat": stat, "group": group, "number": number, "text": text}


def compared(feature: int, d: float, q: float | None, significant: bool, space: str = "s1") -> list[dict[str, Any]]:
    found = {"d": d, "t": d * 2, "df": 9.5, "p": q and q / 10, "q": q, "significant": float(significant)}
    rows = [stat(feature, name, CONTRAST, number, space=space) for name, number in found.items()]
    rows += [stat(feature, "mean", group, d + at, "4 samples in 4 clusters", space) for at, group in enumerate(("lost", "won"))]
    return [*rows, stat(feature, "density", "lost", 0.25, space=space), stat(feature, "fired", "", 12345.0, space=space)]


def effect(feature: int, sample: str, arm: str, effect: float | None, q: float | None, space: str = "s1") -> dict[str, Any]:
    row = {"space": space, "feature": feature, "sample": sample, "arm": arm, "outcome": "stop", "probability": 0.123456}
    return row | {"effect": effect, "low": None, "high": None, "p": q, "q": q, "kl": 0.5}


SAMPLES = [
    text("a1", "one two three", ["one", " two", " three"]),
    text("a2", "line\nnext\x1b[31m", ["line", "\n", "next", "\x1b[31m"]),
    text("a3", " ".join(WORDS), WORDS),
]
FIRED = [
    fired("s1", "a1", 0, f5=1.0, f7=0.5),
    fired("s1", "a1", 2, f5=3.0),
    fired("s1", "a2", 1, f5=2.0),
    fired("s1", "a3", 20, f5=0.25),
    fired("s2", "a1", 2, f5=9.0, f6=0.125),
    fired("s3", "a1", 2),
]
SPACES = [space("s1", 2, "sparse"), space("s2", 9, "thin"), space("s3", 9, "thick")]
FEATURES = [
    *(row for feature in range(30, 60) for row in compared(feature, -0.5, None, False)),
    *compared(5, 0.75, 0.01, True),
    *compared(7, -1.25, 0.01, True),
    *compared(8, 0.1, 0.9, False),
    *compared(6, 0.2, 0.5, False, "s2"),
]
OTHER = [row | {"group": "early vs late"} for row in compared(5, 0.3, 0.4, False)[:6]]
VERDICTS = [stat(5, "verdict", "stop", 1.0, "drives stop"), stat(99, "verdict", "stop", 0.0, "no effect")]
EFFECTS = [
    effect(5, "*", "zero", 0.25, 0.001),
    effect(5, "*", "sham", 0.0, 0.9),
    effect(7, "*", "zero", -0.5, 0.9),
    effect(5, "a1", "zero", 0.3, None),
    effect(5, "a2", "zero", None, None),
    effect(0, "*", "clean", None, None, space=""),
]
TOY = [stat(feature, "toy_mean", group, float(feature)) for feature in (1, 2) for group in ("even", "odd")]


def commit(store: Store, key: str, stage: str, run: str, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    row = make_step(key, stage=stage, run=run)
    store.commit(row, {name: pa.Table.from_pylist(rows, schema=arrow_schema(name)) for name, rows in tables.items()})


def begin(store: Store, run: str, at: str, state: str, steps: list[str], stages: list[dict[str, Any]] | None) -> None:
    store.record_run(run=run, name=run, state=state, at=at, done=len(steps), total=7, steps=steps)
    folder = store.folder / "runs" / run
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"run": run, "stages": stages or []}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by all tests, written by none."""
    store = open_store(tmp_path_factory.mktemp("query") / "store", create=True)
    with store.writer():
        commit(store, "k1", "prompts", "full-1", {"samples": SAMPLES})
        commit(store, "k2", "extract", "full-1", {"activations": FIRED[:3], "spaces": SPACES})
        commit(store, "k3", "extract", "full-1", {"activations": FIRED[2:], "spaces": SPACES})
        commit(store, "k4", "groups", "full-1", {"features": [*FEATURES, *OTHER]})
        commit(store, "k5", "cause", "full-1", {"features": VERDICTS, "effects": EFFECTS})
        commit(store, "k6", "means", "toy-1", {"features": TOY, "spaces": SPACES[:1]})
        commit(store, "k7", "groups", "none-1", {})
        begin(store, "none-1", "2026-01-01", "done", ["k7"], [STAGES[2], STAGES[3]])
        begin(store, "toy-1", "2026-01-02", "done", ["k6"], [{"id": "means", "part": "compare.means", "writes": ["features"]}])
        begin(store, "part-1", "2026-01-03", "interrupted", ["k1", "k2", "never"], STAGES)
        begin(store, "full-1", "2026-01-04", "done", ["k1", "k2", "k3", "k4", "k5"], STAGES)
    events = [{"at": "2026-01-03", "event": "step_done", "key": "k1", "stage": "prompts"}]
    (store.folder / "runs" / "part-1" / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return store.folder


def ask(folder: Path, *args: str, run: str = "full-1") -> Result:
    result = CliRunner().invoke(query.command, [*args, "--store", str(folder), "--run", run], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def rows(folder: Path, *args: str, run: str = "full-1") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ask(folder, *args, "--json", run=run).stdout)
    return found


def refused(folder: Path, *args: str, message: str, run: str = "full-1") -> None:
    with pytest.raises(BadInput, match=message):
        ask(folder, *args, run=run)


# --- top ---


@pytest.mark.parametrize("address", ["2/5", "L2-5", "m/gpt/resid_post.2/sparse:5", "s1:5"])
def test_top_shows_where_a_feature_fires_hardest(folder: Path, address: str) -> None:
    found = rows(folder, "top", address)
    assert [(row["sample"], row["position"], row["token"], row["value"]) for row in found] == [
        ("a1", 2, " three", 3.0),
        ("a2", 1, "\n", 2.0),
        ("a1", 0, "one", 1.0),
        ("a3", 20, "word20", 0.25),
    ]
    assert found[0]["unit"] == "unit of a1"
    assert [row["text"] for row in found[:3]] == ["one two[ three]", "line[↵]next·[31m", "[one] two three"]
    assert found[3]["text"] == f"…{' '.join(WORDS[4:20])} [word20] {' '.join(WORDS[21:29])}…"


def test_top_is_cut_at_k_and_says_so(folder: Path) -> None:
    result = ask(folder, "top", "2/5", "--k", "1")
    assert result.stdout.splitlines() == [
        "sample  position  token   value  unit        text",
        "a1             2   three      3  unit of a1  one two[ three]",
    ]
    assert result.stderr == "1 of 4 rows; more: --k N\n"


def test_top_marks_brightly_in_a_terminal_and_only_in_its_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (query, _around):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    result = CliRunner().invoke(query.command, ["top", "2/5", "--store", str(folder), "--run", "full-1"], color=True)
    assert "one two\x1b[1m\x1b[7m three\x1b[0m" in result.stdout
    assert rows(folder, "top", "2/5")[0]["text"] == "one two[ three]"


def test_top_of_a_feature_that_never_fires(folder: Path) -> None:
    result = ask(folder, "top", "2/99")
    assert result.stdout == ""
    assert "Feature 2/99 fires at no position whose activations run full-1 has kept." in result.stderr


def test_top_refuses_what_does_not_exist(folder: Path) -> None:
    refused(folder, "top", "9/5", message=r"may mean 2 features: m/gpt/resid_post.9/thin:5, m/gpt/resid_post.9/thick:5")
    refused(folder, "top", "3/5", message=r"no space at layer 3 here\. Layers: 2, 9")
    refused(folder, "top", "2/100", message="its width is 100")
    refused(folder, "top", "five", message="is no address of a feature")


def test_a_table_that_no_stage_writes_names_the_parts_that_would(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = StagePart(name="extract.all", help="h", run=lambda work: iter(()), reads=(), writes=("activations",))
    monkeypatch.setattr(_plugins, "load_parts", lambda: _plugins.Parts([_plugins.PluginInfo("p", "", "", parts=(part,))]))
    said = "Table 'activations' has no rows in run toy-1. No stage of this run writes it. Parts that do: extract.all.\n"
    assert ask(folder, "top", "2/5", run="toy-1").stderr == said


def test_a_broken_plugin_does_not_keep_a_run_from_being_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise PluginError("broken")

    monkeypatch.setattr(_plugins, "load_parts", broken)
    assert "Parts that do: toolkit plugins says why" in ask(folder, "top", "2/5", run="toy-1").stderr


# --- sample ---


def test_sample_shows_its_features_by_value_and_once(folder: Path) -> None:
    found = rows(folder, "sample", "a1")
    assert [(row["address"], row["position"], row["token"], row["value"]) for row in found] == [
        ("m/gpt/resid_post.9/thin:5", 2, " three", 9.0),
        ("2/5", 2, " three", 3.0),
        ("2/5", 0, "one", 1.0),
        ("2/7", 0, "one", 0.5),
        ("m/gpt/resid_post.9/thin:6", 2, " three", 0.125),
    ]
    assert len(rows(folder, "sample", "a2")) == 1
    assert [row["value"] for row in rows(folder, "sample", "a1", "--position", "0")] == [1.0, 0.5]


def test_sample_says_why_nothing_is_shown(folder: Path) -> None:
    assert "at position 1 of sample 'a1'. Kept positions: 0, 2." in ask(folder, "sample", "a1", "--position", "1").stderr
    assert "No activations of sample 'a3' are kept in run part-1" in ask(folder, "sample", "a3", run="part-1").stderr
    assert "Table 'samples' has no rows in run toy-1" in ask(folder, "sample", "a1", run="toy-1").stderr


def test_sample_refuses_what_does_not_exist(folder: Path) -> None:
    refused(folder, "sample", "b2", message=r"no sample 'b2'\. Did you mean 'a2'\? It has 3, such as a1, a2, a3\.")
    refused(folder, "sample", "a1", "--position", "3", message=r"sample 'a1' has 3 tokens \(0 to 2\)")


@pytest.fixture(scope="module")
def bets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample with spans, kept at four of its tokens in two layers."""
    store = open_store(tmp_path_factory.mktemp("bets") / "store", create=True)
    pieces = ["You", " bet", " $", "100", " of", " $", "1000", "."]
    spans = [
        {"name": "balance", "start": 5, "end": 7},
        {"name": "bet", "start": 2, "end": 4},
        {"name": "bet", "start": 7, "end": 8},
    ]
    there = [text("a1", "".join(pieces), pieces) | {"spans": spans}]
    found = [fired(id, "a1", at, **{f"f{at}": 1.0 + at}) for id in ("s1", "s2") for at in (2, 3, 6)]
    tables = {"samples": there, "spaces": SPACES, "activations": [*found, fired("s1", "a1", 7)]}
    commit(store, "k1", "extract", "full-1", tables)
    begin(store, "full-1", "2026-01-04", "done", ["k1"], STAGES)
    return store.folder


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["--token", "$100", "--layer", "2"], ["2/3", "2/2"]),
        (["--token", "100", "--space", "s1"], ["2/3"]),
        (["--token", "$1000"], ["2/6", "m/gpt/resid_post.9/thin:6"]),
        (["--token", "$", "--layer", "2"], ["2/2"]),
        (["--span", "bet", "--layer", "2"], ["2/3", "2/2"]),
        (["--span", "bet", "--token", "$", "--layer", "2"], ["2/2"]),
        (["--span", "balance", "--position", "6", "--layer", "2"], ["2/6"]),
        (["--layer", "9", "--position", "3"], ["m/gpt/resid_post.9/thin:3"]),
        (["--space", "m/gpt/resid_post.9/thin", "--k", "1"], ["m/gpt/resid_post.9/thin:6"]),
    ],
    ids=" ".join,
)
def test_sample_at_words_a_span_a_layer_or_a_space(bets: Path, args: list[str], wanted: list[str]) -> None:
    assert [row["address"] for row in rows(bets, "sample", "a1", *args)] == wanted


def test_sample_at_places_says_why_nothing_is_shown_and_refuses_what_is_not_there(bets: Path) -> None:
    assert ask(bets, "sample", "a1", "--token", "You bet").stderr == (
        "No activations are kept at positions 0, 1 of sample 'a1'. Kept positions: 2, 3, 6, 7.\n"
    )
    assert ask(bets, "sample", "a1", "--token", ".").stderr == "No feature is active on sample 'a1' at position 7.\n"
    assert (
        "kept at position 7 of sample 'a1' in these spaces. Kept"
        in ask(bets, "sample", "a1", "--token", ".", "--space", "s2").stderr
    )
    thick = ("--space", "m/gpt/resid_post.9/thick")
    assert ask(bets, "sample", "a1", *thick).stderr == "No activations of sample 'a1' are kept in run full-1 in these spaces.\n"
    refused(bets, "sample", "a1", "--token", "10", message="--token '10': sample 'a1' has no such words")
    refused(bets, "sample", "a1", "--token", "", message="--token '': sample 'a1' has no such words")
    refused(bets, "sample", "a1", "--span", "bets", message=r"no such span\. Did you mean 'bet'\? Its spans: balance, bet\.")
    refused(bets, "sample", "a1", "--span", "bet", "--position", "6", message="no token that is in all of the places asked for")
    refused(bets, "sample", "a1", "--layer", "3", message="no space at layer 3")


@settings(max_examples=100)
@given(st.lists(st.text("ab $", min_size=1, max_size=3), min_size=1, max_size=8), st.data())
def test_every_token_is_found_by_its_own_words(pieces: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(pieces) - 1))
    assert at in _around.places_of(pieces[at], "".join(pieces), pieces)
    assert _around.places_of("c", "".join(pieces), pieces) == []


# --- tokens ---


def test_tokens_show_where_a_feature_fires(folder: Path) -> None:
    found = rows(folder, "tokens", "2/5", "a1")
    assert found == [{"position": 0, "token": "one", "value": 1.0}, {"position": 2, "token": " three", "value": 3.0}]
    assert [row["value"] for row in rows(folder, "tokens", "2/5", "a1", "--all")] == [1.0, None, 3.0]
    assert ask(folder, "tokens", "2/5", "a1").stdout.splitlines() == [
        "[one] two[ three]",
        "position  token   value",
        "       0  one         1",
        "       2   three      3",
    ]
    assert ask(folder, "tokens", "2/5", "a2").stdout.splitlines()[0] == "line[↵]next·[31m"


def test_tokens_are_brighter_where_the_feature_is_stronger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (query, _around):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    args = ["tokens", "2/5", "a1", "--store", str(folder), "--run", "full-1"]
    shown = CliRunner().invoke(query.command, args, color=True).stdout.splitlines()[0]
    assert shown == "\x1b[1m\x1b[4m\x1b[27mone\x1b[0m two\x1b[1m\x1b[4m\x1b[7m three\x1b[0m"


def test_tokens_say_why_nothing_is_shown(folder: Path) -> None:
    assert "does not fire on sample 'a1'. Kept positions: 0, 2." in ask(folder, "tokens", "2/99", "a1").stderr
    assert (
        "No activations of sample 'a3' are kept in run full-1 in the space of s2:5." in ask(folder, "tokens", "s2:5", "a3").stderr
    )
    assert "Table 'samples' has no rows in run toy-1" in ask(folder, "tokens", "2/5", "a1", run="toy-1").stderr
    refused(folder, "tokens", "2/5", "b2", message="no sample 'b2'")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text("ab \n", max_size=4), st.none() | st.sampled_from([0.0, 1.0])), max_size=12))
def test_shading_keeps_the_text(tokens: list[tuple[str, float | None]]) -> None:
    pieces = [piece for piece, _ in tokens]
    shown = _around.shaded("".join(pieces), pieces, [value for _, value in tokens], False)
    assert shown.replace("[", "").replace("]", "") == "".join(pieces).replace("\n", "↵")
    assert shown.count("[") == sum(bool(piece and value) for piece, value in tokens)


# --- coactive, diff ---


def test_coactive_shows_what_fires_at_the_same_places(folder: Path) -> None:
    (row,) = rows(folder, "coactive", "2/5")
    assert (row["address"], row["both"], row["count"], row["jaccard"]) == ("2/7", 1, 1, 0.25)
    assert "No other feature fires where 2/99 does" in ask(folder, "coactive", "2/99").stderr
    assert "Table 'activations' has no rows in run toy-1" in ask(folder, "coactive", "2/5", run="toy-1").stderr


def ask_diff(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(query.command, ["diff", *args, "--store", str(folder)], catch_exceptions=False)


def test_diff_compares_each_feature_with_itself(folder: Path) -> None:
    found = json.loads(ask_diff(folder, "part-1", "full", "--json").stdout)
    assert [(row["address"], row["count_a"], row["count_b"]) for row in found] == [
        ("m/gpt/resid_post.9/thin:5", 0, 1),
        ("m/gpt/resid_post.9/thin:6", 0, 1),
        ("2/7", 1, 1),
    ]
    assert found[2]["change"] == pytest.approx(1 / 3 - 1 / 2)
    assert json.loads(ask_diff(folder, "full-1", "full-1", "--json").stdout) == []
    assert "in as large a share of samples in run full-1 as in run full-1" in ask_diff(folder, "full-1", "full-1").stderr
    assert len(json.loads(ask_diff(folder, "part-1", "full-1", "--json", "--layer", "2").stdout)) == 1


@pytest.fixture
def begun(folder: Path, tmp_path: Path) -> Path:
    """The store with a run that uses steps of others, has entered one state or none, and is known by its journal alone."""
    shutil.copytree(folder, tmp_path / "store")
    for run in ("begun-1", "begun-2"):
        at = tmp_path / "store" / "runs" / run
        at.mkdir()
        (at / "manifest.json").write_text(json.dumps({"run": run, "stages": STAGES}))
        events = [{"at": "2026-01-05", "event": "step_done", "key": key, "stage": "extract"} for key in ("k1", "k2")]
        (at / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    open_store(tmp_path / "store").record_run(run="begun-2", name="begun", state="running", at="2026-01-05")
    return tmp_path / "store"


@pytest.mark.parametrize("run", ["begun-1", "begun-2"])
def test_diff_of_a_run_that_goes_on_is_about_what_its_journal_names(begun: Path, run: str) -> None:
    found = json.loads(ask_diff(begun, "part-1", "full-1", "--json").stdout)
    assert found
    assert json.loads(ask_diff(begun, run, "full-1", "--json").stdout) == found
    assert "partial: run" in ask_diff(begun, "full-1", run).stderr


def test_diff_refuses_runs_without_a_common_space(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no space 's9' here"):
        ask_diff(folder, "part-1", "full-1", "--space", "s9")
    store = open_store(tmp_path / "new", create=True)
    for name, spaces, fires in (("one", SPACES[:1], FIRED[:1]), ("two", SPACES[1:2], FIRED[4:5])):
        commit(store, name, "extract", name, {"spaces": spaces, "activations": fires})
        begin(store, name, "2026-01-01", "done", [name], STAGES)
    message = r"cannot be compared by their numbers\. run one: m/gpt/resid_post\.2/sparse; run two: m/gpt/resid_post\.9/thin"
    with pytest.raises(BadInput, match=message):
        ask_diff(store.folder, "one", "two")
    assert "Table 'activations' has no rows in run toy-1" in ask_diff(folder, "full-1", "toy-1").stderr


# --- similar ---


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose run names SAE files that are there: feature 1 points as 0 does, 2 elsewhere, 3 the other way."""
    folder = tmp_path_factory.mktemp("decoders")
    at = folder / "saes" / "layer_2" / "width_4" / "average_l0_1"
    at.mkdir(parents=True)
    rows = np.array([[1, 0], [2, 0], [0, 1], [-1, 0]], np.float32)
    np.savez(at / "params.npz", W_dec=rows)
    name = "layer_2/width_4/average_l0_1"
    digest = content_digest({"params.npz": at / "params.npz"})
    known = space("s1", 2, name) | {"sae_hash": digest, "width": 4}
    store = open_store(folder / "store", create=True)
    commit(store, "k", "extract", "r", {"spaces": [known, known | {"space": "s2", "sae_hash": "other"}]})
    begin(store, "r", "2026-01-01", "done", ["k"], STAGES)
    (folder / "specs").mkdir()
    manifest = {"run": "r", "stages": STAGES, "spec_path": str(folder / "specs" / "x.yaml")}
    manifest["spec"] = {"saes": {"uses": "gemma_scope", "with": {"path": "../saes", "width": "4"}}}
    (store.folder / "runs" / "r" / "manifest.json").write_text(json.dumps(manifest))
    return store.folder


def test_similar_reads_the_files_that_the_spec_names(decoders: Path) -> None:
    found = rows(decoders, "similar", "s1:0", run="r")
    prefix = "s1:"
    assert [(row["address"], row["cosine"]) for row in found] == [(f"{prefix}1", 1.0), (f"{prefix}2", 0.0), (f"{prefix}3", -1.0)]
    assert ask(decoders, "similar", "s1:0", "--k", "1", run="r").stderr == "1 of 3 rows; more: --k N\n"


def test_similar_says_where_it_looked_and_what_to_do(decoders: Path, tmp_path: Path) -> None:
    refused(
        decoders,
        "similar",
        "s2:0",
        run="r",
        message="are not those that the run used: their hash differs. Name the folder .* --saes",
    )
    refused(decoders, "similar", "s1:0", "--saes", str(tmp_path), run="r", message="There is no file .*params.npz.*--saes FOLDER")
    refused(decoders, "similar", "s1:9", run="r", message="its width is 4")
    moved = tmp_path / "moved"
    shutil.copytree(decoders.parent, moved)
    shutil.rmtree(moved / "saes")
    manifest = moved / "store" / "runs" / "r" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(decoders.parent), str(moved)))
    refused(moved / "store", "similar", "s1:0", run="r", message=r"there is nothing at .*saes.*--saes FOLDER")
    found = rows(moved / "store", "similar", "s1:0", "--saes", str(decoders.parent / "saes"), run="r")
    assert len(found) == 3
    manifest.write_text("{}")
    refused(moved / "store", "similar", "s1:0", run="r", message="spec names no SAEs whose decoder can be read without torch")


def test_similar_without_the_files_uses_projections_and_says_so(decoders: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(decoders.parent, moved)
    manifest = moved / "store" / "runs" / "r" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(decoders.parent), str(moved)))
    project = [*("project", "--run", "r", "--store", str(moved / "store")), "--space", "s1"]
    assert [CliRunner().invoke(store_command.command, project).stdout for _ in range(2)] == [
        "m/gpt/resid_post.2/layer_2/width_4/average_l0_1: 4 features\n",
        "m/gpt/resid_post.2/layer_2/width_4/average_l0_1: they are there already\n",
    ]
    exact = rows(moved / "store", "similar", "s1:0", run="r")
    shutil.rmtree(moved / "saes")
    found = ask(moved / "store", "similar", "s1:0", "--json", run="r")
    assert json.loads(found.stdout) == exact
    assert found.stderr.startswith("from projections of 2 numbers a feature, cosines to about 0.71: the SAE files are not here.")
    refused(moved / "store", "similar", "s2:0", run="r", message="toolkit store project keeps projections of them in the store")
    with pytest.raises(
        BadInput, match=r"Name the folder that holds the SAEs: --saes FOLDER\. Layouts that can be read: [a-z_, ]+\.$"
    ):
        CliRunner().invoke(store_command.command, [*project[:-1], "s2"], catch_exceptions=False)


# --- sql ---


def test_sql_asks_the_tables_of_the_run(folder: Path) -> None:
    statement = "SELECT space, count(*) AS n FROM activations GROUP BY space ORDER BY space"
    assert rows(folder, "sql", statement) == [{"space": "s1", "n": 5}, {"space": "s2", "n": 1}, {"space": "s3", "n": 1}]
    assert rows(folder, "sql", statement, run="part-1") == [{"space": "s1", "n": 3}]
    assert ask(folder, "sql", "SELECT sample FROM samples WHERE sample = 'z'").stderr == "No rows.\n"
    assert ask(folder, "sql", "SELECT features FROM activations WHERE sample = 'a3'").stdout.splitlines() == ["features", "[5]"]


def test_sql_shows_k_rows_and_reads_no_more(folder: Path) -> None:
    result = ask(folder, "sql", "SELECT feature FROM features ORDER BY feature", "--k", "2")
    assert [line.split() for line in result.stdout.splitlines()] == [["feature"], ["5"], ["5"]]
    assert result.stderr == "2 rows, and there are more: --k N\n"
    assert ask(folder, "sql", "SELECT feature FROM features LIMIT 2", "--k", "2").stderr == ""


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE features", "Only a SELECT can be asked"),
        ("SELECT 1; SELECT 2", "One statement at a time"),
        ("SELECT * FROM read_csv('/etc/passwd')", "There is no function 'read_csv' here"),
        ("SELECT * FROM nothing", r"polars cannot answer this: relation 'nothing' was not found\. Tables: activations"),
    ],
)
def test_sql_refuses_all_else(folder: Path, statement: str, message: str) -> None:
    refused(folder, "sql", statement, message=message)


# --- by the index ---


@pytest.mark.parametrize(
    "args",
    [
        ["top", "2/5"],
        ["top", "2/5", "--k", "2"],
        ["top", "2/99"],
        ["sample", "a1"],
        ["sample", "a1", "--position", "0"],
        ["tokens", "2/5", "a1", "--all"],
        ["coactive", "2/5"],
        ["diff", "full-1", "full-1", "--k", "3"],
    ],
    ids=" ".join,
)
def test_the_index_changes_no_answer(folder: Path, indexed: Path, args: list[str]) -> None:
    answers = []
    for store in (folder, indexed):
        run = [] if args[0] == "diff" else ["--run", "full-1"]
        result = CliRunner().invoke(query.command, [*args, "--store", str(store), *run], catch_exceptions=False)
        answers.append((result.exit_code, result.stdout, result.stderr))
    assert answers[0] == answers[1]
    assert answers[0][0] == 0


@pytest.fixture(scope="module")
def indexed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store with the index of a finished run."""
    copy = tmp_path_factory.mktemp("indexed") / "store"
    shutil.copytree(folder, copy)
    assert open_store(copy).index(["k1", "k2", "k3"], run="full-1") > 0
    return copy


# --- features ---


def test_features_are_sorted_by_q_and_then_the_size_of_d(folder: Path) -> None:
    found = rows(folder, "features", "--k", "5")
    assert [(row["address"], row["contrast"], row["q"]) for row in found] == [
        ("2/7", CONTRAST, 0.01),
        ("2/5", CONTRAST, 0.01),
        ("2/5", "early vs late", 0.4),
        ("m/gpt/resid_post.9/thin:6", CONTRAST, 0.5),
        ("2/8", CONTRAST, 0.9),
    ]
    first, second = found[0], found[1]
    assert list(first)[:9] == ["address", "stage", "contrast", "d", "t", "df", "p", "q", "significant"]
    assert list(first)[9:] == ["mean[lost]", "mean[won]", "density[lost]", "fired", "verdict"]
    assert (first["mean[lost]"], first["mean[won]"], first["verdict"]) == (-1.25, -0.25, None)
    assert (second["verdict"], second["stage"], second["significant"]) == ("drives stop", "groups", 1.0)


def test_features_without_q_come_last(folder: Path) -> None:
    found = rows(folder, "features", "--k", "100")
    assert len(found) == 35
    assert [row["address"] for row in found[-2:]] == ["2/58", "2/59"]
    assert found[-1]["q"] is None


def test_features_as_a_table(folder: Path) -> None:
    result = ask(folder, "features", "--stage", "groups", "--significant")
    said, heads, *lines = result.stdout.splitlines()
    assert said == f"stage: groups   contrast: {CONTRAST}"
    assert heads.split() == ["address", "d", "p", "q", "significant", "mean[lost]", "mean[won]", "density[lost]", "fired"]
    assert lines[0].split() == ["2/7", "-1.25", "0.001", "0.01", "1", "-1.25", "-0.25", "0.25", "12345"]
    assert len(lines) == 2


def test_features_of_a_space_a_layer_or_a_statistic(folder: Path) -> None:
    for choice in (("--layer", "9"), ("--space", "s2"), ("--space", "m/gpt/resid_post.9/thin")):
        assert [row["address"] for row in rows(folder, "features", *choice)] == ["m/gpt/resid_post.9/thin:6"]
    (row,) = rows(folder, "features", "--layer", "9", "--stat", "d", "--stat", "mean")
    assert list(row) == ["address", "stage", "contrast", "d", "mean[lost]", "mean[won]"]
    assert ask(folder, "features", "--stat", "t", "--layer", "9").stdout.splitlines()[1].split() == ["address", "t"]


def test_features_sorted_by_another_statistic(folder: Path) -> None:
    assert [row["address"] for row in rows(folder, "features", "--by", "d", "--k", "2")] == ["2/7", "2/5"]
    assert [row["q"] for row in rows(folder, "features", "--by", "p", "--layer", "2", "--k", "4")] == [0.01, 0.01, 0.4, 0.9]
    assert rows(folder, "features", "--by", "mean", "--k", "1")[0]["address"] == "2/5"
    assert [row["address"] for row in rows(folder, "features", "--by", "toy_mean", run="toy-1")] == ["2/2", "2/1"]


def test_features_of_stages_that_compare_nothing_are_shown_as_they_are(folder: Path) -> None:
    first = {"address": "2/1", "stage": "means", "contrast": None, "toy_mean[even]": 1.0, "toy_mean[odd]": 1.0}
    assert rows(folder, "features", run="toy-1")[0] == first
    assert ask(folder, "features", run="toy-1").stdout.splitlines() == [
        "stage: means",
        "address  toy_mean[even]  toy_mean[odd]",
        "2/1                   1              1",
        "2/2                   2              2",
    ]
    assert [row["verdict"] for row in rows(folder, "features", "--stage", "cause")] == ["drives stop", "no effect"]


def test_features_refuse_what_does_not_exist(folder: Path) -> None:
    refused(
        folder, "features", "--stat", "means", message=r"the statistic 'means'\. Did you mean 'mean'\? Statistics: d, density"
    )
    refused(folder, "features", "--by", "z", message="the statistic 'z'")
    refused(folder, "features", "--layer", "3", message="no space at layer 3")
    refused(folder, "features", "--space", "m/gpt/resid_post.9/thinn", message="Did you mean 'm/gpt/resid_post.9/thin'")
    refused(folder, "features", "--stage", "group", message="no stage 'group'. Did you mean 'groups'")


def test_features_say_why_nothing_is_shown(folder: Path) -> None:
    empty = ask(folder, "features", run="none-1")
    assert empty.stdout == ""
    assert "stage 'groups' (compare.welch) writes it and its 1 committed step(s) wrote none" in empty.stderr
    assert "stage 'cause' (patch.delta) writes it and it has committed no step yet" in empty.stderr
    assert "in these spaces. Stages that wrote some: cause, groups." in ask(folder, "features", "--space", "s3").stderr
    assert "stage 'extract' does not write it. Stages of this run that do: groups, cause." in (
        ask(folder, "features", "--stage", "extract").stderr
    )
    assert "No difference is significant in run toy-1" in ask(folder, "features", "--significant", run="toy-1").stderr


def test_verdicts_that_differ_are_told_apart() -> None:
    line = {"space": "s1", "feature": 5, "stage": "groups", "group": ""}
    written = [stat(5, "verdict", group, None, said) | {"stage": "cause"} for group, said in (("stop", "yes"), ("bet", "no"))]

    class Labels:
        def label(self, space: str, index: int) -> str:
            return f"{space}:{index}"

    assert _feature_rows._line_of(Labels(), line, written, set())["verdict"] == "stop: yes; bet: no"  # type: ignore[arg-type]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """What queries read: table, rows, and whether their texts too."""
    found: list[tuple[str, int, bool]] = []
    rows_of = Database.rows

    def spy(self: Database, name: str, *asked: Any) -> pa.Table:
        table = rows_of(self, name, *asked)
        found.append((name, table.num_rows, "text" in table.column_names))
        return table

    monkeypatch.setattr(Database, "rows", spy)
    return found


def read_of(name: str, read: list[tuple[str, int, bool]]) -> tuple[int, int]:
    """Rows without their texts, and rows with them."""
    short, whole = (sum(count for table, count, texts in read if (table, texts) == (name, wanted)) for wanted in (False, True))
    return short, whole


def test_features_read_what_they_are_sorted_by_and_all_of_those_shown(folder: Path, read: list[tuple[str, int, bool]]) -> None:
    (row,) = rows(folder, "features", "--k", "1")
    assert row["address"] == "2/7"
    tests = sum(entry["stat"] in ("d", "q", "significant") for entry in [*FEATURES, *OTHER])
    assert read_of("features", read) == (tests, 10)
    read.clear()
    assert len(rows(folder, "features", "--layer", "9")) == 1
    assert read_of("features", read) == (3, 10)


def test_many_features_are_read_by_their_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(folder, "features", "--k", "100")
    monkeypatch.setattr(_feature_rows, "_LOOKED_UP", 2)
    assert rows(folder, "features", "--k", "100") == before


# --- effects ---


def test_effects_read_the_rows_that_are_asked_for(folder: Path, read: list[tuple[str, int, bool]]) -> None:
    for args, wanted in (([], 4), (["--feature", "2/7"], 1), (["--samples", "--feature", "2/5", "--arm", "zero"], 3)):
        read.clear()
        ask(folder, "effects", *args)
        assert [one[:2] for one in read if one[0] == "effects"] == [("effects", wanted)]


def test_effects_are_summaries_unless_samples_are_asked_for(folder: Path) -> None:
    found = rows(folder, "effects")
    assert [(row["address"], row["arm"], row["q"]) for row in found] == [
        ("2/5", "zero", 0.001),
        ("2/7", "zero", 0.9),
        ("2/5", "sham", 0.9),
        ("-", "clean", None),
    ]
    assert list(found[0]) == ["address", "stage", *query.EFFECTS]
    per_sample = rows(folder, "effects", "--samples")
    assert [(row["sample"], row["effect"]) for row in per_sample] == [("a1", 0.3), ("a2", None)]


def test_effects_as_a_table(folder: Path) -> None:
    assert ask(folder, "effects", "--feature", "2/5", "--arm", "zero").stdout.splitlines() == [
        "stage: cause",
        "address  arm   outcome  probability  effect      p      q   kl",
        "2/5      zero  stop          0.1235    0.25  0.001  0.001  0.5",
    ]


def test_effects_refuse_an_unknown_arm(folder: Path) -> None:
    refused(folder, "effects", "--arm", "zeros", message=r"no arm 'zeros' here\. Did you mean 'zero'\? Arms: clean, sham, zero")


def test_effects_say_why_nothing_is_shown(folder: Path) -> None:
    assert "no effects of this feature. It has effects of 3: 2/5, 2/7, -" in ask(folder, "effects", "--feature", "2/8").stderr
    assert "leave --samples out" in ask(folder, "effects", "--feature", "2/7", "--samples").stderr
    assert "Table 'effects' has no rows in run none-1: stage 'cause'" in ask(folder, "effects", run="none-1").stderr


# --- all ---


def test_csv_is_read_back(folder: Path) -> None:
    found = list(csv.DictReader(io.StringIO(ask(folder, "top", "2/5", "--csv").stdout)))
    assert [(row["token"], row["value"]) for row in found][:2] == [(" three", "3.0"), ("\n", "2.0")]
    assert ask(folder, "top", "2/99", "--csv").stdout == "sample,position,token,value,unit,text\n"
    assert ask(folder, "top", "2/99", "--json").stdout == "[]\n"


def test_parquet_is_read_back(folder: Path, tmp_path: Path) -> None:
    assert ask(folder, "top", "2/5", "--parquet", str(tmp_path / "top.parquet")).stdout == ""
    found = pq.read_table(tmp_path / "top.parquet").to_pylist()
    assert [(row["token"], row["value"]) for row in found][:2] == [(" three", 3.0), ("\n", 2.0)]
    ask(folder, "top", "2/99", "--parquet", str(tmp_path / "none.parquet"))
    assert pq.read_table(tmp_path / "none.parquet").column_names == ["sample", "position", "token", "value", "unit", "text"]
    ask(folder, "sql", "SELECT feature, number FROM features", "--k", "3", "--parquet", str(tmp_path / "sql.parquet"))
    schema = pq.read_schema(tmp_path / "sql.parquet")
    assert [str(field.type) for field in schema] == ["uint32", "double"]
    special = "SELECT 1e300 * 1e300 AS up, ln(-1.0) AS none, NULL AS nothing FROM features"
    ask(folder, "sql", special, "--k", "1", "--parquet", str(tmp_path / "special.parquet"))
    (row,) = pq.read_table(tmp_path / "special.parquet").to_pylist()
    assert (row["up"], str(row["none"]), row["nothing"]) == (float("inf"), "nan", None)
    assert rows(folder, "sql", special, "--k", "1") == [{"up": None, "none": None, "nothing": None}]
    refused(folder, "top", "2/5", "--parquet", str(tmp_path / "no" / "x"), message="the file cannot be written")


def test_json_and_csv_exclude_each_other(folder: Path) -> None:
    result = CliRunner().invoke(query.command, ["top", "2/5", "--json", "--csv", "--store", str(folder)])
    assert result.exit_code == 2
    assert "--json and --csv exclude each other" in result.output


def test_an_interrupted_run_gives_what_is_committed(folder: Path) -> None:
    result = ask(folder, "top", "2/5", "--json", run="part")
    assert [row["value"] for row in json.loads(result.stdout)] == [3.0, 2.0, 1.0]
    assert result.stderr == "partial: run part-1 is interrupted; 2 of 7 steps are committed\n"


def test_a_run_that_has_entered_no_state_yet_gives_what_its_journal_names(begun: Path) -> None:
    result = ask(begun, "top", "2/5", "--json", run="begun-1")
    assert [row["value"] for row in json.loads(result.stdout)] == [3.0, 2.0, 1.0]
    assert result.stderr == "partial: run begun-1 is running; 2 of ? steps are committed\n"


def test_a_run_whose_process_is_gone_is_called_dead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(open_store(folder, read_only=True).run_states("part-1")[0], state="running")
    monkeypatch.setattr(Store, "run_states", lambda self, run=None: [gone])
    monkeypatch.setattr(status, "alive", lambda row: False)
    assert "partial: run part-1 is dead; 2 of 7" in ask(folder, "top", "2/5", run="part-1").stderr


def test_the_newest_run_is_the_default(folder: Path) -> None:
    result = CliRunner().invoke(query.command, ["effects", "--store", str(folder)])
    assert result.exit_code == 0
    assert result.stderr == "run: full-1, the newest of 4\n"


def test_unknown_runs_and_empty_stores(folder: Path, tmp_path: Path) -> None:
    refused(folder, "effects", run="fool-1", message="Nearest: full-1")
    open_store(tmp_path / "new", create=True)
    for args, message in ((["effects"], "holds no runs yet"), (["effects", "--store", str(tmp_path / "no")], "no store at")):
        place = args if "--store" in args else [*args, "--store", str(tmp_path / "new")]
        with pytest.raises(ToolkitError, match=message):
            CliRunner().invoke(query.command, place, catch_exceptions=False)


def test_batches_hold_every_row_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(folder, "sample", "a1"), rows(folder, "top", "2/5")
    monkeypatch.setattr(_query_run, "BATCH_ROWS", 1)
    assert (rows(folder, "sample", "a1"), rows(folder, "top", "2/5")) == before


def test_torch_is_never_imported_and_help_imports_nothing_heavy(folder: Path) -> None:
    program = (
        "import sys; from toolkit._cli import cli\n"
        "for args in (['top', '--help'], ['top', '2/5', *sys.argv[1:]]):\n"
        "    cli.main(['query', *args], standalone_mode=False)\n"
        "    print('HEAVY', *sorted({'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "--store", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("HEAVY")]
    assert found[0] == []
    assert {"torch", "transformers"} & set(found[1]) == set()


@settings(max_examples=50)
@given(st.lists(st.text("ab \n", min_size=0, max_size=4), max_size=12))
def test_pieces_that_make_up_the_text_are_found_where_they_are(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert ["".join(text[start:end]) for start, end in _around.spans(text, pieces)] == pieces
    for at in range(len(pieces) + 1):
        shown = _around.around(text, pieces, at, "<{}>".format)
        assert shown.strip("…").replace("<", "").replace(">", "") in text.replace("\n", "↵")


@settings(max_examples=50)
@given(st.text("aé😀 ", max_size=20), st.lists(st.text("aé😀 b", max_size=3), max_size=12))
def test_pieces_that_do_not_fit_the_text_are_borne(text: str, pieces: list[str]) -> None:
    ends = [0, *(end for _, end in _around.spans(text, pieces))]
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)


@settings(max_examples=50)
@given(st.floats(-1e300, 1e300))
def test_numbers_have_four_digits(number: float) -> None:
    assert float(_answers.shown(number)) == pytest.approx(number, rel=1e-3)
