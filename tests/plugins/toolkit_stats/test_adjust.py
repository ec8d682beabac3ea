"""Comparisons with covariates held equal, against least squares on dense data written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats

from tests.plugins.toolkit_stats.comparison_tables import compared, numbers, of_dense, run
from toolkit.errors import DataError
from toolkit_stats.math.adjust import adjusted
from toolkit_stats.samples.covariates import model
from toolkit_stats.samples.groups import Design, Group


def design(sizes: tuple[int, int], clusters: np.ndarray) -> Design:
    """Two groups of rows; `clusters` over all of them."""
    ends, groups = np.cumsum([0, *sizes]), []
    for name, start, end in zip("ab", ends[:-1], ends[1:], strict=True):
        codes = np.unique(clusters[start:end], return_inverse=True)[1]
        groups.append(Group(name, int(start), int(end), codes, len(set(codes)), len(codes)))
    cells = np.concatenate([groups[0].clusters, groups[1].clusters + groups[0].count])
    names = [f"n{index}" for index in range(len(clusters))]
    return Design(
        names,
        tuple(groups),
        cells,
        np.repeat([0, 1], [group.count for group in groups]),
        clusters,
        [],
    )


def sandwich(
    y: np.ndarray, regressors: np.ndarray, clusters: np.ndarray
) -> tuple[float, float, float]:
    """Coefficient of the first regressor, its cluster-robust standard error, and the residual
    standard deviation.
    """
    bread = np.linalg.inv(regressors.T @ regressors)
    beta = bread @ regressors.T @ y
    residual = y - regressors @ beta
    scores = np.array(
        [
            regressors[clusters == cluster].T @ residual[clusters == cluster]
            for cluster in np.unique(clusters)
        ]
    )
    n, k, g = *regressors.shape, len(scores)
    cover = bread @ (scores.T @ scores) @ bread * g / (g - 1) * (n - 1) / (n - k)
    return beta[0], np.sqrt(cover[0, 0]), np.sqrt((residual**2).sum() / (n - k))


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sparse values of 90 rows, two covariates, clusters of three, and the group's indicator."""
    rng = np.random.default_rng(seed)
    covariates = np.column_stack([rng.normal(size=90), rng.integers(0, 2, 90)])
    group = (np.arange(90) < 40).astype(float)
    values = np.maximum(
        rng.normal(size=(90, 5))
        + covariates @ [[0.5], [1.0]]
        + np.repeat(rng.normal(size=30), 3)[:, None],
        0,
    )
    return values, covariates, np.arange(90) // 3, group


@pytest.mark.parametrize("offset", [0.0, 1e5], ids=["none", "far from zero"])
def test_the_adjusted_test_is_least_squares_with_cluster_robust_errors(offset: float) -> None:
    values, covariates, clusters, group = case()
    values = values + offset
    result = adjusted(
        sparse.csr_array(values), model(design((40, 50), clusters), covariates, "x"), "own"
    )
    for column in range(values.shape[1]):
        beta, error, spread = sandwich(
            values[:, column], np.column_stack([group, np.ones(90), covariates]), clusters
        )
        assert result.t[column] == pytest.approx(beta / error, rel=1e-8 if offset else 1e-9)
        assert result.d[column] == pytest.approx(beta / spread, rel=1e-8 if offset else 1e-9)
        assert result.p[column] == pytest.approx(
            2 * stats.t.sf(abs(beta / error), 30 - 4), rel=1e-8 if offset else 1e-9
        )


@pytest.mark.peer
def test_statsmodels_says_the_same() -> None:
    api = pytest.importorskip("statsmodels.api")
    values, covariates, clusters, group = case(1)
    result = adjusted(
        sparse.csr_array(values), model(design((40, 50), clusters), covariates, "x"), "own"
    )
    for column in range(values.shape[1]):
        fit = api.OLS(values[:, column], np.column_stack([group, np.ones(90), covariates]))
        theirs = fit.fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
        assert result.t[column] == pytest.approx(theirs.tvalues[0], rel=1e-9)


def test_columns_without_a_residual_are_no_evidence() -> None:
    values, covariates, clusters, _ = case()
    columns = np.column_stack([np.full(90, 2.5), covariates[:, 1] * 3.0, values[:, 0]])
    result = adjusted(
        sparse.csr_array(columns), model(design((40, 50), clusters), covariates, "x"), "own"
    )
    assert result.p[:2].tolist() == [1.0, 1.0]
    assert np.isnan(result.t[:2]).all()
    assert np.isnan(result.d[:2]).all()
    assert np.isfinite(result.t[2])


# --- as a stage -----------------------------------------------------------------------------------


def confounded(seed: int = 0) -> dict[str, Any]:
    """Feature 0 reads the balance, which differs between the groups; feature 1 reads the group
    itself.
    """
    rng = np.random.default_rng(seed)
    groups = ["a"] * 60 + ["b"] * 60
    balance = rng.normal(size=120) + np.repeat([2.0, 0.0], 60)
    dense = np.column_stack(
        [balance + 5 + 0.3 * rng.normal(size=120), rng.random(120) + np.repeat([1.0, 0.2], 60)]
    )
    words = ["high" if value > 1 else "low" for value in balance]
    return of_dense(dense, groups, balance=balance.tolist(), level=words)


def test_covariates_stand_beside_the_plain_test_and_take_away_what_they_explain() -> None:
    results = run("welch", confounded(), between=("a", "b"), covariates=["balance"])
    number = {(feature, stat): row["number"] for (_, feature, stat, _), row in results.items()}
    assert number[0, "p"] < 1e-9
    assert number[0, "p_adjusted"] > 0.01
    assert abs(number[0, "d_adjusted"]) < 0.6 < number[0, "d"]
    assert number[1, "p_adjusted"] < 1e-6
    assert [
        number[index, stat] for index in (0, 1) for stat in ("significant", "significant_adjusted")
    ] == [1, 0, 1, 1]
    assert number[1, "q_adjusted"] == pytest.approx(2 * number[1, "p_adjusted"])
    comparison = compared("welch", confounded(), between=("a", "b"), covariates=["balance"])
    assert comparison.adjusted == "given balance"
    plain = run("welch", confounded(), between=("a", "b"))
    assert {key: results[key]["number"] for key in plain} == {
        key: row["number"] for key, row in plain.items()
    }


def test_within_a_key_is_least_squares_with_its_values_as_indicators() -> None:
    inputs = confounded()
    results = numbers("welch", inputs, between=("a", "b"), within="level", spread="own")
    words = [row["string"] for row in inputs["sample_meta"].to_pylist() if row["key"] == "level"]
    high = np.array([word == "high" for word in words], dtype=float)
    dense = np.array([row["values"] for row in inputs["activations"].to_pylist()])
    group = (np.arange(120) < 60).astype(float)
    beta, error, _ = sandwich(
        dense[:, 0].astype(float), np.column_stack([group, np.ones(120), high]), np.arange(120)
    )
    assert results["t_adjusted"][0] == pytest.approx(beta / error, rel=1e-6)
    assert (
        numbers("welch", inputs, between=("a", "b"), covariates=["level"], spread="own")[
            "t_adjusted"
        ][0]
        == results["t_adjusted"][0]
    )


def test_students_test_can_be_adjusted_as_well() -> None:
    plain, adjusted = (
        numbers("student", confounded(), between=("a", "b"), covariates=keys)
        for keys in ([], ["balance"])
    )
    assert "p_adjusted" not in plain
    assert (
        adjusted["p_adjusted"]
        == numbers("welch", confounded(), between=("a", "b"), covariates=["balance"])["p_adjusted"]
    )


def test_a_word_outside_the_groups_leaves_a_covariate_a_number() -> None:
    dense, balance = (
        np.random.default_rng(4).random((43, 3)),
        np.random.default_rng(5).normal(size=40).tolist(),
    )
    groups = ["a"] * 20 + ["b"] * 20
    only = numbers(
        "welch",
        of_dense(dense[:40], groups, balance=balance),
        between=("a", "b"),
        covariates=["balance"],
    )
    more = of_dense(dense, [*groups, "c", "c", "c"], balance=[*balance, "none", "none", "none"])
    assert (
        numbers("welch", more, between=("a", "b"), covariates=["balance"])["p_adjusted"]
        == only["p_adjusted"]
    )


def refused(message: str, inputs: Any, part: str = "welch", **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        run(part, inputs, between=("a", "b"), **params)
    assert str(caught.value) == message


def test_a_covariate_that_nobody_has_is_answered_with_the_known_ones() -> None:
    message = (
        "covariates: no sample has metadata 'balanse'. Did you mean 'balance'? The samples have: "
        "balance, group, level."
    )
    refused(message, confounded(), covariates=["balanse"])


def test_a_covariate_that_some_lack_is_refused() -> None:
    inputs = confounded()
    meta = inputs["sample_meta"].to_pylist()
    inputs["sample_meta"] = type(inputs["sample_meta"]).from_pylist(
        [row for row in meta if not (row["key"] == "balance" and row["sample"] < "n0002")],
        schema=inputs["sample_meta"].schema,
    )
    message = (
        "covariates: 2 of the 120 samples compared have no 'balance' (the first is 'n0000'). Take "
        "a key that all of them have."
    )
    refused(message, inputs, covariates=["balance"])


def test_a_covariate_that_is_the_group_is_refused() -> None:
    message = (
        "covariates: given group separate 'a' from 'b' perfectly among the 120 samples compared, "
        "so that nothing is left to compare. Leave out the covariate that stands for the group."
    )
    refused(message, confounded(), covariates=["group"])


def test_more_coefficients_than_clusters_are_refused() -> None:
    rng = np.random.default_rng(0)
    inputs = of_dense(
        rng.random((12, 2)),
        list("aaaaaabbbbbb"),
        [f"g{index // 2}" for index in range(12)],
        kind=[f"k{index % 6}" for index in range(12)],
    )
    message = (
        "covariates: given kind take 7 coefficients, and there are 6 independent clusters; a test "
        "needs more clusters than coefficients. Take fewer covariates, or numbers in place of "
        "words."
    )
    refused(message, inputs, covariates=["kind"])


def test_a_number_that_is_none_is_refused() -> None:
    inputs = of_dense(np.ones((6, 1)), list("aaabbb"), x=[1.0, 2.0, 3.0, 4.0, float("nan"), 5.0])
    refused(
        "covariates: 'x' is nan in sample 'n0004'; an adjustment needs finite numbers.",
        inputs,
        covariates=["x"],
    )


def test_strata_that_cut_through_a_cluster_are_refused_where_labels_move() -> None:
    inputs = of_dense(
        np.ones((12, 1)),
        list("aaaaaabbbbbb"),
        [f"g{index // 2}" for index in range(12)],
        level=list("xyxyxyxyxyxy"),
    )
    message = (
        "within: the cluster of sample 'n0000' has samples with several values of 'level'; a "
        "cluster is one piece of evidence and must lie within one of them. Take a key that is the "
        "same in a unit, or adjust means for it: compare.welch with `within: level`."
    )
    refused(message, inputs, "mann_whitney", within="level")
    refused(message, inputs, "permutation", within="level")
