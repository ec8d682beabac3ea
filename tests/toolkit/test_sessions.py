"""How tokens are drawn: the inverse of the cumulated probabilities, in float64, with close calls
counted.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import DataError
from toolkit.models.token_sampling import draw_tokens


def drawn(shares: list[float], numbers: list[float | None], temperature: float = 1.0) -> list[int]:
    logits = torch.tensor(shares, dtype=torch.float64).log().expand(len(numbers), -1)
    return draw_tokens(logits, numbers, [temperature] * len(numbers), 0.0)[0]


def test_a_draw_follows_the_cumulated_shares() -> None:
    numbers = [0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53]
    assert drawn([0.0, 0.25, 0.5, 0.0, 0.25, 0.0], [*numbers]) == [1, 1, 2, 2, 4, 4]


def test_a_number_past_the_end_still_meets_a_token_of_some_probability() -> None:
    assert drawn([0.1, 0.2, 0.0], [1.0]) == [1]


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
def test_the_temperature_sharpens_as_it_should(temperature: float) -> None:
    shares = np.array([0.6, 0.3, 0.1])
    expected = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
    result = drawn([0.6, 0.3, 0.1], [(index + 0.5) / 4000 for index in range(4000)], temperature)
    assert np.abs(np.bincount(result, minlength=3) / 4000 - expected).max() < 1e-3


def test_a_very_low_temperature_takes_the_likeliest() -> None:
    assert set(drawn([1e-9, 3e-9, 2e-9], [0.0, 0.5, 0.999], 1e-4)) == {1}


def test_without_a_number_the_likeliest_is_taken() -> None:
    assert drawn([0.2, 0.5, 0.3], [None, 0.0]) == [1, 0]


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=40),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.05, 3),
)
def test_a_draw_is_the_first_token_whose_sum_is_beyond_the_number(
    logits: list[float], number: float, temperature: float
) -> None:
    token = draw_tokens(torch.tensor([logits]), [number], [temperature], 0.0)[0][0]
    wide = torch.tensor(logits).double() / temperature
    summed = torch.softmax(wide, -1).cumsum(-1)
    assert float(summed[token]) >= number * float(summed[-1]) - 1e-12
    if token:
        assert float(summed[token - 1]) <= number * float(summed[-1]) + 1e-12


@pytest.mark.parametrize(
    ("number", "close"),
    [(0.2495, True), (0.2505, True), (0.2, False), (0.7501, True), (0.0, False), (0.9999, False)],
)
def test_a_draw_near_a_border_is_a_close_call(number: float, close: bool) -> None:
    """The outer ends are borders to nothing."""
    logits = torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert draw_tokens(logits, [number], [1.0], 1e-3)[1] == [close]


def test_a_tie_of_the_likeliest_is_a_close_call() -> None:
    logits = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 3.0]])
    assert draw_tokens(logits, [None, None], [1.0, 1.0], 1e-4)[1] == [True, False]


def test_a_low_temperature_stretches_the_tolerance() -> None:
    shares = torch.tensor([[0.5, 0.5]]).log()
    assert draw_tokens(shares, [0.505], [1.0], 1e-3)[1] == [False]
    assert draw_tokens(shares, [0.505], [0.1], 1e-3)[1] == [True]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(
        DataError, match=r"the model's logits are not finite numbers\. Load the model"
    ):
        draw_tokens(torch.tensor([[bad, 0.5]]), [0.5], [1.0], 0.0)
