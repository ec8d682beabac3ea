"""The permutation test: every labelling where there are few, the same shuffles always, and clusters
that move as a whole.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from tests.plugins.toolkit_stats.comparison_tables import numbers, of_dense, of_groups
from toolkit.errors import DataError
from toolkit.statistics.randomness import generator
from toolkit.testing.nulls import null_groups
from toolkit_stats.math.shuffle import permuted, shuffles


def draw(number: int) -> np.random.Generator:
    return generator(7, "permutation", number)


def welch(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.abs(stats.ttest_ind(a, b, axis=axis, equal_var=False).statistic)


def test_few_labellings_are_all_counted_as_scipy_does() -> None:
    dense = np.random.default_rng(0).normal(size=(9, 5))
    first = np.arange(9) < 4
    dealt = shuffles(first, 999, None, draw)
    assert len(dealt) == 125
    _, p = permuted(sparse.csr_array(dense), first, dealt)
    for column in range(5):
        theirs = stats.permutation_test(
            (dense[:4, column], dense[4:, column]), welch, vectorized=True, alternative="greater"
        )
        assert p[column] == pytest.approx(theirs.pvalue, rel=1e-12)


def test_p_is_the_share_of_labellings_that_do_as_much_with_this_one_among_them() -> None:
    rng = np.random.default_rng(1)
    dense = (
        np.maximum(rng.normal(size=(40, 6)), 0) + np.arange(6) * (np.arange(40) < 15)[:, None] * 0.2
    )
    first = np.arange(40) < 15
    dealt = shuffles(first, 150, None, draw)
    t, p = permuted(sparse.csr_array(dense), first, dealt)
    np.testing.assert_allclose(np.abs(t), welch(dense[first], dense[~first], axis=0), rtol=1e-9)
    hits = sum(
        welch(dense[labels], dense[~labels], axis=0) >= np.abs(t) * (1 - 1e-9) for labels in dealt
    )
    np.testing.assert_allclose(p, (1 + hits) / 151)


def test_shuffles_do_not_depend_on_how_many_there_are() -> None:
    first = np.arange(30) < 10
    few, many = (shuffles(first, count, None, draw) for count in (20, 50))
    assert (many[:20] == few).all()
    assert (many.sum(axis=1) == 10).all()


def test_labels_stay_within_their_stratum() -> None:
    first, strata = np.arange(30) % 3 == 0, np.arange(30) // 10
    for dealt in shuffles(first, 50, strata, draw):
        assert [dealt[strata == number].sum() for number in range(3)] == [
            first[strata == number].sum() for number in range(3)
        ]


def test_a_constant_column_is_no_evidence() -> None:
    first = np.arange(30) < 10
    _, p = permuted(sparse.csr_array(np.full((30, 1), 0.1)), first, shuffles(first, 99, None, draw))
    assert p.tolist() == [1.0]


def test_many_columns_and_shuffles_are_done_in_pieces_that_do_not_show() -> None:
    rng = np.random.default_rng(2)
    dense = np.maximum(rng.normal(size=(24, 1500)), 0)
    first = np.arange(24) < 12
    dealt = shuffles(first, 700, None, draw)
    _, whole = permuted(sparse.csr_array(dense), first, dealt)
    _, part = permuted(sparse.csr_array(dense[:, 1020:1030]), first, dealt)
    np.testing.assert_array_equal(whole[1020:1030], part)


# --- as a stage -----------------------------------------------------------------------------------


def test_games_are_shuffled_and_not_rounds() -> None:
    inputs = of_groups(null_groups(11, n_games=60, rounds=8, n_features=200, game_sd=1.5))
    by = {
        unit: numbers("permutation", inputs, between=("a", "b"), unit=unit, permutations=199)
        for unit in ("game", "sample")
    }
    shares = {
        unit: np.mean([p < 0.05 for p in result["p"].values()]) for unit, result in by.items()
    }
    assert shares["sample"] > 0.3
    assert shares["game"] < 0.09


def test_the_seed_decides_the_shuffles() -> None:
    inputs = of_groups(null_groups(1, n_games=40, rounds=2, n_features=20))
    p = [
        numbers("permutation", inputs, seed, between=("a", "b"), permutations=99)["p"]
        for seed in (0, 0, 1)
    ]
    assert p[0] == p[1] != p[2]


def test_strata_of_one_group_each_leave_nothing_to_shuffle() -> None:
    inputs = of_dense(np.ones((8, 1)), list("aaaabbbb"), where=["x"] * 4 + ["y"] * 4)
    message = (
        "within: each value of 'where' has clusters of one group only, so that no label can be "
        "shuffled. Take a key within whose values both groups occur."
    )
    with pytest.raises(DataError) as caught:
        numbers("permutation", inputs, between=("a", "b"), within="where")
    assert str(caught.value) == message
