"""Corrections against SciPy's and against their definitions, with features that never fired."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toolkit.statistics.corrections import CORRECTIONS

P = st.lists(st.integers(0, 1000).map(lambda number: number / 1000), min_size=1, max_size=60)
SILENT = st.integers(0, 100)


@pytest.mark.parametrize("method", ["bh", "by"])
@settings(max_examples=25, deadline=None)
@given(p=P, silent=SILENT)
def test_q_is_scipys_with_the_silent_features_as_ones(
    method: str, p: list[float], silent: int
) -> None:
    whole = stats.false_discovery_control([*p, *[1.0] * silent], method=method)
    np.testing.assert_allclose(
        CORRECTIONS[method](np.array(p), len(p) + silent), whole[: len(p)], rtol=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(p=P, silent=SILENT)
def test_bonferroni_and_holm_are_their_definitions(p: list[float], silent: int) -> None:
    every, family = np.array([*p, *[1.0] * silent]), len(p) + silent
    np.testing.assert_allclose(
        CORRECTIONS["bonferroni"](every[: len(p)], family), np.minimum(every[: len(p)] * family, 1)
    )
    order = np.argsort(every, kind="stable")
    stepped = [
        max(min(1.0, (family - before) * every[order[before]]) for before in range(index + 1))
        for index in range(family)
    ]
    holm = dict(zip(order.tolist(), stepped, strict=True))
    np.testing.assert_allclose(
        CORRECTIONS["holm"](every[: len(p)], family), [holm[index] for index in range(len(p))]
    )


@settings(max_examples=25, deadline=None)
@given(p=P, silent=SILENT)
def test_storeys_q_is_bh_times_the_share_of_nulls(p: list[float], silent: int) -> None:
    every = np.array([*p, *[1.0] * silent])
    nulls = min(1.0, (1 + (every > 0.5).sum()) / (0.5 * len(every)))
    order = np.sort(every)
    expected = [
        min(nulls * len(every) * order[order >= p_value] / (np.flatnonzero(order >= p_value) + 1))
        for p_value in p
    ]
    np.testing.assert_allclose(
        CORRECTIONS["storey"](np.array(p), len(every)), np.minimum(expected, 1.0), rtol=1e-9
    )


def test_storeys_q_is_smaller_where_many_features_differ() -> None:
    p = np.concatenate([np.full(80, 1e-4), np.linspace(0, 1, 20)])
    assert CORRECTIONS["storey"](p, 100)[0] < 0.5 * CORRECTIONS["bh"](p, 100)[0]


@pytest.mark.parametrize("method", CORRECTIONS)
def test_nothing_to_correct_is_nothing(method: str) -> None:
    assert CORRECTIONS[method](np.empty(0), 10).tolist() == []
