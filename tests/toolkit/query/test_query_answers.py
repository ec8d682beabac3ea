"""What all answers of `toolkit query` have in common."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toolkit.query.asked import (
    SAMPLES,
    SPACES,
    STAGES,
    ask,
    begin,
    commit,
    refused,
    rows,
)
from toolkit import terminal
from toolkit._cli import query
from toolkit._query import run as query_run
from toolkit._query import text as query_text
from toolkit.errors import ToolkitError
from toolkit_store import Store, open_store

# --- all ---

HOSTILE = "\x1b[31mred\x1b]0;title\x07\u202etxt\x9b2J"
STEERS = ("\x1b", "\x07", "\u202e", "\x9b")


def test_nothing_in_a_store_steers_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store", create=True)
    piece = {"text": HOSTILE, "pieces": [HOSTILE], "token_ids": [1], "unit": HOSTILE}
    samples = [{**SAMPLES[0], **piece, "sample": "a"}]
    fired = [{"space": "s1", "sample": "a", "position": 0, "features": [5], "values": [1.0]}]
    with store.writer():
        tables = {"samples": samples, "activations": fired, "spaces": SPACES[:1]}
        commit(store, "k", "extract", "full-1", tables)
        begin(store, "full-1", "2026-01-01", "done", ["k"], STAGES)
    queries = (
        ("top", "2/5"),
        ("tokens", "2/5", "a"),
        ("sample", "a"),
        ("sql", "SELECT * FROM samples"),
        ("sql", 'SELECT text AS "a\x1b[31m" FROM samples'),
    )
    screen = SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(terminal, "sys", screen)
    for words in queries:
        for form in ([], ["--json"], ["--csv"]):
            result = ask(store.folder, *words, *form)
            assert not any(mark in result.stdout + result.stderr for mark in STEERS), (words, form)


def test_csv_is_read_back(folder: Path) -> None:
    results = list(csv.DictReader(io.StringIO(ask(folder, "top", "2/5", "--csv").stdout)))
    assert [(row["token"], row["value"]) for row in results][:2] == [
        (" three", "3.0"),
        ("\n", "2.0"),
    ]
    assert ask(folder, "top", "2/99", "--csv").stdout == "sample,position,token,value,unit,text\n"
    assert ask(folder, "top", "2/99", "--json").stdout == "[]\n"


def test_parquet_is_read_back(folder: Path, tmp_path: Path) -> None:
    assert ask(folder, "top", "2/5", "--parquet", str(tmp_path / "top.parquet")).stdout == ""
    result = pq.read_table(tmp_path / "top.parquet").to_pylist()
    assert [(row["token"], row["value"]) for row in result][:2] == [(" three", 3.0), ("\n", 2.0)]
    ask(folder, "top", "2/99", "--parquet", str(tmp_path / "none.parquet"))
    assert pq.read_table(tmp_path / "none.parquet").column_names == [
        "sample",
        "position",
        "token",
        "value",
        "unit",
        "text",
    ]
    ask(
        folder,
        "sql",
        "SELECT feature, number FROM features",
        "--k",
        "3",
        "--parquet",
        str(tmp_path / "sql.parquet"),
    )
    schema = pq.read_schema(tmp_path / "sql.parquet")
    assert [str(field.type) for field in schema] == ["uint32", "double"]
    special = "SELECT 1e300 * 1e300 AS up, ln(-1.0) AS none, NULL AS nothing FROM features"
    ask(folder, "sql", special, "--k", "1", "--parquet", str(tmp_path / "special.parquet"))
    (row,) = pq.read_table(tmp_path / "special.parquet").to_pylist()
    assert (row["up"], str(row["none"]), row["nothing"]) == (float("inf"), "nan", None)
    assert rows(folder, "sql", special, "--k", "1") == [{"up": None, "none": None, "nothing": None}]
    refused(
        folder,
        "top",
        "2/5",
        "--parquet",
        str(tmp_path / "no" / "x"),
        message="the file cannot be written",
    )


def test_json_and_csv_exclude_each_other(folder: Path) -> None:
    result = CliRunner().invoke(
        query.command, ["top", "2/5", "--json", "--csv", "--store", str(folder)]
    )
    assert result.exit_code == 2
    assert "--json and --csv cannot be combined" in result.output


def test_an_interrupted_run_gives_what_is_committed(folder: Path) -> None:
    result = ask(folder, "top", "2/5", "--json", run="part")
    assert [row["value"] for row in json.loads(result.stdout)] == [3.0, 2.0, 1.0]
    assert result.stderr == "partial: run part-1 is interrupted; 2 of 7 steps are committed\n"


def test_a_run_that_has_entered_no_state_yet_gives_what_its_journal_names(begun: Path) -> None:
    result = ask(begun, "top", "2/5", "--json", run="begun-1")
    assert [row["value"] for row in json.loads(result.stdout)] == [3.0, 2.0, 1.0]
    assert result.stderr == "partial: run begun-1 is running; 2 of ? steps are committed\n"


def test_a_run_whose_process_is_gone_is_called_dead(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(open_store(folder, read_only=True).run_states("part-1")[0], state="running")
    monkeypatch.setattr(Store, "run_states", lambda self, run=None: [gone])
    monkeypatch.setattr(query_run, "alive", lambda row: False)
    assert "partial: run part-1 is dead; 2 of 7" in ask(folder, "top", "2/5", run="part-1").stderr


def test_the_newest_run_is_the_default(folder: Path) -> None:
    result = CliRunner().invoke(query.command, ["effects", "--store", str(folder)])
    assert result.exit_code == 0
    assert result.stderr == "run: full-1, the newest of 4\n"


def test_unknown_runs_and_empty_stores(folder: Path, tmp_path: Path) -> None:
    refused(folder, "effects", run="fool-1", message="Nearest: full-1")
    open_store(tmp_path / "new", create=True)
    for args, message in (
        (["effects"], "holds no runs yet"),
        (["effects", "--store", str(tmp_path / "no")], "no store at"),
    ):
        place = args if "--store" in args else [*args, "--store", str(tmp_path / "new")]
        with pytest.raises(ToolkitError, match=message):
            CliRunner().invoke(query.command, place, catch_exceptions=False)


def test_batches_hold_every_row_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(folder, "sample", "a1"), rows(folder, "top", "2/5")
    monkeypatch.setattr(query_run, "BATCH_ROWS", 1)
    assert (rows(folder, "sample", "a1"), rows(folder, "top", "2/5")) == before


@pytest.mark.slow
def test_torch_is_never_imported_and_help_imports_nothing_heavy(folder: Path) -> None:
    program = (
        "import sys; from toolkit._cli import cli\n"
        "for args in (['top', '--help'], ['top', '2/5', *sys.argv[1:]]):\n"
        "    cli.main(['query', *args], standalone_mode=False)\n"
        "    print('HEAVY', *sorted({'torch', 'transformers', 'pyarrow', 'numpy'} & "
        "set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "--store", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    results = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("HEAVY")]
    assert results[0] == []
    assert {"torch", "transformers"} & set(results[1]) == set()


@settings(max_examples=50)
@given(st.lists(st.text("ab \n", min_size=0, max_size=4), max_size=12))
def test_pieces_that_make_up_the_text_are_found_where_they_are(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert ["".join(text[start:end]) for start, end in query_text.spans(text, pieces)] == pieces
    for index in range(len(pieces) + 1):
        shown = query_text.around(text, pieces, index, "<{}>".format)
        assert shown.strip("…").replace("<", "").replace(">", "") in text.replace("\n", "↵")


@settings(max_examples=50)
@given(st.text("aé😀 ", max_size=20), st.lists(st.text("aé😀 b", max_size=3), max_size=12))
def test_pieces_that_do_not_fit_the_text_are_accepted(text: str, pieces: list[str]) -> None:
    ends = [0, *(end for _, end in query_text.spans(text, pieces))]
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)


@settings(max_examples=50)
@given(st.floats(-1e300, 1e300))
def test_numbers_have_four_digits(number: float) -> None:
    assert float(query_text.shown(number)) == pytest.approx(number, rel=1e-3)
