"""Data whose truth is known: what is found where nothing differs, and how much of what does.

A null set has 200 games of 6 rounds, labels that belong to games, and features that resemble
themselves within a game. The share of sets in which anything is found after Benjamini-Hochberg may
exceed alpha by two standard errors; a test that takes rounds for evidence finds something in nearly
every set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from tests.plugins.toolkit_stats.comparison_tables import numbers, of_groups
from tests.plugins.toolkit_stats.test_adjust import design
from toolkit.statistics.corrections import benjamini_hochberg
from toolkit.testing.nulls import null_groups, planted_groups
from toolkit_stats.math.adjust import adjusted
from toolkit_stats.math.means import Spreads, moments, welch
from toolkit_stats.math.placements import area
from toolkit_stats.math.ranks import ranked
from toolkit_stats.samples.covariates import model

ALPHA = 0.05
TESTS: dict[str, dict[str, Any]] = {
    "welch": {},
    "student": {},
    "mann_whitney": {},
    "auroc": {},
    "kruskal": {},
    "anova": {},
    "permutation": {"permutations": 1999},
}


def anything(parts: Sequence[str], seed: int, **params: Any) -> list[bool]:
    """Whether a null set has a discovery, by each of these tests."""
    inputs = of_groups(null_groups(seed, n_features=16))
    results = []
    for part in parts:
        settings = {
            **({} if part in ("anova", "kruskal") else {"between": ["a", "b"]}),
            **TESTS[part],
            **params,
        }
        marked = numbers(part, inputs, seed, details="discovered", alpha=ALPHA, **settings)[
            "significant"
        ]
        results.append(any(number == 1.0 for number in marked.values()))
    return results


def bound(sets: int) -> float:
    return ALPHA + 2 * float(np.sqrt(ALPHA * (1 - ALPHA) / sets))


def test_nulls_hold_alpha() -> None:
    result = np.array([anything(("welch", "mann_whitney"), seed) for seed in range(30)])
    assert (result.mean(axis=0) <= bound(30)).all()


def test_rounds_taken_for_evidence_do_not() -> None:
    assert np.mean([anything(("welch",), seed, unit="sample") for seed in range(12)]) > 0.5


FAMILY = 8192


def found_in_groups_of(
    small: int, large: int, seed: int, spreads: Sequence[Spreads]
) -> list[list[int]]:
    """By spread, the false discoveries of Welch's test, AUROC and the adjusted test, of sparse
    features that all are null.
    """
    rng, rows = np.random.default_rng([seed, small, large]), small + large
    fires = rng.random((rows, FAMILY)) < rng.choice([0.02, 0.05, 0.1, 0.2, 0.4], size=FAMILY)
    matrix = sparse.csr_array(fires * rng.gamma(2.0, size=(rows, FAMILY)))
    clusters, first = (np.arange(small), np.arange(large)), np.arange(rows) < small
    sides = [moments(matrix[first], clusters[0]), moments(matrix[~first], clusters[1])]
    ranks, adjustment = (
        ranked(matrix.tocsc()),
        model(design((small, large), np.arange(rows)), rng.normal(size=(rows, 1)), "x"),
    )
    results = []
    for spread in spreads:
        tests = (
            welch(*sides, spread),
            area(ranks, first, clusters, spread),
            adjusted(matrix, adjustment, spread),
        )
        results.append([int((benjamini_hochberg(test.p, FAMILY) <= ALPHA).sum()) for test in tests])
    return results


def test_small_groups_hold_alpha_over_a_large_family_and_their_own_spreads_do_not() -> None:
    unguarded, guarded = found_in_groups_of(5, 100, 0, ("own", "guarded"))
    assert min(unguarded) > 100
    assert guarded == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(5, 100), (8, 60), (15, 60), (29, 109), (100, 100)])
def test_groups_of_any_sizes_hold_alpha_over_a_large_family(sizes: tuple[int, int]) -> None:
    result = np.array([found_in_groups_of(*sizes, seed, ("guarded",))[0] for seed in range(20)])
    assert ((result > 0).mean(axis=0) <= bound(20)).all()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_nulls_hold_alpha() -> None:
    result = np.array([anything(tuple(TESTS), seed) for seed in range(1000)])
    assert dict(zip(TESTS, result.mean(axis=0) <= bound(1000), strict=True)) == dict.fromkeys(
        TESTS, True
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nulls_adjusted_for_what_differs_between_the_groups_hold_alpha() -> None:
    """The balance differs between the groups and from round to round, and no feature reads it."""
    results = []
    for seed in range(400):
        data = null_groups(seed, n_features=16)
        inputs, rng = of_groups(data), np.random.default_rng(seed)
        balance = rng.normal(size=200)[data.game] + data.label + rng.normal(size=len(data.game))
        meta = inputs["sample_meta"]
        columns = [
            meta["sample"],
            ["balance"] * len(meta),
            balance,
            pa.nulls(len(meta), pa.string()),
        ]
        inputs["sample_meta"] = pa.concat_tables([meta, pa.table(columns, schema=meta.schema)])
        marked = numbers("welch", inputs, between=["a", "b"], covariates=["balance"], alpha=ALPHA)[
            "significant_adjusted"
        ]
        results.append(any(number == 1.0 for number in marked.values()))
    assert np.mean(results) <= bound(400)


@pytest.mark.parametrize("part", ["welch", "student", "mann_whitney", "auroc"])
def test_nine_in_ten_planted_features_are_found(part: str) -> None:
    result, planted = 0, tuple(range(0, 64, 8))
    for seed in range(4):
        inputs = of_groups(planted_groups(seed, d=0.8, which=planted))
        marked = numbers(part, inputs, between=["a", "b"], details="discovered")["significant"]
        result += sum(marked[feature] == 1.0 for feature in planted)
    assert result >= 0.9 * 4 * len(planted)
