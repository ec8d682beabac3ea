"""Data whose truth is known: what is found where nothing differs, and how much of what does.

A null set has 200 games of 6 rounds, labels that belong to games, and features that resemble themselves within a game. The share of
sets in which anything is found after Benjamini-Hochberg may exceed alpha by two standard errors; a test that takes rounds for evidence
finds something in nearly every set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.plugins.toolkit_stats.made import numbers, of_groups
from toolkit.testing.nulls import null_groups, planted_groups

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
    given = of_groups(null_groups(seed, n_features=16))
    found = []
    for part in parts:
        own = {**({} if part in ("anova", "kruskal") else {"between": ["a", "b"]}), **TESTS[part], **params}
        marked = numbers(part, given, seed, details="discovered", alpha=ALPHA, **own)["significant"]
        found.append(any(number == 1.0 for number in marked.values()))
    return found


def bound(sets: int) -> float:
    return ALPHA + 2 * float(np.sqrt(ALPHA * (1 - ALPHA) / sets))


def test_a_hundred_nulls_hold_alpha() -> None:
    found = np.array([anything(("welch", "mann_whitney"), seed) for seed in range(100)])
    assert (found.mean(axis=0) <= bound(100)).all()


def test_rounds_taken_for_evidence_do_not() -> None:
    assert np.mean([anything(("welch",), seed, unit="sample") for seed in range(20)]) > 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_nulls_hold_alpha() -> None:
    found = np.array([anything(tuple(TESTS), seed) for seed in range(1000)])
    assert dict(zip(TESTS, found.mean(axis=0) <= bound(1000), strict=True)) == dict.fromkeys(TESTS, True)


@pytest.mark.parametrize("part", ["welch", "student", "mann_whitney", "auroc"])
def test_nine_in_ten_planted_features_are_found(part: str) -> None:
    found, planted = 0, tuple(range(0, 64, 8))
    for seed in range(5):
        given = of_groups(planted_groups(seed, d=0.8, which=planted))
        marked = numbers(part, given, between=["a", "b"], details="discovered")["significant"]
        found += sum(marked[feature] == 1.0 for feature in planted)
    assert found >= 0.9 * 5 * len(planted)
