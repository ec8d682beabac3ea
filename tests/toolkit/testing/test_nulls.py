"""Null and planted groups: rounds mislead, games do not, and the planted effect is the one asked
for.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.testing.nulls import Groups, null_groups, planted_groups


def p_values(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    return stats.ttest_ind(rows[label], rows[~label], equal_var=False).pvalue


def cohens_d(groups: Groups) -> np.ndarray:
    means, label = groups.game_means()
    a, b = means[label], means[~label]
    return (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_a_difference_rounds_mislead_and_games_do_not(seed: int) -> None:
    groups = null_groups(seed, n_features=400)
    means, label = groups.game_means()
    by_round = (p_values(groups.dense(), groups.label) < 0.05).mean()
    by_game = p_values(means, label)
    error = np.sqrt(0.05 * 0.95 / 400)
    assert by_round > 0.05 + 6 * error, "taking rounds for evidence must be visibly wrong"
    assert abs((by_game < 0.05).mean() - 0.05) < 3 * error
    assert stats.kstest(by_game, "uniform").pvalue > 1e-3


def test_the_null_is_what_it_says() -> None:
    groups = null_groups(3, n_games=300, rounds=5, n_features=100, density=0.2)
    assert groups.planted == {}
    assert len(groups.sample) == 1500
    assert groups.label.reshape(300, 5).std(axis=1).max() == 0, "labels belong to games"
    assert groups.label.mean() == 0.5
    assert (groups.dense() > 0).mean() == pytest.approx(0.2, abs=0.01)
    assert groups.features.dtype == np.uint32
    assert groups.values.dtype == np.float32
    assert groups.values.min() > 0
    assert groups.indptr[-1] == len(groups.values)
    for row in (0, 7, 1499):
        entries = slice(groups.indptr[row], groups.indptr[row + 1])
        assert (np.diff(groups.features[entries].astype(int)) > 0).all()
        np.testing.assert_array_equal(
            groups.dense()[row, groups.features[entries]], groups.values[entries]
        )


def test_without_game_effects_rounds_are_fair_evidence() -> None:
    groups = null_groups(4, n_features=400, game_sd=0.0)
    assert (p_values(groups.dense(), groups.label) < 0.05).mean() < 0.09


@pytest.mark.parametrize(("d", "density"), [(0.8, 0.3), (0.3, 0.3), (-0.5, 0.5), (1.5, 0.05)])
def test_the_planted_effect_is_found(d: float, density: float) -> None:
    which = (1, 5, 30)
    groups = planted_groups(5, d=d, which=which, n_games=8000, n_features=32, density=density)
    result = cohens_d(groups)
    assert groups.planted == dict.fromkeys(which, d)
    # The standard error of d over 8,000 games is about 0.024.
    np.testing.assert_allclose(result[list(which)], d, atol=0.08)
    assert np.abs(np.delete(result, which)).max() < 0.1


def test_planting_leaves_every_other_number_alone() -> None:
    null, planted = null_groups(6), planted_groups(6, d=0.8, which=[2])
    wider = null_groups(6, n_features=80)
    np.testing.assert_array_equal(
        np.delete(null.dense(), 2, axis=1), np.delete(planted.dense(), 2, axis=1)
    )
    np.testing.assert_array_equal(null.dense(), wider.dense()[:, :64])
    assert not np.array_equal(null.dense(), null_groups(7).dense())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": [64]}, "outside 0..63"),
        ({"d": -9.0}, "cannot be reached"),
        ({"density": 1.0}, "density"),
        ({"rounds": 0}, "at least"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planted_groups(0, **arguments)
