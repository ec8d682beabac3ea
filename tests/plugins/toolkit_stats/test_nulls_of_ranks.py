"""Rank tests and the guard of Welch's test on nulls that broke them: sparse ties in unequal groups,
clusters whose size goes with the group, values without skew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from tests.scripts import load_benchmark
from toolkit.statistics.corrections import benjamini_hochberg
from toolkit.testing.fakes import make_work
from toolkit.testing.nulls import clusters_of_groups
from toolkit_stats.compare import run_comparison as core
from toolkit_stats.compare.feature_rows import Corrected, SpaceResult
from toolkit_stats.compare.tests import of_ranks, of_trend
from toolkit_stats.math import rank_sums, ranks
from toolkit_stats.math.means import moments, unpooled, welch, wide
from toolkit_stats.samples.params import Ranks, Trend
from toolkit_stats.samples.rank_cells import rank_cells

nulls = load_benchmark("nulls")
Design = nulls.Design
design_of = nulls.design_of
found = nulls.found
p_values = nulls.p_values

ROOT = Path(__file__).parents[3]
PAIR = Ranks(by="group", between=("a", "b"))


def ranked(column: np.ndarray) -> ranks.Ranked:
    return ranks.ranked(sparse.csc_array(column.reshape(-1, 1)))


# --- sparse ties ----------------------------------------------------------------------------------


def test_three_of_twenty_against_none_of_180_have_the_p_of_the_shuffles() -> None:
    column = np.zeros(200)
    column[:3] = [1.0, 2.0, 3.0]
    p = rank_sums.mann_whitney(ranked(column), np.arange(200) < 20).p[0]
    assert p == pytest.approx(stats.hypergeom(200, 3, 20).pmf(3), rel=1e-9)
    assert stats.mannwhitneyu(column[:20], column[20:], method="asymptotic").pvalue < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**16), st.sampled_from([(5, 40), (12, 28)]))
def test_small_p_of_sparse_columns_are_near_those_of_all_arrangements(
    fires: int, seed: int, counts: tuple[int, int]
) -> None:
    """Every way to deal the firing rows to the groups, each with its ranks, weighed exactly."""
    a, n = counts[0], sum(counts)
    rng = np.random.default_rng(seed)
    column = np.zeros(n)
    column[rng.choice(n, fires, replace=False)] = rng.integers(1, 4, fires)
    first = np.arange(n) < a
    rank = stats.rankdata(column)
    above = rank[column > 0] - rank[column == 0][0]
    mean = a / n * above.sum()
    far = abs(above[first[column > 0]].sum() - mean)
    exact = sum(
        stats.hypergeom(n, fires, a).pmf(hits)
        * np.mean(
            [abs(sum(drawn) - mean) >= far - 1e-9 for drawn in combinations(above.tolist(), hits)]
        )
        for hits in range(min(fires, a) + 1)
    )
    p = rank_sums.mann_whitney(ranked(column), first).p[0]
    if p < rank_sums.SMALL:
        assert exact / 2.5 <= p <= 2.5 * exact


def test_a_column_without_zeros_keeps_the_normal_p() -> None:
    dense = np.random.default_rng(0).normal(size=(120, 40))
    dense[:30] += 1.0
    first = np.arange(120) < 30
    p = rank_sums.mann_whitney(ranks.ranked(sparse.csc_array(dense)), first).p
    theirs = stats.mannwhitneyu(dense[:30], dense[30:], axis=0, method="asymptotic").pvalue
    np.testing.assert_allclose(p, theirs, rtol=1e-9)


SPARSE = (
    Design((20, 180), "sparse", rates=(0.003, 0.4)),
    Design((5, 100), "sparse", rates=(0.003, 0.4)),
    Design((29, 171), "sparse", rounds=(1, 12), later=1.0),
)


@pytest.mark.slow
@pytest.mark.parametrize("design", SPARSE, ids=Design.describe)
@pytest.mark.parametrize("test", ["mann_whitney", "kruskal", "auroc"])
def test_sets_in_which_nothing_differs_seldom_give_a_discovery(test: str, design: Design) -> None:
    """40 sets: more than 5 of them with any discovery has a chance of 1.4 % at alpha 0.05."""
    any_found = sum(found(p_values(test, design.make(seed, 300)), 300) > 0 for seed in range(40))
    assert any_found <= 5


# --- clusters of unequal size ---------------------------------------------------------------------


def test_equally_many_samples_of_each_cluster_enter_where_size_goes_with_the_group() -> None:
    data = clusters_of_groups(1, (29, 171), 4, rounds=(1, 12), later=1.0)
    design = design_of(data)
    cells = rank_cells(make_work(PAIR), design)
    assert cells.rows is not None
    assert (np.bincount(cells.cells) == cells.each).all()
    assert cells.each == np.bincount(design.cells).min()
    assert of_ranks(make_work(PAIR), design).name == "mann_whitney (1 sample of each cluster)"


@pytest.mark.parametrize("rounds", [(1, 1), (6, 6)])
def test_every_sample_enters_where_clusters_are_of_one_size(rounds: tuple[int, int]) -> None:
    design = design_of(clusters_of_groups(1, (29, 171), 4, rounds=rounds))
    assert rank_cells(make_work(PAIR), design).rows is None
    assert of_ranks(make_work(PAIR), design).name == "mann_whitney"


# --- within strata --------------------------------------------------------------------------------


def in_strata(seed: int, features: int) -> Any:
    """Ranks of 20 and 180 clusters in five strata, sparse features that do not differ."""
    data = clusters_of_groups(seed, (20, 180), features, rates=(0.003, 0.4))
    stratum = np.arange(200) % 5
    return [
        (
            ranks.ranked(sparse.csc_array(data.values[stratum == number])),
            data.first[stratum == number],
        )
        for number in range(5)
    ]


def test_sparse_features_within_strata_seldom_give_a_discovery() -> None:
    results = [
        (benjamini_hochberg(rank_sums.van_elteren(in_strata(seed, 512)), 512) <= 0.05).any()
        for seed in range(200, 208)
    ]
    assert sum(results) <= 1


def test_small_p_within_strata_are_those_of_shuffles() -> None:
    rng, strata = np.random.default_rng(8), 4
    first, stratum = np.arange(200) < 20, np.arange(200) % strata
    values = np.zeros(200)
    values[[0, 1, 2, 3, 40, 50]] = rng.gamma(2.0, size=6)
    parts = [
        (
            ranks.ranked(sparse.csc_array(values[stratum == stratum_number][:, None])),
            first[stratum == stratum_number],
        )
        for stratum_number in range(strata)
    ]
    total = np.zeros(20_000)
    observed = 0.0
    for stratum_number in range(strata):
        ranked = stats.rankdata(values[stratum == stratum_number])
        n, a = len(ranked), int(first[stratum == stratum_number].sum())
        dealt = rng.permuted(np.tile(ranked, (len(total), 1)), axis=1)[:, :a].sum(axis=1)
        total += (dealt - a * (n + 1) / 2) / (n + 1)
        observed += (ranked[first[stratum == stratum_number]].sum() - a * (n + 1) / 2) / (n + 1)
    shuffled = float((np.abs(total) >= abs(observed) - 1e-9).mean())
    p = float(rank_sums.van_elteren(parts)[0])
    assert abs(p - shuffled) <= 4 * np.sqrt(shuffled / len(total))


# --- the guard ------------------------------------------------------------------------------------


def sides(values: str, counts: tuple[int, int], d: float = 0.0) -> Any:
    data = clusters_of_groups(3, counts, 400, values, d=d)
    matrix = sparse.csr_array(data.values)
    parts = (matrix[: counts[0]], matrix[counts[0] :])
    return [moments(part, np.arange(part.shape[0])) for part in parts]


def test_the_guard_acts_on_sparse_features_and_few_clusters_only() -> None:
    assert wide(*sides("normal", (20, 200))).mean() > 0.8
    assert not wide(*sides("normal", (19, 200))).any()
    assert not wide(*sides("sparse", (100, 100))).any()


def test_the_guard_acts_on_values_with_short_tails() -> None:
    assert not wide(*sides("uniform", (20, 200))).any()


@pytest.mark.slow
def test_uniform_values_in_unequal_groups_hold_alpha() -> None:
    """The far tail that a family of a thousand features asks of a test: Welch's own is three times
    too heavy there.
    """
    counts = {"own": 0, "guarded": 0}
    for seed in range(100, 140):
        data = clusters_of_groups(seed, (20, 180), 4096, "uniform")
        matrix = sparse.csr_array(data.values)
        parts = [moments(part, np.arange(part.shape[0])) for part in (matrix[:20], matrix[20:])]
        for spread in ("own", "guarded"):
            counts[spread] += int((welch(parts[0], parts[1], spread).p < 5e-5).sum())
    expected = 40 * 4096 * 5e-5
    assert counts["own"] > 2 * expected
    assert counts["guarded"] <= expected + 2 * np.sqrt(expected)


def test_power_of_wide_features_is_that_of_welchs_test() -> None:
    a, b = sides("wide", (20, 200), d=0.8)
    unguarded, guarded = welch(a, b, "own").p, welch(a, b).p
    always = unpooled(a, b)
    pooled = 2 * stats.t.sf(np.abs(a.mean - b.mean) / np.sqrt(always[0]), always[1])
    shares = [(p < 1e-4).mean() for p in (unguarded, guarded, pooled)]
    assert shares[0] > 0.7
    assert shares[1] > 0.8 * shares[0]
    assert shares[2] < 0.5 * shares[0]


def test_the_shape_of_values_is_scipys_also_of_clusters() -> None:
    data = clusters_of_groups(5, (30, 40), 6, "uniform", rounds=(3, 3))
    found_moments = moments(sparse.csr_array(data.values), data.cluster)
    sums = np.stack([data.values[data.cluster == number].sum(axis=0) for number in range(70)])
    np.testing.assert_allclose(found_moments.skewness, stats.skew(sums), rtol=1e-9)
    np.testing.assert_allclose(found_moments.kurtosis, stats.kurtosis(sums), rtol=1e-9)


# --- warnings -------------------------------------------------------------------------------------


def test_a_rank_test_warns_where_spreads_differ_and_means_do_not() -> None:
    data = clusters_of_groups(7, (100, 100), 50, "wide")
    data.values[~data.first] *= 1.7
    design = design_of(data)
    work = make_work(PAIR)
    test = of_ranks(work, design)
    parts = [
        moments(sparse.csr_array(data.values[group.start : group.end]), group.clusters)
        for group in design.groups
    ]
    result = SpaceResult(
        "s", {}, np.arange(50), 50, parts, test.run(sparse.csr_array(data.values), parts)
    )
    every = np.ones(50, dtype=bool)
    core.warn_of_spreads(work, test, [result], [Corrected(np.zeros(50), every, every)])
    ((name, facts),) = work.report.events
    assert name == "warning"
    assert "spreads that differ 3 times or more" in facts["text"]


@pytest.mark.parametrize(("method", "count"), [("pearson", 1), ("spearman", 0)])
def test_pearson_warns_of_a_skewed_number(method: str, count: int) -> None:
    numbers = np.exp(1.2 * np.random.default_rng(0).normal(size=200))
    design = design_of(clusters_of_groups(1, (100, 100), 2))
    work = make_work(Trend(by="number", method=method))
    of_trend(work, design, numbers)
    assert len(work.report.events) == count
    if count:
        assert "has skewness" in work.report.events[0][1]["text"]
    assert Trend(by="number").method == "spearman"


@pytest.mark.slow
def test_the_command_prints_both_tables() -> None:
    output = subprocess.run(
        [sys.executable, "benchmarks/nulls.py", "--tiny"],
        cwd=ROOT,
        env={**os.environ, "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "| 20 and 180, sparse |" in output
    assert "| 20 and 200, wide, d 0.8 |" in output
