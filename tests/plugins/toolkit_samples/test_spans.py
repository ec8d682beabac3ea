"""Spans that a file marks, in the text or by offsets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.plugins.toolkit_samples.conftest import PARTS
from toolkit.errors import DataError
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit_lab import model_path
from toolkit_samples._spans import from_marks, from_offsets

PROMPTS = PARTS["prompts"].params


@pytest.fixture(scope="module")
def model() -> Any:
    from toolkit_hf._identity import HuggingFace
    from toolkit_hf._load import load

    return load(HuggingFace(path=str(model_path()), device="cpu"), SilentReporter())


def rows_of(source: str, params: Any, model: Any) -> tuple[list[dict[str, Any]], Any]:
    work = make_work(params, model=model)
    tables = dict(PARTS[source].run(work))
    return tables["samples"].to_pylist(), work.report


def spanned(row: dict[str, Any]) -> dict[str, str]:
    return {
        span["name"]: "".join(row["pieces"][span["start"] : span["end"]]).strip()
        for span in row["spans"]
    }


def test_marks_are_taken_out_and_become_spans(model: Any) -> None:
    text = "Current balance: $<span balance>90</span>\nGoal: <span goal>$200</span>"
    (row,), _ = rows_of("prompts", PROMPTS(prompts=(text,), marks=True), model)
    assert row["text"].endswith("Current balance: $90\nGoal: $200")
    assert spanned(row) == {"balance": "90", "goal": "$200"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_column_of_offsets(kind: str, tmp_path: Path, model: Any) -> None:
    path = tmp_path / f"texts.{kind}"
    path.write_text(
        'text,where,kind\n"Bet $10 now",amount:5-7,x\n"Stop",,y\n'
        if kind == "csv"
        else '{"text": "Bet $10 now", "where": "amount:5-7", "kind": "x"}\n'
        '{"text": "Stop", "where": null, "kind": "y"}\n'
    )
    params = PARTS[kind].params(path=str(path), spans="where")
    rows, _ = rows_of(kind, params, model)
    assert [spanned(row) for row in rows] == [{"amount": "10"}, {}]
    meta = dict(PARTS[kind].run(make_work(params, model=model)))["sample_meta"].to_pylist()
    assert {row["key"] for row in meta} == {"kind"}, "offsets are no metadata"


def test_a_span_that_the_tokeniser_splits_is_reported(model: Any) -> None:
    texts = ({"text": "Current balance: $90", "where": "part:9-12"},)
    (row,), report = rows_of("prompts", PROMPTS(prompts=texts, spans="where"), model)
    assert "bal" in spanned(row)["part"]
    (warning,) = [facts["text"] for name, facts in report.events if name == "warning"]
    assert "The tokeniser splits spans: 'part' of 000000" in warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <span x>b", "`<span x>` is not a complete mark"),
        ("a </span> b", "`</span>` is not a complete mark"),
        ("a <span x></span>", "marks nothing"),
        ("<span x>a <span y>b</span></span>", "lies inside another"),
        ("a <span 1>b</span>", "is not a complete mark"),
    ],
)
def test_marks_that_are_none(text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"file:3: .*{message}"):
        from_marks(text, "file:3")
    with pytest.raises(ValidationError, match=message):
        PROMPTS(prompts=(text,), marks=True)


@pytest.mark.parametrize("cell", ["balance", "balance:3", "balance:5-3", "balance:0-99", ":1-2"])
def test_offsets_that_are_none(cell: str) -> None:
    with pytest.raises(DataError, match="file:3: column 'where'"):
        from_offsets(cell, "ten chars!", "file:3", "where")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b-1"]),
            st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1),
        )
    )
)
def test_marks_and_offsets_agree(parts: list[tuple[str, str]]) -> None:
    """What marks give is what its own offsets give back."""
    text = " ".join(f"<span {name}>{inside}</span>" for name, inside in parts)
    plain, spans = from_marks(text, "p")
    assert plain == " ".join(inside for _, inside in parts)
    assert [plain[start:end] for _, start, end in spans] == [inside for _, inside in parts]
    cell = ";".join(f"{name}:{start}-{end}" for name, start, end in spans)
    assert from_offsets(cell, plain, "p", "c") == spans
