"""Results from Python: what the command line answers, as polars frames, shown safely."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

import toolkit
from tests.toolkit.query.asked import rows
from tests.toolkit.view.seen import make
from toolkit._query.html import table_html, tokens_html
from toolkit._query.run import open_run
from toolkit._run.run_folder import store_folder
from toolkit._view.library import Library
from toolkit.errors import BadInput
from toolkit_store import open_store


@pytest.fixture
def store(folder: Path):
    return toolkit.open(folder)


def test_runs_are_found_by_the_beginning_of_their_id(store) -> None:
    assert store.run("full").id == "full-1"
    assert store.run().id == store.runs()["run"][0] == "full-1"
    assert set(store.runs()["run"]) == {"full-1", "part-1", "toy-1", "none-1"}
    with pytest.raises(BadInput, match="There is no run 'nix'"):
        store.run("nix")


def test_a_run_at_a_uri_is_found_from_a_machine_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = (tmp_path / "bucket").as_uri()
    for name in ("host", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "host")
    written = open_store(uri, create=True)
    written.record_run(run="study-1", name="study", state="done")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert toolkit.open(uri).run("stu").id == "study-1"
    assert open_run(uri, "study-1").id == "study-1"
    assert Library(store_folder(uri)).run("study-1").id == "study-1"
    with pytest.raises(BadInput, match="There is no run 'nix'"):
        toolkit.open(uri).run("nix")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (["features", "--k", "50"], lambda run: run.features(every_stat=True, k=50)),
        (["effects", "--k", "50"], lambda run: run.effects()),
        (["top", "3/65"], lambda run: run.top("3/65")),
    ],
    ids=["features", "effects", "top"],
)
def test_frames_say_what_the_command_line_says(folder: Path, store, command, answer) -> None:
    if command[0] == "top":
        command = ["top", _fired(folder)]
        frame = store.run("full").top(command[1])
    else:
        frame = answer(store.run("full"))
    assert isinstance(frame, pl.DataFrame)
    printed = rows(folder, *command)
    assert frame.height == len(printed) > 0
    assert frame.columns == list(printed[0])
    assert json.loads(json.dumps(frame.to_dicts())) == [pytest.approx(row) for row in printed]


def _fired(folder: Path) -> str:
    run = toolkit.open(folder).run("full")
    return str(
        run.sample(run.sql("SELECT sample FROM activations LIMIT 1")["sample"][0]).active()[
            "address"
        ][0]
    )


def test_a_feature_and_a_sample_show_their_texts(folder: Path, store) -> None:
    run = store.run("full")
    feature = run.feature(_fired(folder))
    shown = feature._repr_html_()
    assert feature.address in shown
    assert "background:rgba" in shown
    sample = run.sample(feature.top()["sample"][0])
    assert sample.text
    assert sample.active().height
    assert "<table>" in sample._repr_html_()
    with pytest.raises(BadInput, match="has no sample"):
        run.sample("nowhere")


def test_a_question_is_asked_of_all_runs_together(store) -> None:
    counted = store.sql("SELECT run, COUNT(*) AS n FROM features GROUP BY run ORDER BY run")
    each = {
        run: store.run(run).sql("SELECT COUNT(*) AS n FROM features")["n"][0]
        for run in store.runs()["run"]
    }
    assert dict(counted.iter_rows()) == {run: n for run, n in each.items() if n}
    assert len(counted) > 1
    with pytest.raises(BadInput, match="Only SELECT"):
        store.sql("DROP TABLE features")


@pytest.mark.slow
def test_search_looks_at_labels_words_tokens_and_addresses_of_all_runs(tmp_path: Path) -> None:
    store = toolkit.open(make(tmp_path / "store"))
    for text, match in (
        ("MONEY", "label"),
        ("jackpot", "word"),
        ("dollars", "token"),
        ("2/5", "address"),
    ):
        result = store.search(text)
        assert ("full-1", "2/5", match) in list(result["run", "address", "match"].iter_rows())
    assert store.search("no such words anywhere").is_empty()
    assert set(store.search("2/5")["run"]) == {"full-1", "other-1", "part-1"}
    assert store.run("full").verdicts()["verdict"].to_list() == ["causal"]


def test_a_number_of_rows_below_zero_and_a_position_past_the_end_are_refused(store) -> None:
    run = store.run("full-1")
    for ask in (run.features, lambda k: run.top("2/5", k), lambda k: run.search("2/5", k)):
        with pytest.raises(BadInput, match="k=-1: the number of rows must be 0 or more"):
            ask(k=-1)
    for position in (-1, 3):
        with pytest.raises(BadInput, match="has 3 tokens: write position=0 to 2"):
            run.sample("a1").active(position)


def test_a_run_shows_its_state_and_tables(store) -> None:
    shown = store.run("full")._repr_html_()
    assert "full-1" in shown
    assert "activations" in shown
    assert "Runs in" in store._repr_html_()


EVIL = "<script>alert(1)</script>\x1b[31m\u202edne"


def test_nothing_of_a_text_becomes_html() -> None:
    shown = table_html(pl.DataFrame({EVIL: [EVIL]}), EVIL) + tokens_html([EVIL, "a"], [1.0, None])
    assert "<script" not in shown
    assert not re.search("[\x1b\u202e]", shown)
    assert shown.count("&lt;script&gt;") == 4


def test_a_long_table_says_how_much_it_leaves_out() -> None:
    shown = table_html(pl.DataFrame({"n": range(60)}))
    assert "50 of 60 rows" in shown
    assert shown.count("<tr>") == 51
    assert "No rows" in table_html(pl.DataFrame({"n": []}))
