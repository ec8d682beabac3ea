"""The source jsonl: what becomes of lines and keys, and what is said about a bad one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.toolkit_samples.conftest import PARTS, Words, meta_of, tables_of
from toolkit.errors import BadInput, DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_samples._jsonl_file import Jsonl

Write = Callable[[str], Path]
TEXT = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    .filter(str.strip)
    .filter(lambda text: len(text.split()) < 5)
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return put


def tables(path: Path, limit: int | None = None, **params: Any) -> dict[str, list[dict[str, Any]]]:
    return tables_of("jsonl", Jsonl(path=str(path), **params), limit)


def refused(path: Path, message: str, **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        tables(path, **params)
    assert str(caught.value) == f"{path}{message}"


def test_it_keeps_the_contract(write: Write) -> None:
    path = write(
        '{"text": "one two", "game": "g", "score": 1}\n'
        '{"text": "three", "game": "h", "score": null}\n'
    )
    check_part(
        PARTS["jsonl"], params={"path": str(path), "unit": "game"}, work=make_work(model=Words())
    )


def test_a_line_is_a_sample_and_its_other_keys_are_metadata(write: Write) -> None:
    results = tables(
        write(
            '{"text": "one two", "score": 1.5, "kind": "a"}\r\n\r\n'
            '{"kind": "b", "text": "three", "ok": true}'
        )
    )
    assert [(row["sample"], row["unit"], row["text"]) for row in results["samples"]] == [
        ("000000", "000000", "one two"),
        ("000001", "000001", "three"),
    ]
    assert results["samples"][0]["cluster"] == hashlib.sha256(b"one two").hexdigest()
    assert meta_of(results) == {
        ("000000", "score"): 1.5,
        ("000000", "kind"): "a",
        ("000001", "kind"): "b",
        ("000001", "ok"): "true",
    }


def test_a_text_that_looks_like_a_number_is_a_text_and_a_mixed_key_too(write: Write) -> None:
    results = tables(
        write(
            '{"text": "one", "code": "7", "mixed": 7}\n{"text": "two", "code": "8", "mixed": "x"}\n'
        )
    )
    assert meta_of(results) == {
        ("000000", "code"): "7",
        ("000000", "mixed"): "7",
        ("000001", "code"): "8",
        ("000001", "mixed"): "x",
    }


def test_ids_units_and_labels_are_keys_and_a_limit_keeps_whole_units(write: Write) -> None:
    lines = [
        {"id": 3, "text": "one", "game": "g", "level": "2"},
        {"id": 4, "text": "two", "game": "h", "level": 3},
    ]
    path = write("".join(json.dumps(line) + "\n" for line in lines))
    results = tables(path, limit=1, id="id", unit="game", label="level")
    assert [(row["sample"], row["unit"]) for row in results["samples"]] == [("3", "g")]
    assert meta_of(results) == {("3", "level"): 2.0}


def test_columns_choose_and_nested_values_are_none_of_them(write: Write) -> None:
    path = write('{"text": "one", "a": 1, "deep": {"b": [1, 2]}}\n')
    assert meta_of(tables(path, columns=("a",))) == {("000000", "a"): 1.0}
    message = (
        ":1: 'deep' holds an object; metadata are texts and numbers. Name the keys you want with "
        "`columns`, or write it as a text."
    )
    refused(path, message)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_that_python_writes_as_json_comes_back(
    rows: list[tuple[str, str]], ascii: bool, end: str
) -> None:
    lines = [
        json.dumps({"text": text, "note": f"x{note}"}, ensure_ascii=ascii) for text, note in rows
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.jsonl"
        path.write_text(end.join([*lines, ""]), encoding="utf-8-sig", newline="")
        results = tables(path)
    assert [row["text"] for row in results["samples"]] == [text for text, _ in rows]
    assert [row["string"] for row in results["sample_meta"]] == [f"x{note}" for _, note in rows]


def test_the_file_is_what_it_holds(write: Write, tmp_path: Path) -> None:
    path = write('{"text": "one"}\n')
    result = PARTS["jsonl"].identify(Jsonl(path=str(path)), tmp_path)
    assert result.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.facts == {"bytes": 16, "rows": 1, "units": 1, "labels": {}}


# --- bad files ------------------------------------------------------------------------------------


def test_a_file_cut_off_in_the_middle_of_a_line_is_reported_before_anything_runs(
    write: Write, tmp_path: Path
) -> None:
    path = write('{"text": "one"}\n{"text": "two", "lab')
    refused(
        path,
        ":2: the file is cut off in the middle of this line, at character 20. Copy or write it "
        "again.",
    )
    with pytest.raises(DataError, match="cut off in the middle"):
        PARTS["jsonl"].identify(Jsonl(path=str(path)), tmp_path)


def test_a_last_line_without_its_end_is_whole_when_it_can_be_read(write: Write) -> None:
    assert len(tables(write('{"text": "one"}\n{"text": "two"}'))["samples"]) == 2


def test_every_other_place_in_which_a_file_may_be_cut_is_noticed(write: Write) -> None:
    whole = '{"text": "one", "level": 12}\n{"text": "two", "level": 13}'
    for length in range(30, len(whole)):
        with pytest.raises(DataError, match=r":2: the file is cut off"):
            tables(write(whole[:length]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{'text': 1}",
            "this line is not JSON: Expecting property name enclosed in double quotes at "
            "character 2. Write one object per line.",
        ),
        (
            '{"text": "o',
            "this line is not JSON: Unterminated string starting at character 10. Write "
            "one object per line.",
        ),
        ('["one"]', 'this line holds a list; expected a JSON object, like {"text": ...}.'),
        ("null", 'this line holds null; expected a JSON object, like {"text": ...}.'),
        ('{"text": "one", "text": "two"}', "the key 'text' stands twice in one object. Keep one."),
        (
            '{"text": "one", "x": NaN}',
            "NaN is not a number in JSON. Leave the key out, or write null.",
        ),
        ('{"text": "  "}', "column 'text' is empty here. Fill it in, or take the row out."),
        ('{"text": null}', "column 'text' is empty here. Fill it in, or take the row out."),
        ('{"txt": "one"}', "column 'text' is empty here. Fill it in, or take the row out."),
        (
            '{"text": 12}',
            "column 'text' holds the number 12; expected a text. Put quotes around it.",
        ),
        (
            '{"text": "a\\ud800b"}',
            "'text' holds half a surrogate pair (\\ud800) at character 2; that is no "
            "text. Write the file again with whole characters.",
        ),
        (
            '{"text": "one", "x": 1e999}',
            "'x' holds a number too large; metadata are texts and numbers. Name the keys "
            "you want with `columns`, or write it as a text.",
        ),
        (
            "[" * 100_000,
            "lists or objects lie too deep in this line. Write one flat object per line.",
        ),
    ],
)
def test_a_bad_line_is_named(write: Write, line: str, message: str) -> None:
    refused(write(f'{{"text": "fine"}}\n{line}\n'), f":2: {message}")


def test_bytes_of_another_encoding(write: Write) -> None:
    path = write("")
    path.write_bytes(b'{"text": "one"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(
        DataError,
        match=r"data.jsonl:2: byte 14 of this line \(0xe9\), after '{\"text\": "
        r"\"caf', "
        r"is "
        r"not UTF-8",
    ):
        tables(path)


def test_a_label_out_of_its_range(write: Write) -> None:
    message = (
        ":2: column 'level' holds '5' here; a label is a whole number from 0 to 3. "
        "Correct it, or take the row out; a missing label is never a 0."
    )
    refused(
        write('{"text": "one", "level": 1}\n{"text": "two", "level": 5}\n'), message, label="level"
    )


def test_an_id_that_stands_twice(write: Write) -> None:
    path = write('{"text": "one", "id": "a"}\n{"text": "two", "id": "a"}\n')
    refused(
        path,
        f":2: column 'id' holds 'a' again; it stands at {path}:1 already. Give each its own id.",
        id="id",
    )


def test_a_key_that_no_line_has(write: Write) -> None:
    refused(
        write('{"txt": "one"}\n'),
        ":1: text: there is no column 'text'. Did you mean 'txt'? Columns: txt.",
    )


def test_an_empty_file(write: Write) -> None:
    refused(
        write("\n \n"),
        ":1: the file is empty. Write one JSON object per line, with the key 'text'.",
    )


def test_a_text_too_long_for_the_model(write: Write) -> None:
    with pytest.raises(DataError, match=r"sample '000000 at .*data.jsonl:1' has 100000 tokens"):
        tables(write(json.dumps({"text": "w" + " w" * 99_999}) + "\n"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder; name a JSONL file in it\."):
        tables(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="pipe is a named pipe, not a file"):
        tables(tmp_path / "pipe")


def test_a_plan_knows_how_many_samples_there_are(write: Write) -> None:
    most = PARTS["jsonl"].estimates.max_rows
    assert most is not None
    assert most(Jsonl(path=str(write('{"text": "one"}\n{"text": "two"}\n'))), {}) == {"samples": 2}
