"""How a spec names layers, and what is said of names that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import BadInput
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.layers import all_there, chosen
from toolkit_saes.layouts.llama_scope import LlamaScope

THERE = [0, 1, 2, 3, 7, 15]


@pytest.mark.parametrize(
    ("expected", "result"),
    [
        ("all", THERE),
        (7, [7]),
        (0, [0]),
        ("15", [15]),
        (" 2 ", [2]),
        ("1-3", [1, 2, 3]),
        ("0 - 1", [0, 1]),
        ("3-3", [3]),
        ((15, 0, 7), [0, 7, 15]),
        ((2, 2), [2]),
    ],
)
def test_layers_that_are_there(expected: Any, result: list[int]) -> None:
    assert chosen(expected, [*reversed(THERE), 7], "it") == result


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        (4, 4),
        ("16", 16),
        ("2-9", 4),
        ((3, 40, 9), 9),
        (-1, -1),
        ("0-99999999999", 4),
        ("16-20", 16),
    ],
)
def test_a_layer_that_is_not_there(expected: Any, missing: int) -> None:
    with pytest.raises(BadInput) as caught:
        chosen(expected, THERE, "Lab-LXR-4x")
    message = (
        f"saes.with.layers: Lab-LXR-4x has no SAE for layer {missing}; it has 0-3, 7, 15. Layers "
        "count from 0."
    )
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "expected", ["", "some", "1-", "-1", "1,2", "1-2-3", "1.5", "ALL", "[1, 2]"]
)
def test_what_is_no_layer(expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        chosen(expected, THERE, "it")
    assert (
        str(caught.value)
        == f"saes.with.layers: {expected!r} is not understood. Write all, 8, 1-31 or [8, 15, 31]."
    )


@pytest.mark.parametrize("expected", [(), "3-1"])
def test_no_layer(expected: Any) -> None:
    with pytest.raises(BadInput) as caught:
        chosen(expected, THERE, "it")
    assert str(caught.value) == f"saes.with.layers: {expected!r} names no layer; it has 0-3, 7, 15."


@given(
    there=st.sets(st.integers(0, 60), min_size=1),
    first=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_a_range_is_its_numbers(there: set[int], first: int, length: int) -> None:
    numbers = tuple(range(first, first + length + 1))
    answers = []
    for expected in (f"{first}-{first + length}", numbers):
        try:
            answers.append(chosen(expected, there, "it"))
        except BadInput as error:
            answers.append([str(error)])
    assert answers[0] == answers[1]
    assert (answers[0] == list(numbers)) == (set(numbers) <= there) == all_there(numbers, there)


def test_nobody_knows_whether_all_are_there() -> None:
    assert not all_there("all", THERE)


@pytest.mark.parametrize(
    ("written", "kept"), [("all", "all"), (8, 8), ("1-31", "1-31"), ([8, 15], (8, 15))]
)
@pytest.mark.parametrize("kind", [LlamaScope, GemmaScope])
def test_a_spec_may_write_layers_in_four_ways(kind: Any, written: Any, kept: Any) -> None:
    assert kind(path="saes", layers=written).layers == kept
