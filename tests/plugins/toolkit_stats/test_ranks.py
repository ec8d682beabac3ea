"""Rank tests against SciPy's on dense data: ties, zeros, values below zero, constant columns, tiny
groups, clusters.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from toolkit_stats.math import placements, rank_sums, ranks
from toolkit_stats.math.means import arrangements, slope

TIED = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, -1.0])
DENSE = hnp.arrays(float, st.tuples(st.integers(16, 30), st.just(5)), elements=TIED)


def of_dense(dense: np.ndarray) -> ranks.Ranked:
    return ranks.ranked(sparse.csc_array(dense))


def split(dense: np.ndarray, seed: int = 0) -> np.ndarray:
    """Half of the rows, at random."""
    first = np.arange(len(dense)) < len(dense) // 2
    return np.random.default_rng(seed).permutation(first)


def each(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row its own cluster."""
    return np.arange(first.sum()), np.arange((~first).sum())


@settings(max_examples=25, deadline=None)
@given(dense=DENSE)
def test_ranks_are_scipys(dense: np.ndarray) -> None:
    result = of_dense(dense)
    above = sparse.csc_array(
        (result.above, (result.row, result.column)), shape=dense.shape
    ).toarray()
    np.testing.assert_allclose(above + result.zero, stats.rankdata(dense, axis=0))


@settings(max_examples=25, deadline=None)
@given(dense=DENSE)
def test_mann_whitney_is_scipys_with_any_ties(dense: np.ndarray) -> None:
    dense = np.vstack([dense, dense[:4]])
    first = split(dense)
    result = rank_sums.mann_whitney(of_dense(dense), first)
    spread = np.ptp(dense, axis=0) > 0
    theirs = stats.mannwhitneyu(
        dense[first][:, spread], dense[~first][:, spread], method="asymptotic", axis=0
    )
    np.testing.assert_allclose(result.u[spread], theirs.statistic)
    has_zeros = (dense[:, spread] == 0).any(axis=0)
    normal = ~(has_zeros & (theirs.pvalue < rank_sums.SMALL))  # the others are hypergeometric
    np.testing.assert_allclose(result.p[spread][normal], theirs.pvalue[normal], rtol=1e-9)
    assert (result.p[~spread] == 1).all()


def test_tiny_groups_without_ties_give_scipys_exact_p() -> None:
    dense = np.random.default_rng(0).normal(size=(9, 6))
    first = np.arange(9) < 4
    theirs = stats.mannwhitneyu(dense[first], dense[~first], method="exact", axis=0)
    np.testing.assert_allclose(
        rank_sums.mann_whitney(of_dense(dense), first).p, theirs.pvalue, rtol=1e-12
    )


def test_tiny_groups_with_ties_count_every_way_to_deal_out_the_labels() -> None:
    rng = np.random.default_rng(1)
    dense = rng.integers(0, 3, size=(8, 4)).astype(float)
    first = np.arange(8) < 3
    for column, p in enumerate(rank_sums.mann_whitney(of_dense(dense), first).p):

        def away(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
            return np.abs(stats.mannwhitneyu(a, b, axis=axis, method="asymptotic").statistic - 7.5)

        theirs = stats.permutation_test(
            (dense[:3, column], dense[3:, column]), away, vectorized=True, alternative="greater"
        )
        assert p == pytest.approx(theirs.pvalue, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(dense=DENSE)
def test_the_test_of_auroc_is_brunner_and_munzels(dense: np.ndarray) -> None:
    first = split(dense)
    result = placements.area(of_dense(dense), first, each(first), "own")
    u = stats.mannwhitneyu(dense[first], dense[~first], axis=0, method="asymptotic").statistic
    np.testing.assert_allclose(result.auroc, u / (first.sum() * (~first).sum()))
    for column in range(dense.shape[1]):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            theirs = stats.brunnermunzel(dense[~first, column], dense[first, column])
        if np.isfinite(theirs.statistic):
            assert result.t[column] == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-12)
            assert result.p[column] == pytest.approx(theirs.pvalue, rel=1e-9)
        else:
            assert np.isnan(result.t[column])


def test_the_interval_of_auroc_is_delongs() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.5, size=12), rng.normal(size=15)
    over = (a[:, None] > b).astype(float)
    error = np.sqrt(over.mean(axis=1).var(ddof=1) / 12 + over.mean(axis=0).var(ddof=1) / 15)
    first = np.arange(27) < 12
    result = placements.area(of_dense(np.concatenate([a, b])[:, None]), first, each(first), "own")
    assert result.low[0] == pytest.approx(over.mean() - 1.959963984540054 * error)
    assert result.high[0] == pytest.approx(min(over.mean() + 1.959963984540054 * error, 1.0))


def test_groups_that_do_not_overlap_are_as_unlikely_as_one_labelling_of_all() -> None:
    dense = np.array([[3.0], [4.0], [5.0], [0.0], [1.0], [2.0]])
    first = np.arange(6) < 3
    result = placements.area(of_dense(dense), first, each(first))
    assert result.auroc[0] == result.low[0] == result.high[0] == 1.0
    assert result.p[0] == pytest.approx(2 / 20)


def test_rows_repeated_in_their_cluster_are_no_more_evidence_for_an_area() -> None:
    rng = np.random.default_rng(4)
    dense = np.round(np.maximum(rng.normal(size=(20, 6)), 0), 1)
    first = split(dense)
    once = placements.area(of_dense(dense), first, each(first))
    thrice = [np.repeat(labels, 3) for labels in each(first)]
    again = placements.area(
        of_dense(np.repeat(dense, 3, axis=0)), np.repeat(first, 3), (thrice[0], thrice[1])
    )
    for stat in ("auroc", "low", "t", "df", "p"):
        np.testing.assert_allclose(getattr(again, stat), getattr(once, stat), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(dense=DENSE)
def test_kruskal_is_scipys_and_its_eta2_that_of_ranks(dense: np.ndarray) -> None:
    groups = np.arange(len(dense)) % 3
    spread = np.ptp(dense, axis=0) > 0
    h, p = rank_sums.kruskal(of_dense(dense), groups)
    theirs = stats.kruskal(*(dense[groups == number][:, spread] for number in range(3)), axis=0)
    np.testing.assert_allclose(h[spread], theirs.statistic, rtol=1e-8, atol=1e-8)
    plain = (theirs.pvalue >= rank_sums.SMALL) | (dense[:, spread] != 0).all(axis=0)
    np.testing.assert_allclose(p[spread][plain], theirs.pvalue[plain], rtol=1e-8)
    assert (p[spread] >= theirs.pvalue * (1 - 1e-8)).all()
    assert (p[~spread] == 1).all()
    ranked = stats.rankdata(dense[:, spread], axis=0)
    between = sum(
        ((ranked[groups == number].mean(axis=0) - ranked.mean(axis=0)) ** 2)
        * (groups == number).sum()
        for number in range(3)
    )
    total = ((ranked - ranked.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(h[spread] / (len(dense) - 1), between / total, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(dense=DENSE, numbers=st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_spearman_is_scipys(dense: np.ndarray, numbers: list[int]) -> None:
    label = np.array([0, 3, *numbers], dtype=float)[: len(dense)]
    result = ranks.spearman(of_dense(dense), label)
    for column in range(dense.shape[1]):
        if np.ptp(dense[:, column]) == 0:
            assert np.isnan(result[column])
            continue
        theirs = stats.spearmanr(dense[:, column], label)
        assert result[column] == pytest.approx(theirs.statistic, abs=1e-12)
        tested = slope(result, label)
        assert tested.p[column] == pytest.approx(
            2 / arrangements(label) if np.isnan(tested.t[column]) else theirs.pvalue, abs=1e-9
        )


def test_ranks_within_one_stratum_are_ranks_and_strata_add_up() -> None:
    rng = np.random.default_rng(5)
    dense = np.maximum(np.round(rng.normal(size=(60, 5)), 1), 0)
    first, stratum = split(dense), np.arange(60) % 3
    alone = rank_sums.van_elteren([(of_dense(dense), first)])
    theirs = stats.mannwhitneyu(
        dense[first], dense[~first], axis=0, method="asymptotic", use_continuity=False
    )
    np.testing.assert_allclose(alone, theirs.pvalue, rtol=1e-9)
    parts = [(of_dense(dense[stratum == number]), first[stratum == number]) for number in range(3)]
    away, spread = np.zeros(5), np.zeros(5)
    for number in range(3):
        ranks, side = stats.rankdata(dense[stratum == number], axis=0), first[stratum == number]
        a, n = side.sum(), len(ranks)
        away += (ranks[side].sum(axis=0) - a * (n + 1) / 2) / (n + 1)
        spread += (
            a * (n - a) / (n * (n - 1)) * ((ranks - (n + 1) / 2) ** 2).sum(axis=0) / (n + 1) ** 2
        )
    np.testing.assert_allclose(
        rank_sums.van_elteren(parts), 2 * stats.norm.sf(np.abs(away) / np.sqrt(spread)), rtol=1e-9
    )


def test_a_difference_that_is_only_between_strata_is_none_within_them() -> None:
    rng = np.random.default_rng(6)
    stratum = np.repeat([0, 1], 60)
    first = rng.random(120) < np.where(stratum == 1, 0.8, 0.2)
    dense = (rng.normal(size=120) + 3 * stratum)[:, None]
    assert rank_sums.mann_whitney(of_dense(dense), first).p[0] < 1e-6
    assert (
        rank_sums.van_elteren(
            [(of_dense(dense[stratum == number]), first[stratum == number]) for number in (0, 1)]
        )[0]
        > 0.05
    )


def test_no_columns_give_nothing() -> None:
    result, first = of_dense(np.zeros((6, 0))), np.arange(6) < 3
    assert (
        rank_sums.mann_whitney(result, first).p.shape
        == placements.area(result, first, each(first)).p.shape
        == (0,)
    )
