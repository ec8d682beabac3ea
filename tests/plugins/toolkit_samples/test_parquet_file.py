"""The source parquet: what becomes of rows and columns, and what is said about a bad one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.toolkit_samples.conftest import PARTS, Words, meta_of, tables_of
from toolkit.errors import BadInput, DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_samples._jsonl_file import Jsonl
from toolkit_samples._parquet_file import Parquet

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(**columns: Any) -> Path:
        path = tmp_path / "data.parquet"
        pl.DataFrame(columns).write_parquet(path)
        return path

    return put


def tables(path: Path, limit: int | None = None, **params: Any) -> dict[str, list[dict[str, Any]]]:
    return tables_of("parquet", Parquet(path=str(path), **params), limit)


def refused(path: Path, message: str, **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        tables(path, **params)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_it_keeps_the_contract(write: Write) -> None:
    path = write(text=["one two", "three"], game=["g", "h"], score=[1, None])
    check_part(
        PARTS["parquet"], params={"path": str(path), "unit": "game"}, work=make_work(model=Words())
    )


def test_a_row_is_a_sample_and_its_other_columns_are_metadata(write: Write) -> None:
    results = tables(
        write(
            text=["one two", "three"],
            score=[1.5, float("nan")],
            count=[3, None],
            ok=[True, False],
            day=[date(2026, 1, 2), None],
            kind=pl.Series(["a", "b"], dtype=pl.Categorical),
        )
    )
    assert [(row["sample"], row["text"]) for row in results["samples"]] == [
        ("000000", "one two"),
        ("000001", "three"),
    ]
    assert meta_of(results) == {
        ("000000", "score"): 1.5,
        ("000000", "count"): 3.0,
        ("000000", "ok"): "true",
        ("000000", "day"): "2026-01-02",
        ("000000", "kind"): "a",
        ("000001", "ok"): "false",
        ("000001", "kind"): "b",
    }


def test_only_columns_that_are_used_are_read(write: Write) -> None:
    """A list among them is refused, unless it is left out."""
    path = write(text=["one"], vector=[[1.0, 2.0]], n=[1])
    refused(path, "column 'vector' holds List(Float64)")
    assert meta_of(tables(path, columns=["n"])) == {("000000", "n"): 1.0}


@pytest.mark.parametrize(
    ("columns", "params", "message"),
    [
        ({"words": ["a"]}, {}, "there is no column 'text'"),
        ({"text": ["a"]}, {"unit": "game"}, "unit: there is no column 'game'"),
        ({"text": pl.Series([], dtype=pl.String)}, {}, "the file has no rows"),
        ({"text": ["a", None]}, {}, "(row 2)"),
        ({"text": ["a", "  "]}, {}, "(row 2)"),
        ({"text": [1.0]}, {}, "holds the number 1"),
        ({"text": ["a"], "x": [math.inf]}, {}, "'x' holds an infinite number"),
        ({"text": ["a", "b"], "key": ["k", "k"]}, {"id": "key"}, "holds 'k' again"),
    ],
)
def test_a_bad_file_is_refused_with_its_location(
    write: Write, columns: dict[str, Any], params: dict[str, Any], message: str
) -> None:
    refused(write(**columns), message, **params)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text\nhello\n", b"PAR1" + bytes(64) + b"PAR1"])
def test_what_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    refused(path, "cannot be read as Parquet")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder; name a Parquet file"):
        tables(tmp_path)


def test_what_the_file_holds_is_its_identity(write: Write, tmp_path: Path) -> None:
    path = write(text=["a", "b"], game=["g", "g"])
    known = PARTS["parquet"].identify(Parquet(path=str(path), unit="game"), tmp_path)
    assert known.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (known.facts["rows"], known.facts["units"]) == (2, 1)
    assert PARTS["parquet"].estimates.max_rows(Parquet(path=str(path)), {}) == {"samples": 2}


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.sampled_from(["one", "two words", "three"]),
            "score": st.none() | st.integers(-(2**31), 2**31),
            "kind": st.none() | st.sampled_from(["a", "b", " "]),
        }
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_it_reads_what_json_lines_of_the_same_rows_say(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    import json

    folder = tmp_path_factory.mktemp("rows")
    schema = {"text": pl.String, "score": pl.Int64, "kind": pl.String}
    pl.DataFrame(rows, schema).write_parquet(folder / "data.parquet")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = tables_of("jsonl", Jsonl(path=str(folder / "data.jsonl")))
    results = tables(folder / "data.parquet")
    assert results["samples"] == lines["samples"]
    assert meta_of(results) == meta_of(lines)
