"""The source csv: what becomes of rows and columns, what a file is, and what is said about a bad one."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import BadInput, DataError
from toolkit.models import Span, Tokens
from toolkit.records import SourcePart
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_samples import toolkit_parts
from toolkit_samples._csv_file import Csv, identify

PART = next(part for part in toolkit_parts() if isinstance(part, SourcePart))
Write = Callable[[str], Path]
CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


class Words:
    """A model whose tokens are words with the space before them; a chat puts a header in front."""

    def tokenise(self, text: str, *, chat: bool = False, spans: Sequence[Span] = (), name: str = "") -> Tokens:
        rendered = f"<user> {text}" if chat else text
        pieces = tuple(re.findall(r"\s*\S+|\s+", rendered))
        if len(pieces) > 9:
            raise DataError(f"sample '{name}' has {len(pieces)} tokens")
        return Tokens(rendered, tuple(range(len(pieces))), pieces)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> Path:
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return put


def tables(path: Path, limit: int | None = None, **params: Any) -> dict[str, list[dict[str, Any]]]:
    work = make_work(Csv(path=str(path), **params), model=Words(), limit_units=limit)
    return {name: table.to_pylist() for name, table in PART.run(work)}


def meta(path: Path, **params: Any) -> dict[tuple[str, str], float | str]:
    rows = tables(path, **params)["sample_meta"]
    return {(row["sample"], row["key"]): row["string"] if row["number"] is None else row["number"] for row in rows}


def refused(path: Path, message: str, **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        tables(path, **params)
    assert str(caught.value) == f"{path}{message}"


def test_it_keeps_the_contract(write: Write) -> None:
    path = write("text,unit,score,label\none two,g1,1,a\nthree,g1,2.5,b\nfour,g2,,a\n")
    check_part(PART, params={"path": str(path), "unit": "unit"}, work=make_work(model=Words()))


# --- samples and metadata -----------------------------------------------------------------------------------------------


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


def test_another_column_may_hold_the_text_and_chat_is_the_models(write: Write) -> None:
    (sample,) = tables(write("prompt,label\nhello,a\n"), text="prompt", chat=True)["samples"]
    assert sample["text"] == "<user> hello"
    assert sample["pieces"] == ["<user>", " hello"]
    assert sample["prompt_hash"] == hashlib.sha256(b"<user> hello").hexdigest()


def test_a_limit_keeps_whole_units_and_does_not_change_what_a_column_holds(write: Write) -> None:
    path = write("text,game,score\none,g1,1\ntwo,g2,2\nthree,g1,3\nfour,g3,x\n")
    found = tables(path, limit=1, unit="game")
    assert [row["text"] for row in found["samples"]] == ["one", "three"]
    assert [row["string"] for row in found["sample_meta"]] == ["1", "3"]


@settings(max_examples=40)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_any_text_that_python_writes_as_csv_comes_back(rows: list[tuple[str, str]]) -> None:
    rows = [(f'{text[:3]} "a",\nb', f"x{label}") for text, label in rows]
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("text", "label"), *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_text(written.getvalue(), encoding="utf-8", newline="")
        found = tables(path)
    assert [row["text"] for row in found["samples"]] == [text for text, _ in rows]
    assert [row["string"] for row in found["sample_meta"]] == [label for _, label in rows]


# --- what the file is ---------------------------------------------------------------------------------------------------


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


def test_a_wrong_column_is_told_when_the_file_is_identified(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.csv:1: text: there is no column 'text'\."):
        identify(Csv(path=str(write("prompt\none\n"))), tmp_path)


# --- bad files ----------------------------------------------------------------------------------------------------------


def test_a_missing_column_is_answered_with_those_there_are(write: Write) -> None:
    path = write("txt,game\none,g\n")
    refused(path, ":1: text: there is no column 'text'. Did you mean 'txt'? Columns: txt, game.")
    refused(path, ":1: unit: there is no column 'gam'. Did you mean 'game'? Columns: txt, game.", text="txt", unit="gam")
    refused(path, ":1: columns: there is no column 'score'. Columns: txt, game.", text="txt", columns=("game", "score"))


def test_an_empty_file(write: Write) -> None:
    refused(write(""), ":1: the file is empty. Its first line names the columns, one of them 'text'.")


def test_a_header_without_rows(write: Write) -> None:
    refused(write("text,label\n\n"), ":1: there are no rows below the header. Add a row a sample.")


def test_an_empty_text_is_named_by_the_line_where_its_row_begins(write: Write) -> None:
    path = write('text,label\n"one\ntwo",a\n\n" ",b\n')
    refused(path, ":5: column 'text' is empty here. Fill it in, or take the row out.")


def test_an_empty_unit(write: Write) -> None:
    refused(write("text,game\none,\n"), ":2: column 'game' is empty here. Fill it in, or take the row out.", unit="game")


def test_a_row_with_too_many_cells(write: Write) -> None:
    message = ":2: this row has 3 cells, the header 2. Put double quotes around a cell with commas or newlines in it."
    refused(write("text,label\none, two,a\n"), message)


def test_a_column_named_twice(write: Write) -> None:
    refused(write("text,a,a\none,1,2\n"), ":1: there are 2 columns 'a'. Give each its own name.")


def test_a_quote_that_does_not_end(write: Write) -> None:
    message = ":3: this is no CSV: unexpected end of data. Put double quotes around cells, and double those inside."
    refused(write('text\none\n"two\n'), message)


def test_another_encoding(write: Write) -> None:
    path = write("")
    path.write_bytes("text\ncafé\n".encode("latin-1"))
    refused(path, ":1: near here the file is not UTF-8 (invalid continuation byte). Save it as UTF-8.")


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write) -> None:
    assert tables(write("\N{ZERO WIDTH NO-BREAK SPACE}text\none\n"))["samples"][0]["text"] == "one"


def test_a_text_that_is_too_long_names_its_line(write: Write) -> None:
    with pytest.raises(DataError, match=r"sample '000001 \(data.csv:3\)' has 10 tokens"):
        tables(write("text\none\n" + "w " * 9 + "w\n"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder; name a CSV file in it\."):
        tables(tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is nothing at .*nowhere.csv"):
        identify(Csv(path=str(tmp_path / "nowhere.csv")), tmp_path)
