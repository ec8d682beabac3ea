"""compare.leak and what it is made of: AUROCs against brute force, folds, and metadata that give a
label away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse, stats

from toolkit.errors import DataError
from toolkit.parts import StagePart
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_samples, make_work
from toolkit_stats import toolkit_parts
from toolkit_stats.baselines.leak import Leak, compare_leak
from toolkit_stats.math.auroc import accuracy, auroc, column_aurocs
from toolkit_stats.samples.labelled import folds, two_groups
from toolkit_stats.samples.metadata import logistic

PART = next(
    part for part in toolkit_parts() if isinstance(part, StagePart) and part.name == "compare.leak"
)
WORDS = [f"w{number}" for number in range(60)]


def samples(count: int = 60, **meta: Sequence[float | str]) -> dict[str, pa.Table]:
    """Samples with different prompts of three words, in groups a and b by turns."""
    texts = [f"{WORDS[index % 60]} {WORDS[(7 * index) % 60]} x{index}" for index in range(count)]
    return make_samples(texts, group=["ab"[index % 2] for index in range(count)], **meta)


def run(
    inputs: Mapping[str, pa.Table], **params: Any
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Rows by kind, name and metric."""
    asked = Leak(by="group", between=params.pop("between", ("a", "b")), **params)
    rows = [
        row
        for _, table in compare_leak(make_work(asked, inputs, seed=3))
        for row in table.to_pylist()
    ]
    return {(row["kind"], row["name"], row["metric"]): row for row in rows}


# --- AUROC ----------------------------------------------------------------------------------------


def brute(score: np.ndarray, positive: np.ndarray) -> float:
    gap = score[positive][:, None] - score[~positive][None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


@given(st.integers(0, 10_000), st.integers(6, 40))
@settings(max_examples=40)
def test_the_auroc_is_the_share_of_pairs_won(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    score, positive = rng.integers(0, 5, count).astype(float), np.arange(count) % 3 == 0
    labels = np.zeros(count, dtype=np.int64)
    result = auroc(score, positive, labels, np.arange(count))
    assert result.value == pytest.approx(brute(score, positive))
    assert result.value == pytest.approx(
        stats.mannwhitneyu(score[positive], score[~positive]).statistic
        / (positive.sum() * (~positive).sum())
    )
    assert result.low <= result.value <= result.high


def test_scores_of_different_folds_are_never_compared() -> None:
    score, positive = np.array([1.0, 0.0, 9.0, 8.0]), np.array([True, False, True, False])
    fold = np.array([0, 0, 1, 1])
    assert auroc(score, positive, fold, np.arange(4)).value == 1.0
    assert auroc(score + np.array([0, 0, 50, 50]), positive, fold, np.arange(4)).value == 1.0


def test_the_interval_covers_the_truth_as_often_as_it_says_where_clusters_are_alike() -> None:
    """Clusters of 5 equal scores: taken for 5 each, the interval would be too narrow by more than
    twice.
    """
    truth, covered, rounds = stats.norm.cdf(1 / np.sqrt(2)), 0, 300
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        positive = np.repeat(np.arange(40) < 20, 5)
        score = np.repeat(rng.normal(size=40) + (np.arange(40) < 20), 5)
        result = auroc(score, positive, np.zeros(200, dtype=np.int64), np.repeat(np.arange(40), 5))
        covered += result.low <= truth <= result.high
    assert 0.91 <= covered / rounds <= 0.99


def test_a_perfect_score_has_the_interval_that_its_clusters_allow() -> None:
    score, positive = np.arange(20.0), np.arange(20) >= 10
    result = auroc(score, positive, np.zeros(20, dtype=np.int64), np.arange(20) // 2)
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == pytest.approx(0.025 ** (1 / 5))
    assert accuracy(np.zeros(8, dtype=bool), np.arange(8)).high == pytest.approx(
        1 - 0.025 ** (1 / 8)
    )


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.6, 1.0]), st.booleans())
@settings(max_examples=40)
def test_column_aurocs_are_those_of_the_dense_columns(
    seed: int, density: float, signed: bool
) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (23, 6)) * (rng.random((23, 6)) < density).astype(float)
    dense *= rng.choice([-1, 1], dense.shape) if signed else 1
    positive = np.arange(23) % 4 == 0
    result = column_aurocs(sparse.csr_array(dense), positive)
    np.testing.assert_allclose(result, [brute(column, positive) for column in dense.T], atol=1e-12)


def test_the_logistic_fit_is_the_minimum() -> None:
    rng = np.random.default_rng(0)
    x, positive = rng.normal(size=(80, 4)), rng.random(80) < 0.3

    def loss(w: np.ndarray) -> float:
        scores = x @ w[:-1] + w[-1]
        return float(
            np.logaddexp(0, np.where(positive, -scores, scores)).sum() + 0.5 * (w[:-1] ** 2).sum()
        )

    np.testing.assert_allclose(
        logistic(x, positive), optimize.minimize(loss, np.zeros(5), tol=1e-12).x, atol=1e-4
    )


# --- folds ----------------------------------------------------------------------------------------


def test_no_unit_and_no_prompt_crosses_folds() -> None:
    made = samples(40)
    table = made["samples"]
    units = pa.array([f"u{index // 4}" for index in range(40)])
    prompts = pa.array(
        [f"p{(index + 2) // 4}" if index < 20 else f"q{index}" for index in range(40)]
    )
    made["samples"] = table.set_column(1, "unit", units).set_column(2, "cluster", prompts)
    data = two_groups(make_work(Leak(by="group", between=("a", "b")), made))
    assert (
        len(set(data.cluster.tolist())) == 6
    )  # units and prompts of the first twenty hang together in a chain
    fold = folds(data, 4, np.random.default_rng(0))
    for column in (data.units, data.prompts):
        for name in set(column):
            assert (
                len({int(fold[index]) for index, value in enumerate(column) if value == name}) == 1
            )
    assert {int(number) for number in fold} == {0, 1, 2, 3}


# --- the stage ------------------------------------------------------------------------------------


def test_it_keeps_the_contract() -> None:
    work = make_work(tables=samples(balance=[float(index % 2) for index in range(60)]))
    check_part(PART, params={"by": "group", "between": ["a", "b"]}, work=work)


def test_a_key_that_gives_the_label_away_is_named() -> None:
    results = run(
        samples(
            balance=[float(index % 2) for index in range(60)],
            noise=[float((index * 37) % 11) for index in range(60)],
        )
    )
    row = results["metadata", "balance", "auroc"]
    assert row["value"] == 1.0
    assert row["separates"]
    assert row["folds"] == 5
    assert row["groups"] == (
        "a: 30 samples in 30 clusters (30 distinct prompts); b: 30 samples in 30 clusters (30 "
        "distinct prompts)"
    )
    assert results["together", "all 2 keys", "auroc"]["value"] == 1.0
    assert results["together", "all 2 keys", "auroc"]["separates"]
    noise = results["metadata", "noise", "auroc"]
    assert noise["low"] < 0.5
    assert noise["high"] < 0.8
    assert not noise["separates"]
    assert results["metadata", "balance", "accuracy"]["chance"] == 0.5


def test_words_and_bent_numbers_are_seen_too() -> None:
    colour = ["red" if index % 2 else ["blue", "green"][index % 4 == 0] for index in range(60)]
    bent = [
        50.0 if index % 2 else float(index % 4) * 50 for index in range(60)
    ]  # a: 0 or 100, b: 50
    results = run(samples(colour=colour, bent=bent))
    assert results["metadata", "colour", "auroc"]["value"] == 1.0
    assert results["metadata", "bent", "auroc"]["value"] == 1.0


def test_a_word_never_seen_in_training_tells_nothing() -> None:
    results = run(samples(name=[f"n{index}" for index in range(60)]))
    assert results["metadata", "name", "auroc"]["value"] == 0.5


def test_prompt_length_counts_and_the_key_itself_never_does() -> None:
    made = make_samples(
        [f"x{index}" + " more" * (index % 2) for index in range(24)],
        group=["ab"[index % 2] for index in range(24)],
    )
    results = run(made)
    assert {name for kind, name, _ in results if kind == "metadata"} == {"prompt length (tokens)"}
    assert results["metadata", "prompt length (tokens)", "auroc"]["value"] == 1.0


def test_keys_left_out_are_not_looked_at() -> None:
    results = run(samples(balance=[float(index % 2) for index in range(60)]), leave_out=["balance"])
    assert ("metadata", "balance", "auroc") not in results


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"by": "grup"}, r"by: no sample has metadata 'grup'\. Did you mean 'group'\?"),
        (
            {"between": ("a", "c")},
            r"between: no sample has group 'c'.* Groups by 'group': a \(30 "
            r"samples\), "
            r"b "
            r"\(30 samples\)",
        ),
    ],
)
def test_what_is_not_there_is_said(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(
            compare_leak(
                make_work(Leak(**{"by": "group", "between": ("a", "b"), **changed}), samples())
            )
        )


def test_too_few_clusters_are_refused_with_numbers() -> None:
    made = make_samples(["one", "two", "three", "four", "five"], group=["a", "a", "a", "b", "b"])
    with pytest.raises(
        DataError,
        match=r"group 'b' has 2 samples of 2 units, 2 distinct prompts, 2 clusters "
        r".* "
        r"at "
        r"least 3 independent",
    ):
        run(made)
