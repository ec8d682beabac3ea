"""`toolkit query top`, `sample` and `tokens`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toolkit.query.asked import (
    SPACES,
    STAGES,
    WORDS,
    ask,
    begin,
    commit,
    fired,
    refused,
    rows,
    text,
)
from toolkit._cli import query
from toolkit._cli.query import activations, marked_text
from toolkit._plugins import loading as _plugins
from toolkit._plugins.registry import Parts, PluginInfo
from toolkit.errors import PluginError
from toolkit.parts import StagePart
from toolkit_store import open_store

# --- top ---


@pytest.mark.parametrize("address", ["2/5", "L2-5", "m/gpt/resid_post.2/sparse:5", "s1:5"])
def test_top_shows_where_a_feature_fires_most_strongly(folder: Path, address: str) -> None:
    result = rows(folder, "top", address)
    assert [(row["sample"], row["position"], row["token"], row["value"]) for row in result] == [
        ("a1", 2, " three", 3.0),
        ("a2", 1, "\n", 2.0),
        ("a1", 0, "one", 1.0),
        ("a3", 20, "word20", 0.25),
    ]
    assert result[0]["unit"] == "unit of a1"
    assert [row["text"] for row in result[:3]] == [
        "one two[ three]",
        "line[↵]next·[31m",
        "[one] two three",
    ]
    assert result[3]["text"] == f"…{' '.join(WORDS[4:20])} [word20] {' '.join(WORDS[21:29])}…"


def test_top_is_cut_at_k_and_says_so(folder: Path) -> None:
    result = ask(folder, "top", "2/5", "--k", "1")
    assert result.stdout.splitlines() == [
        "sample  position  token   value  unit        text",
        "a1             2   three      3  unit of a1  one two[ three]",
    ]
    assert result.stderr == "1 of 4 rows; more: --k N\n"


def test_top_marks_brightly_in_a_terminal_and_only_in_its_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (activations, marked_text):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    result = CliRunner().invoke(
        query.command, ["top", "2/5", "--store", str(folder), "--run", "full-1"], color=True
    )
    assert "one two\x1b[1m\x1b[7m three\x1b[0m" in result.stdout
    assert rows(folder, "top", "2/5")[0]["text"] == "one two[ three]"


def test_top_of_a_feature_that_never_fires(folder: Path) -> None:
    result = ask(folder, "top", "2/99")
    assert result.stdout == ""
    assert "Feature 2/99 fires at none of the positions that run full-1 has kept." in result.stderr


def test_top_refuses_what_does_not_exist(folder: Path) -> None:
    refused(
        folder,
        "top",
        "9/5",
        message=r"may be any of 2 features: m/gpt/resid_post.9/thin:5, m/gpt/resid_post.9/thick:5",
    )
    refused(folder, "top", "3/5", message=r"no space at layer 3\. Layers: 2, 9")
    refused(folder, "top", "2/100", message="its width is 100")
    refused(folder, "top", "five", message="is not a feature address")


def test_a_table_that_no_stage_writes_names_the_parts_that_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = StagePart(
        name="extract.all", help="h", run=lambda work: iter(()), reads=(), writes=("activations",)
    )
    monkeypatch.setattr(
        _plugins,
        "load_parts",
        lambda: Parts([PluginInfo("p", "", "", parts=(part,))]),
    )
    message = (
        "Table 'activations' has no rows in run toy-1. No stage of this run writes it. Parts "
        "that would: extract.all.\n"
    )
    assert ask(folder, "top", "2/5", run="toy-1").stderr == message


def test_a_broken_plugin_does_not_keep_a_run_from_being_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise PluginError("broken")

    monkeypatch.setattr(_plugins, "load_parts", broken)
    assert (
        "The parts that would cannot be listed; toolkit plugins says why"
        in ask(folder, "top", "2/5", run="toy-1").stderr
    )


# --- sample ---


def test_sample_shows_its_features_by_value_and_once(folder: Path) -> None:
    result = rows(folder, "sample", "a1")
    assert [(row["address"], row["position"], row["token"], row["value"]) for row in result] == [
        ("m/gpt/resid_post.9/thin:5", 2, " three", 9.0),
        ("2/5", 2, " three", 3.0),
        ("2/5", 0, "one", 1.0),
        ("2/7", 0, "one", 0.5),
        ("m/gpt/resid_post.9/thin:6", 2, " three", 0.125),
    ]
    assert len(rows(folder, "sample", "a2")) == 1
    assert [row["value"] for row in rows(folder, "sample", "a1", "--position", "0")] == [1.0, 0.5]


def test_sample_says_why_nothing_is_shown(folder: Path) -> None:
    assert (
        "at position 1 of sample 'a1'. Kept positions: 0, 2."
        in ask(folder, "sample", "a1", "--position", "1").stderr
    )
    assert (
        "No activations of sample 'a3' are kept in run part-1"
        in ask(folder, "sample", "a3", run="part-1").stderr
    )
    assert (
        "Table 'samples' has no rows in run toy-1"
        in ask(folder, "sample", "a1", run="toy-1").stderr
    )


def test_sample_refuses_what_does_not_exist(folder: Path) -> None:
    refused(
        folder,
        "sample",
        "b2",
        message=r"no sample 'b2'\. Did you mean 'a2'\? It has 3, such as a1, a2, a3\.",
    )
    refused(
        folder, "sample", "a1", "--position", "3", message=r"sample 'a1' has 3 tokens \(0 to 2\)"
    )


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
    results = [
        fired(id, "a1", at, **{f"f{at}": 1.0 + at}) for id in ("s1", "s2") for at in (2, 3, 6)
    ]
    tables = {"samples": there, "spaces": SPACES, "activations": [*results, fired("s1", "a1", 7)]}
    commit(store, "k1", "extract", "full-1", tables)
    begin(store, "full-1", "2026-01-04", "done", ["k1"], STAGES)
    return store.folder


@pytest.mark.parametrize(
    ("args", "expected"),
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
def test_sample_at_words_a_span_a_layer_or_a_space(
    bets: Path, args: list[str], expected: list[str]
) -> None:
    assert [row["address"] for row in rows(bets, "sample", "a1", *args)] == expected


def test_sample_at_places_says_why_nothing_is_shown_and_refuses_what_is_not_there(
    bets: Path,
) -> None:
    assert ask(bets, "sample", "a1", "--token", "You bet").stderr == (
        "No activations are kept at positions 0, 1 of sample 'a1'. Kept positions: 2, 3, 6, 7.\n"
    )
    assert (
        ask(bets, "sample", "a1", "--token", ".").stderr
        == "No feature is active on sample 'a1' at position 7.\n"
    )
    assert (
        "kept at position 7 of sample 'a1' in these spaces. Kept"
        in ask(bets, "sample", "a1", "--token", ".", "--space", "s2").stderr
    )
    thick = ("--space", "m/gpt/resid_post.9/thick")
    assert (
        ask(bets, "sample", "a1", *thick).stderr
        == "No activations of sample 'a1' are kept in run full-1 in these spaces.\n"
    )
    refused(
        bets,
        "sample",
        "a1",
        "--token",
        "10",
        message="--token '10': sample 'a1' does not contain this text",
    )
    refused(
        bets,
        "sample",
        "a1",
        "--token",
        "",
        message="--token '': sample 'a1' does not contain this text",
    )
    refused(
        bets,
        "sample",
        "a1",
        "--span",
        "bets",
        message=r"no such span\. Did you mean 'bet'\? Its spans: balance, bet\.",
    )
    refused(
        bets,
        "sample",
        "a1",
        "--span",
        "bet",
        "--position",
        "6",
        message="No token of sample 'a1' is selected by all of the options",
    )
    refused(bets, "sample", "a1", "--layer", "3", message="no space at layer 3")


@settings(max_examples=100)
@given(st.lists(st.text("ab $", min_size=1, max_size=3), min_size=1, max_size=8), st.data())
def test_every_token_is_found_by_its_own_words(pieces: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(pieces) - 1))
    assert at in marked_text.positions_of(pieces[at], "".join(pieces), pieces)
    assert marked_text.positions_of("c", "".join(pieces), pieces) == []


# --- tokens ---


def test_tokens_show_where_a_feature_fires(folder: Path) -> None:
    result = rows(folder, "tokens", "2/5", "a1")
    assert result == [
        {"position": 0, "token": "one", "value": 1.0},
        {"position": 2, "token": " three", "value": 3.0},
    ]
    assert [row["value"] for row in rows(folder, "tokens", "2/5", "a1", "--all")] == [
        1.0,
        None,
        3.0,
    ]
    assert ask(folder, "tokens", "2/5", "a1").stdout.splitlines() == [
        "[one] two[ three]",
        "position  token   value",
        "       0  one         1",
        "       2   three      3",
    ]
    assert ask(folder, "tokens", "2/5", "a2").stdout.splitlines()[0] == "line[↵]next·[31m"


def test_tokens_are_brighter_where_the_feature_is_stronger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (activations, marked_text):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    args = ["tokens", "2/5", "a1", "--store", str(folder), "--run", "full-1"]
    shown = CliRunner().invoke(query.command, args, color=True).stdout.splitlines()[0]
    assert shown == "\x1b[1m\x1b[4m\x1b[27mone\x1b[0m two\x1b[1m\x1b[4m\x1b[7m three\x1b[0m"


def test_tokens_say_why_nothing_is_shown(folder: Path) -> None:
    assert (
        "does not fire on sample 'a1'. Kept positions: 0, 2."
        in ask(folder, "tokens", "2/99", "a1").stderr
    )
    assert (
        "No activations of sample 'a3' are kept in run full-1 in the space of s2:5."
        in ask(folder, "tokens", "s2:5", "a3").stderr
    )
    assert (
        "Table 'samples' has no rows in run toy-1"
        in ask(folder, "tokens", "2/5", "a1", run="toy-1").stderr
    )
    refused(folder, "tokens", "2/5", "b2", message="no sample 'b2'")


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.text("ab \n", max_size=4), st.none() | st.sampled_from([0.0, 1.0])),
        max_size=12,
    )
)
def test_shading_keeps_the_text(tokens: list[tuple[str, float | None]]) -> None:
    pieces = [piece for piece, _ in tokens]
    shown = marked_text.shaded("".join(pieces), pieces, [value for _, value in tokens], False)
    assert shown.replace("[", "").replace("]", "") == "".join(pieces).replace("\n", "↵")
    assert shown.count("[") == sum(bool(piece and value) for piece, value in tokens)
