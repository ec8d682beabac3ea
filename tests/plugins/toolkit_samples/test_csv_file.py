"""The source csv: what becomes of rows and columns, what a file is, and what is said about a bad
one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.plugins.toolkit_samples.conftest import PARTS, Words, meta_of, tables_of
from toolkit.errors import BadInput, DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_samples._csv_file import Csv

identify = PARTS["csv"].identify

Write = Callable[[str], Path]
CELL = st.text(st.characters(exclude_categories=["Cs"]))
TEXT = CELL.filter(str.strip).filter(lambda text: len(text.split()) < 5)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> Path:
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return put


def tables(path: Path, limit: int | None = None, **params: Any) -> dict[str, list[dict[str, Any]]]:
    return tables_of("csv", Csv(path=str(path), **params), limit)


def meta(path: Path, **params: Any) -> dict[tuple[str, str], float | str]:
    return meta_of(tables(path, **params))


def refused(path: Path, message: str, **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        tables(path, **params)
    assert str(caught.value) == f"{path}{message}"


def test_it_keeps_the_contract(write: Write) -> None:
    path = write("text,unit,score,label\none two,g1,1,a\nthree,g1,2.5,b\nfour,g2,,a\n")
    check_part(
        PARTS["csv"], params={"path": str(path), "unit": "unit"}, work=make_work(model=Words())
    )


# --- samples and metadata -------------------------------------------------------------------------


def test_a_row_is_a_sample_and_its_own_unit(write: Write) -> None:
    first, second = tables(write("text\none two\nthree\n"))["samples"]
    digest = hashlib.sha256(b"one two").hexdigest()
    assert first == {
        "sample": "000000",
        "unit": "000000",
        "cluster": digest,
        "text": "one two",
        "token_ids": [0, 1],
        "pieces": ["one", " two"],
        "spans": [],
        "prompt_hash": digest,
        "bos": False,
    }
    assert (second["sample"], second["unit"], second["text"]) == ("000001", "000001", "three")


def test_equal_prompts_are_one_cluster(write: Write) -> None:
    a, b, c = tables(write("text\nsame\nother\nsame\n"))["samples"]
    assert a["cluster"] == c["cluster"] != b["cluster"]


def test_columns_of_numbers_become_numbers_and_others_text(write: Write) -> None:
    path = write("text,score,label,mixed,code,large\none,1,a,1,007,1e999\ntwo,-2.5e1,b,x,042,1\n")
    assert meta(path) == {
        ("000000", "score"): 1.0,
        ("000000", "label"): "a",
        ("000000", "mixed"): "1",
        ("000000", "code"): "007",
        ("000000", "large"): "1e999",
        ("000001", "score"): -25.0,
        ("000001", "label"): "b",
        ("000001", "mixed"): "x",
        ("000001", "code"): "042",
        ("000001", "large"): "1",
    }


def test_an_empty_cell_says_nothing_and_leaves_a_column_of_numbers_one(write: Write) -> None:
    assert meta(write("text,score\none,\ntwo,3\n")) == {("000001", "score"): 3.0}


def test_only_the_asked_columns_become_metadata(write: Write) -> None:
    path = write("text,game,score,label\none,g1,1,a\n")
    assert set(meta(path, columns=("label",))) == {("000000", "label")}
    assert set(meta(path, unit="game")) == {("000000", "score"), ("000000", "label")}
    assert meta(path, columns=()) == {}


def test_rows_keep_their_numbers_when_asked(write: Write) -> None:
    path = write("text,id,game\none,z,g1\ntwo,b,g2\nthree,a,g1\n")
    params = {"id": "id", "unit": "game", "columns": (), "row": "row"}
    assert meta(path, **params) == {("z", "row"): 0.0, ("b", "row"): 1.0, ("a", "row"): 2.0}
    assert [row["number"] for row in tables(path, 1, **params)["sample_meta"]] == [0.0, 2.0]
    refused(
        path,
        ":2 (row 1): row: there is a column 'game' already. Give the rows' numbers another key.",
        row="game",
    )


def test_another_column_may_hold_the_text_and_chat_is_the_models(write: Write) -> None:
    (sample,) = tables(write("prompt,label\nhello,a\n"), text="prompt", chat=True)["samples"]
    assert sample["text"] == "<user> hello"
    assert sample["pieces"] == ["<user>", " hello"]
    assert sample["prompt_hash"] == hashlib.sha256(b"<user> hello").hexdigest()


def test_a_limit_keeps_whole_units_and_does_not_change_what_a_column_holds(write: Write) -> None:
    path = write("text,game,score\none,g1,1\ntwo,g2,2\nthree,g1,3\nfour,g3,x\n")
    results = tables(path, limit=1, unit="game")
    assert [row["text"] for row in results["samples"]] == ["one", "three"]
    assert [row["string"] for row in results["sample_meta"]] == ["1", "3"]


@settings(max_examples=80)
@given(
    st.lists(st.tuples(TEXT, CELL), min_size=1, max_size=8),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_any_text_that_python_writes_as_csv_comes_back(
    rows: list[tuple[str, str]], quoting: Any, encoding: str
) -> None:
    rows = [(text, f"x{label}") for text, label in rows]
    written = io.StringIO(newline="")
    csv.writer(written, quoting=quoting).writerows([("text", "label"), *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_text(written.getvalue(), encoding=encoding, newline="")
        results = tables(path)
    assert [row["text"] for row in results["samples"]] == [text for text, _ in rows]
    assert [row["string"] for row in results["sample_meta"]] == [label for _, label in rows]


# --- what the file is -----------------------------------------------------------------------------


def test_the_file_is_what_it_holds_wherever_it_lies(write: Write, tmp_path: Path) -> None:
    path = write("text\none\n")
    other = tmp_path / "elsewhere" / "data.csv"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    first, second = (identify(Csv(path=str(file)), tmp_path) for file in (path, other))
    assert first == second
    assert first.digest == hashlib.sha256(b"text\none\n").hexdigest()
    assert first.name == "data.csv"
    assert identify(Csv(path=str(write("text\ntwo\n"))), tmp_path).digest != first.digest


def test_the_path_is_relative_to_the_spec_and_enters_no_key(write: Write, tmp_path: Path) -> None:
    path = write("text\none\n")
    params = Csv.model_validate({"path": "data.csv"}, context={"folder": tmp_path})
    assert params.path == str(path.resolve())
    assert Csv.model_fields["path"].json_schema_extra == {"hashed": False}


def test_a_wrong_column_is_reported_when_the_file_is_identified(
    write: Write, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"data.csv:1: text: there is no column 'text'\."):
        identify(Csv(path=str(write("prompt\none\n"))), tmp_path)


# --- bad files ------------------------------------------------------------------------------------


def test_a_missing_column_is_answered_with_those_there_are(write: Write) -> None:
    path = write("txt,game\none,g\n")
    refused(path, ":1: text: there is no column 'text'. Did you mean 'txt'? Columns: txt, game.")
    refused(
        path,
        ":1: unit: there is no column 'gam'. Did you mean 'game'? Columns: txt, game.",
        text="txt",
        unit="gam",
    )
    refused(
        path,
        ":1: columns: there is no column 'score'. Columns: txt, game.",
        text="txt",
        columns=("game", "score"),
    )


def test_an_empty_file(write: Write) -> None:
    refused(
        write(""), ":1: the file is empty. Its first line names the columns, one of them 'text'."
    )


def test_a_header_without_rows(write: Write) -> None:
    refused(
        write("text,label\n\n"), ":1: there are no rows below the header. Add one row per sample."
    )


def test_an_empty_text_is_named_by_the_line_where_its_row_begins(write: Write) -> None:
    path = write('text,label\n"one\ntwo",a\n\n" ",b\n')
    refused(path, ":5 (row 2): column 'text' is empty here. Fill it in, or take the row out.")


def test_an_empty_unit(write: Write) -> None:
    refused(
        write("text,game\none,\n"),
        ":2 (row 1): column 'game' is empty here. Fill it in, or take the row out.",
        unit="game",
    )


def test_a_row_with_too_many_cells(write: Write) -> None:
    message = (
        ":2 (row 1): this row has 3 cells, the header 2. Put double quotes around a cell with "
        "commas or newlines in it."
    )
    refused(write("text,label\none, two,a\n"), message)


def test_a_column_named_twice(write: Write) -> None:
    refused(write("text,a,a\none,1,2\n"), ":1: there are 2 columns 'a'. Give each its own name.")


def test_a_quote_that_does_not_end(write: Write) -> None:
    message = (
        ":3 (row 2): this is not valid CSV: unexpected end of data. Put double quotes around "
        "cells, and double the quotes inside."
    )
    refused(write('text\none\n"two\n'), message)


def test_another_encoding(write: Write) -> None:
    path = write("")
    path.write_bytes("text\ncafé\n".encode("latin-1"))
    message = (
        ":2 (row 1): byte 4 of this line (0xe9), after 'caf', is not UTF-8 (invalid continuation "
        "byte). Save the whole file as UTF-8; it may hold Latin-1 or Windows-1252 in places."
    )
    refused(path, message)


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write) -> None:
    assert tables(write("\N{ZERO WIDTH NO-BREAK SPACE}text\none\n"))["samples"][0]["text"] == "one"


def test_a_text_that_is_too_long_names_its_line(write: Write) -> None:
    with pytest.raises(DataError, match=r"sample '000001 at .*data.csv:3 \(row 2\)' has 10 tokens"):
        tables(write("text\none\n" + "w " * 9 + "w\n"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder; name a CSV file in it\."):
        tables(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="pipe is a named pipe, not a file"):
        tables(tmp_path / "pipe")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.csv does not exist"):
        identify(Csv(path=str(tmp_path / "nowhere.csv")), tmp_path)


def test_latin_1_in_the_middle_of_utf_8_is_found_to_the_byte(write: Write, tmp_path: Path) -> None:
    path = write("")
    path.write_bytes("text\nna\u00efve \u4e2d\n".encode() * 3000 + b"text\nol\xe9 ol\xc3\xa9\n")
    with pytest.raises(
        DataError,
        match=r"data.csv:6002 \(row 6001\): byte 3 of this line \(0xe9\), after 'ol', is not UTF-8",
    ):
        identify(Csv(path=str(path)), tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\N{ZERO WIDTH NO-BREAK SPACE}"])
def test_a_wrong_byte_in_a_sentence_of_several_lines_is_in_that_row(
    write: Write, end: str, mark: str
) -> None:
    path = write("")
    lines = [
        mark + '"text","label"',
        '"one,',
        '""two""",a',
        "",
        '"three',
        "four\u00e9",
        'f\u00fcnf",b',
        "six,c",
        "",
    ]
    good = end.join(lines).encode()
    for number, letter in ((6, "\u00e9"), (7, "\u00fc")):
        bad = good.replace(letter.encode(), letter.encode("latin-1"))
        path.write_bytes(bad)
        refused_at(path, rf"data.csv:{number} \(row 2\): byte \d of this line")
    path.write_bytes(good.replace(b'"label"', b'"lab\xe9l"'))
    refused_at(path, r"data.csv:1: byte \d\d of this line")
    path.write_bytes(good.replace(b"six", b"s\xedx"))
    refused_at(path, r"data.csv:8 \(row 3\): byte 2 of this line \(0xed\), after 's',")


def refused_at(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        identify(Csv(path=str(path)), path.parent)


def test_a_wrong_byte_behind_what_is_no_csv_is_reported_by_its_line(write: Write) -> None:
    path = write("")
    path.write_bytes(b'text\n"one"two\ncaf\xe9\n')
    refused_at(path, r"data.csv:3: byte 4 of this line")


def test_utf_16_is_called_by_its_name(write: Write) -> None:
    path = write("")
    path.write_bytes("text\none\n".encode("utf-16"))
    refused(path, ":1: the file is UTF-16. Save it as UTF-8.")


def test_line_ends_of_other_systems_and_inside_quotes(write: Write) -> None:
    results = tables(write('text,label\r\n"one,\r\n""two""",a\r\nthree,b\r\n'))
    assert [row["text"] for row in results["samples"]] == ['one,\r\n"two"', "three"]
    assert [row["string"] for row in results["sample_meta"]] == ["a", "b"]


def test_a_hundred_thousand_tokens_are_read_and_refused_by_the_models_context_not_by_the_csv_reader(
    write: Write,
) -> None:
    limit = csv.field_size_limit()
    path = write("text\none\n" + "word " * 100_000 + "\n")
    with pytest.raises(
        DataError, match=r"data.csv:3 \(row 2\)' has 100001 tokens; words reads at most 9"
    ):
        tables(path)
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("cell", ["4", "-1", "1.5", "high", "two", "1_0", "", "nan", "1e400"])
def test_a_label_is_a_whole_number_of_its_range(write: Write, cell: str) -> None:
    result = f"holds '{cell}'" if cell else "is empty"
    message = (
        f":3 (row 2): column 'level' {result} here; a label is a whole number from 0 to 3. "
        f"Correct it, or take the row out; a missing label is never a 0."
    )
    refused(write(f"text,level\none,3\ntwo,{cell}\n"), message, label="level")


def test_labels_are_numbers_also_when_a_spreadsheet_wrote_a_point(write: Write) -> None:
    path = write("text,level,note\none,2.0,a\ntwo, 7 ,b\n")
    assert meta(path, label="level", label_range=(2, 7), columns=()) == {
        ("000000", "level"): 2.0,
        ("000001", "level"): 7.0,
    }


def test_a_range_of_labels_goes_upwards() -> None:
    with pytest.raises(
        ValidationError, match="3 is not below 0; write the lowest label, then the highest"
    ):
        Csv(path="x.csv", label_range=(3, 0))


def test_a_long_wrong_label_is_cut_in_the_message(write: Write) -> None:
    with pytest.raises(DataError, match=rf"holds '{'x' * 40}\.\.\.' here"):
        tables(write(f"text,level\none,{'x' * 4000}\n"), label="level")


def test_ids_are_the_files_own_and_stand_once(write: Write) -> None:
    path = write("name,text\na,one\nb,two\n")
    assert [row["sample"] for row in tables(path, id="name")["samples"]] == ["a", "b"]
    assert meta(path, id="name") == {}
    path = write('name,text\na,"one\none"\nb,two\na,three\n')
    refused(
        path,
        f":5 (row 3): column 'name' holds 'a' again; it stands at {path}:2 (row 1) already. Give "
        "each its own id.",
        id="name",
    )


def test_everything_but_the_length_is_reported_before_anything_runs(
    write: Write, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"data.csv:3 \(row 2\): column 'level' is empty here"):
        identify(Csv(path=str(write("text,level\none,1\ntwo,\n")), label="level"), tmp_path)


def test_the_identity_says_how_much_there_is(write: Write, tmp_path: Path) -> None:
    path = write("text,game,mood,odds\none,a,glad,1\ntwo,b,sad,2.5\nthree,a,glad,1.0\n")
    assert identify(Csv(path=str(path), unit="game"), tmp_path).facts == {
        "bytes": path.stat().st_size,
        "rows": 3,
        "units": 2,
        "labels": {"mood": ["glad", "sad"], "odds": ["1", "2.5"]},
    }


def test_a_column_of_many_values_is_none_of_groups(write: Write, tmp_path: Path) -> None:
    rows = "".join(f"text {number},{number}\n" for number in range(51))
    path = write(f"text,number\n{rows}")
    assert identify(Csv(path=str(path)), tmp_path).facts["labels"] == {"number": None}


def test_a_plan_knows_how_many_samples_there_are(write: Write) -> None:
    most = PARTS["csv"].estimates.max_rows
    assert most is not None
    assert most(Csv(path=str(write("text\none\ntwo\n"))), {}) == {"samples": 2}
