"""The tests against SciPy's on dense data, and against data whose truth was known before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from toolkit.statistics.corrections import benjamini_hochberg
from toolkit.testing.nulls import Groups, null_groups, planted_groups
from toolkit_stats.math.means import Contrast, clusters_of, moments, student, welch

VALUES = st.integers(-2000, 2000).map(lambda number: number / 16)


def of_dense(a: np.ndarray, b: np.ndarray) -> Contrast:
    """Every sample its own cluster, and each group its own spread."""
    return welch(*(moments(sparse.csr_array(side), np.arange(len(side))) for side in (a, b)), "own")


def of_groups(data: Groups, clusters: np.ndarray) -> Contrast:
    """The labelled samples against the others."""
    dense = sparse.csr_array(data.dense())
    sides = [np.flatnonzero(data.label), np.flatnonzero(~data.label)]
    return welch(
        *(
            moments(dense[rows], np.unique(clusters[rows], return_inverse=True)[1])
            for rows in sides
        ),
        "own",
    )


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7], ids=["none", "thousand", "ten-million"])
def test_single_samples_give_scipys_welch_test_also_far_from_zero(offset: float) -> None:
    rng = np.random.default_rng(7)
    a = np.round(rng.normal(size=(40, 30)) * (rng.random((40, 30)) < 0.4) * 64) / 64 + offset
    b = (
        np.round(rng.normal(0.3, 2, size=(55, 30)) * (rng.random((55, 30)) < 0.6) * 64) / 64
        + offset
    )
    ours, theirs = of_dense(a, b), stats.ttest_ind(a, b, equal_var=False)
    np.testing.assert_allclose(ours.t, theirs.statistic, rtol=1e-9)
    np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-9)
    np.testing.assert_allclose(ours.df, theirs.df, rtol=1e-9)
    pooled = np.sqrt((39 * a.var(axis=0, ddof=1) + 54 * b.var(axis=0, ddof=1)) / 93)
    np.testing.assert_allclose(ours.d, (a.mean(axis=0) - b.mean(axis=0)) / pooled, rtol=1e-9)


@settings(max_examples=25)
@given(
    a=hnp.arrays(float, st.tuples(st.integers(2, 12), st.just(4)), elements=VALUES),
    b=hnp.arrays(float, st.tuples(st.integers(2, 12), st.just(4)), elements=VALUES),
)
def test_any_dense_data_gives_scipys_welch_test(a: np.ndarray, b: np.ndarray) -> None:
    spread = (a.std(axis=0) > 0) & (b.std(axis=0) > 0)
    a, b = a[:, spread], b[:, spread]
    ours, theirs = of_dense(a, b), stats.ttest_ind(a, b, equal_var=False)
    np.testing.assert_allclose(ours.t, theirs.statistic, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-9)
    np.testing.assert_allclose(ours.df, theirs.df, rtol=1e-9)


def test_a_cluster_repeated_is_no_more_evidence_than_the_cluster_once() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((10, 5)), rng.random((12, 5)) + 0.1
    once = of_dense(a, b)
    sides = [(np.repeat(side, 7, axis=0), np.repeat(np.arange(len(side)), 7)) for side in (a, b)]
    again = welch(*(moments(sparse.csr_array(side), clusters) for side, clusters in sides), "own")
    np.testing.assert_allclose(again.t, once.t, rtol=1e-9)
    np.testing.assert_allclose(again.p, once.p, rtol=1e-9)


def test_a_column_without_spread_is_no_evidence_whatever_its_means() -> None:
    a = np.array([[0.1, 3.0], [0.1, 3.0], [0.1, 3.0]])
    b = np.array([[0.1, 5.0], [0.1, 5.0], [0.1, 5.0]])
    result = of_dense(a, b)
    assert result.p.tolist() == [1.0, 1.0]
    assert np.isnan([result.t, result.df, result.d]).all()


def test_what_rounding_leaves_of_a_constant_is_no_spread() -> None:
    a, b = np.full((999, 1), 0.1), np.full((777, 1), 0.1 + 1e-9)
    assert of_dense(a, b).p.tolist() == [1.0]


def test_one_constant_group_leaves_the_other_groups_spread() -> None:
    a, b = np.full((5, 1), 2.0), np.array([[0.0], [1.0], [0.5], [0.0]])
    theirs = stats.ttest_1samp(b[:, 0], 2.0)
    assert of_dense(a, b).p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert of_dense(a, b).df == pytest.approx(3.0)


def test_clusters_join_through_either_label_and_through_others() -> None:
    units, prompts = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 3])
    assert clusters_of([units, prompts], 5).tolist() == [0, 0, 0, 1, 2]
    assert clusters_of([units], 5).tolist() == [0, 0, 1, 2, 3]
    assert clusters_of([], 3).tolist() == [0, 1, 2]


@settings(max_examples=25)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=60), silent=st.integers(0, 100))
def test_q_is_scipys_with_the_silent_features_as_ones(p: list[float], silent: int) -> None:
    whole = stats.false_discovery_control([*p, *[1.0] * silent])
    np.testing.assert_allclose(
        benjamini_hochberg(np.array(p), len(p) + silent), whole[: len(p)], rtol=1e-12
    )


def test_nothing_to_correct_is_nothing() -> None:
    assert benjamini_hochberg(np.empty(0), 10).tolist() == []


def test_rounds_taken_for_units_find_what_is_not_there_and_units_do_not() -> None:
    data = null_groups(3, n_games=100, rounds=8, n_features=400, game_sd=1.5)
    by_game, by_round = of_groups(data, data.game), of_groups(data, data.sample)
    assert (by_round.p < 0.05).mean() > 0.3
    assert 0.02 < (by_game.p < 0.05).mean() < 0.08


def test_planted_features_are_found_with_their_sign_and_size() -> None:
    which = (3, 17, 40)
    data = planted_groups(5, d=1.2, which=which, n_games=200, rounds=6, n_features=64)
    result = of_groups(data, data.game)
    q = benjamini_hochberg(result.p, data.n_features)
    assert set(which) <= set(np.flatnonzero(q < 0.05))
    assert (q < 0.05).sum() <= len(which) + 2
    means, label = data.game_means()
    of_games = of_dense(means[label], means[~label])
    np.testing.assert_allclose(of_games.d[list(which)], 1.2, atol=0.35)
    np.testing.assert_allclose(of_games.p, result.p, rtol=1e-9)
    assert (result.d[list(which)] > 0.4).all()


def test_guarded_is_never_surer_than_welch_or_the_pooled_spread() -> None:
    rng = np.random.default_rng(2)
    values = [
        rng.gamma(2.0, size=(size, 400)) * (rng.random((size, 400)) < 0.1) for size in (6, 40)
    ]
    sides = [moments(sparse.csr_array(side), np.arange(len(side))) for side in values]
    unguarded, guarded, pooled = welch(*sides, "own"), welch(*sides), student(*sides)
    assert (guarded.p >= unguarded.p).all()
    assert (guarded.variance >= np.maximum(unguarded.variance, pooled.variance) * (1 - 1e-12)).all()
    silent = (values[0].sum(axis=0) == 0) & (unguarded.variance > 0)
    assert (unguarded.df[silent] == 39).all()
    assert (guarded.df[silent] < 8).all()


def test_guarded_is_welchs_where_groups_are_alike() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(30, 4))
    sides = [moments(sparse.csr_array(side), np.arange(30)) for side in (a, a[::-1] + 1.0)]
    np.testing.assert_allclose(welch(*sides).p, welch(*sides, "own").p, rtol=1e-9)
