"""Means over decision points, their intervals and p-values, compared with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit_patch.screen.estimates import corrected, estimate, sign_test


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(3, 60), st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_p_of_single_points_is_that_of_a_t_test(count: int, mean: float, seed: int) -> None:
    values = rng(seed).normal(mean, 0.3, (3, count))
    result = estimate(values, np.ones(count), np.arange(count), rng())
    expected = stats.ttest_1samp(values, 0, axis=1)
    np.testing.assert_allclose(result.p, expected.pvalue, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(result.mean, values.mean(axis=1))


def test_points_of_one_cluster_count_once() -> None:
    """Twelve clusters of four equal points are the t test of twelve numbers."""
    values = rng(1).normal(0.2, 0.5, 12)
    result = estimate(np.repeat(values, 4)[None], np.ones(48), np.repeat(np.arange(12), 4), rng())
    assert result.p[0] == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)


def test_a_point_of_weight_three_counts_as_three_points_of_its_cluster() -> None:
    values, weights = rng(2).normal(0.1, 0.4, 20), rng(3).integers(1, 4, 20)
    result = estimate(values[None], weights.astype(float), np.arange(20), rng())
    several = estimate(
        np.repeat(values, weights)[None],
        np.ones(int(weights.sum())),
        np.repeat(np.arange(20), weights),
        rng(),
    )
    assert result.mean[0] == pytest.approx(several.mean[0])
    assert result.p[0] == pytest.approx(several.p[0])


def test_the_interval_is_the_percentile_bootstrap_of_clusters() -> None:
    values = rng(4).exponential(1.0, 80)
    result = estimate(values[None], np.ones(80), np.arange(80), rng())
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=rng(5)
    ).confidence_interval
    spread = expected.high - expected.low
    assert abs(result.low[0] - expected.low) < 0.1 * spread
    assert abs(result.high[0] - expected.high) < 0.1 * spread


def test_p_is_uniform_where_nothing_is_there() -> None:
    values = rng(6).normal(0, 1, (2000, 30))
    result = estimate(values, np.ones(30), np.arange(30), rng())
    assert stats.kstest(result.p, "uniform").pvalue > 0.001


def test_rounding_and_constant_differences_are_no_evidence() -> None:
    small = rng(7).normal(5e-8, 1e-8, (1, 30))
    assert estimate(small, np.ones(30), np.arange(30), rng()).p[0] == 1
    alike = np.full((1, 30), 0.25)
    result = estimate(alike, np.ones(30), np.arange(30), rng())
    assert (result.p[0], result.low[0], result.high[0]) == (1, 0.25, 0.25)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_q_is_that_of_scipy(p: list[float]) -> None:
    np.testing.assert_allclose(corrected(np.array(p)), stats.false_discovery_control(p))


def test_signs_are_tested_exactly_over_clusters() -> None:
    values = np.array([[1.0] * 16, [1.0, -1.0] * 8, [0.0] * 16])
    result = sign_test(values, np.ones(16), np.arange(16))
    assert result.tolist() == pytest.approx([stats.binomtest(16, 16).pvalue, 1.0, 1.0])
    joined = sign_test(values, np.ones(16), np.repeat(np.arange(4), 4))
    assert joined[0] == pytest.approx(stats.binomtest(4, 4).pvalue)
