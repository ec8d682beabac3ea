"""The source prompts: texts of the spec itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.plugins.toolkit_samples.conftest import PARTS, Words, meta_of, tables_of
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_samples._prompts import Prompts

GIVEN: tuple[Any, ...] = (
    "one two",
    {"text": "three", "level": 2, "kind": "a"},
    {"text": "four", "kind": "b"},
)


def test_it_keeps_the_contract() -> None:
    check_part(PARTS["prompts"], params={"prompts": list(GIVEN)}, work=make_work(model=Words()))


def test_texts_and_maps_are_samples() -> None:
    results = tables_of("prompts", Prompts(prompts=GIVEN))
    assert [(row["sample"], row["text"]) for row in results["samples"]] == [
        ("000000", "one two"),
        ("000001", "three"),
        ("000002", "four"),
    ]
    assert meta_of(results) == {
        ("000001", "level"): 2.0,
        ("000001", "kind"): "a",
        ("000002", "kind"): "b",
    }


def test_ids_units_and_a_limit() -> None:
    prompts: tuple[Any, ...] = (
        {"text": "one", "name": "x", "game": 1},
        {"text": "two", "name": "y", "game": 2},
    )
    results = tables_of("prompts", Prompts(prompts=prompts, id="name", unit="game"), limit=1)
    assert [(row["sample"], row["unit"]) for row in results["samples"]] == [("x", "1")]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prompts": ["one", " "]}, r"prompts\.1: column 'text' is empty here"),
        ({"prompts": [{"txt": "one"}]}, r"prompts\.0: column 'text' is empty here"),
        (
            {"prompts": [{"text": "one", "level": 4}], "label": "level"},
            r"prompts\.0: column 'level' holds '4' here; a label is a whole",
        ),
        (
            {"prompts": [{"text": "a", "n": "x"}, {"text": "b", "n": "x"}], "id": "n"},
            r"prompts\.1: column 'n' holds 'x' again",
        ),
        ({"prompts": []}, "at least 1 item"),
    ],
)
def test_what_is_wrong_is_reported_by_check(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Prompts.model_validate(params)


def test_a_plan_knows_how_many_samples_there_are() -> None:
    most = PARTS["prompts"].estimates.max_rows
    assert most is not None
    assert most(Prompts(prompts=GIVEN), {}) == {"samples": 3}
