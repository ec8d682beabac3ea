"""The stages compare.*: groups, units, the family, what each writes in addition to p and q, and
what it refuses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from scipy import sparse, stats

from tests.plugins.toolkit_stats.comparison_tables import (
    PARTS,
    TESTS,
    compared,
    numbers,
    of_dense,
    outputs,
    run,
    sample,
    sizes,
    space,
    tables,
)
from toolkit.errors import DataError
from toolkit.statistics.corrections import benjamini_hochberg
from toolkit.statistics.randomness import half
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_work
from toolkit_patch.screen.candidates import read_features
from toolkit_stats.math.duplicates import same_as
from toolkit_stats.math.means import anova, effects, moments, pearson, slope, student
from toolkit_stats.samples.params import Means, SeveralGroups

PAIR = {"between": ["a", "b"]}
TWO_GROUPS = ("welch", "student", "mann_whitney", "auroc", "permutation")


def values(rows: int = 24, columns: int = 5, seed: int = 0) -> np.ndarray:
    """Sparse values with ties."""
    return np.maximum(np.round(np.random.default_rng(seed).normal(size=(rows, columns)) * 4) / 4, 0)


def halves(rows: int = 24) -> list[str]:
    return ["a"] * (rows // 2) + ["b"] * (rows - rows // 2)


def refused(message: str, part: str, inputs: dict[str, pa.Table], **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        run(part, inputs, **params)
    assert str(caught.value) == message


@pytest.mark.parametrize("part", PARTS)
def test_each_keeps_the_contract(part: str) -> None:
    name = part.removeprefix("compare.")
    params = {"by": "group", **(PAIR if name in TWO_GROUPS else {})}
    inputs = of_dense(values(), np.arange(24.0).tolist() if name == "correlation" else halves())
    check_part(PARTS[part], params=params, work=make_work(tables=inputs))


# --- statistics -----------------------------------------------------------------------------------

DENSE = hnp.arrays(
    float, (13, 4), elements=st.integers(-40, 40).map(lambda number: max(number, 0) / 8)
)


@settings(max_examples=20, deadline=None)
@drawn(dense=DENSE)
def test_student_is_scipys_and_its_interval_the_usual_one(dense: np.ndarray) -> None:
    a, b = dense[:6], dense[6:]
    spread = (a.std(axis=0) > 0) | (b.std(axis=0) > 0)
    sides = [moments(sparse.csr_array(side[:, spread]), np.arange(len(side))) for side in (a, b)]
    result, theirs = student(*sides), stats.ttest_ind(a[:, spread], b[:, spread])
    np.testing.assert_allclose(result.t, theirs.statistic, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.p, theirs.pvalue, rtol=1e-9)
    sized = effects(*sides, result.variance)
    reach = 1.959963984540054 * np.sqrt(13 / 42 + result.d**2 / 22)
    np.testing.assert_allclose(sized.d_high - sized.d, reach, rtol=1e-9)
    np.testing.assert_allclose(
        sized.g / np.where(result.d, result.d, 1),
        np.where(result.d, 1 - 3 / (4 * 11 - 1), 0),
        rtol=1e-3,
    )


def test_clusters_of_equal_rows_are_one_row_each_for_student() -> None:
    rows, labels = values(20), np.repeat(np.arange(10), 3)
    once = student(
        *(moments(sparse.csr_array(side), np.arange(10)) for side in (rows[:10], rows[10:]))
    )
    again = student(
        *(
            moments(sparse.csr_array(np.repeat(side, 3, axis=0)), labels)
            for side in (rows[:10], rows[10:])
        )
    )
    np.testing.assert_allclose(again.p, once.p, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@drawn(dense=DENSE)
def test_anova_is_scipys(dense: np.ndarray) -> None:
    parts = [dense[:3], dense[3:8], dense[8:]]
    inside = sum(part.var(axis=0) for part in parts) > 0
    result = anova(
        [moments(sparse.csr_array(part[:, inside]), np.arange(len(part))) for part in parts]
    )
    theirs = stats.f_oneway(*(part[:, inside] for part in parts), axis=0)
    np.testing.assert_allclose(result.f, theirs.statistic, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(result.p, theirs.pvalue, rtol=1e-8)


@settings(max_examples=20, deadline=None)
@drawn(dense=DENSE, numbers=st.lists(st.integers(-3, 3), min_size=11, max_size=11))
def test_pearson_is_scipys_with_its_interval(dense: np.ndarray, numbers: list[int]) -> None:
    label = np.array([7.0, -7.0, *numbers])
    r = pearson(sparse.csr_array(dense), label)
    result = slope(r, label)
    for column in range(4):
        if np.ptp(dense[:, column]) == 0:
            assert np.isnan(r[column])
            assert result.p[column] == 1
            continue
        theirs = stats.pearsonr(dense[:, column], label)
        assert r[column] == pytest.approx(theirs.statistic, abs=1e-12)
        if np.isnan(result.t[column]):
            assert abs(r[column]) == pytest.approx(1.0)
            continue
        assert result.p[column] == pytest.approx(theirs.pvalue, rel=1e-7)
        np.testing.assert_allclose(
            [result.low[column], result.high[column]], theirs.confidence_interval(), rtol=1e-7
        )


@pytest.mark.parametrize("part", TWO_GROUPS)
def test_every_test_of_two_groups_writes_what_a_screen_reads(part: str) -> None:
    inputs = of_dense(values(), halves())
    result, welch = run(part, inputs, **PAIR), run("welch", inputs, **PAIR)
    shared = ("mean", "density", "fired", "d", "d_low", "d_high", "g")
    expected = {key: row["number"] for key, row in welch.items() if key[2] in shared}
    got = {key: row["number"] for key, row in result.items() if key[2] in shared}
    assert set(got) == set(expected)
    if part != "student":
        assert got == expected
    assert {row["stat"] for row in result.values()} >= {"p", "q", "significant", "fired"}


@pytest.mark.parametrize("part", TWO_GROUPS)
def test_a_screen_follows_every_test_of_two_groups(part: str) -> None:
    more = {"covariates": ["balance"]} if part in ("welch", "student") else {}
    inputs = of_dense(values(), halves(), balance=np.random.default_rng(0).random(24).tolist())
    rows = run(part, inputs, details="discovered", **PAIR, **more)
    tables = outputs(part, inputs, details="discovered", **PAIR, **more)
    result = read_features(TableInputs(tables), None, "all")
    assert result.groups == ("a", "b")
    assert result.feature.tolist() == [0, 1, 2, 3, 4]
    assert result.d.tolist() == [rows["s1", index, "d", "a vs b"]["number"] for index in range(5)]


def test_a_rank_test_goes_by_cluster_means() -> None:
    dense = values(48)
    units = [f"g{index // 2}" for index in range(48)]
    results = numbers("mann_whitney", of_dense(dense, halves(48), units), **PAIR)
    means = dense.reshape(24, 2, -1).mean(axis=1)
    theirs = stats.mannwhitneyu(means[:12], means[12:], axis=0, method="asymptotic")
    np.testing.assert_allclose(list(results["p"].values()), theirs.pvalue, rtol=1e-9)
    np.testing.assert_allclose(list(results["u"].values()), theirs.statistic)
    np.testing.assert_allclose(
        list(results["rank_biserial"].values()), 2 * theirs.statistic / 144 - 1
    )
    assert all(
        results["rank_biserial_low"][index]
        < results["rank_biserial"][index]
        < results["rank_biserial_high"][index]
        for index in range(5)
    )


@pytest.mark.parametrize(
    ("method", "theirs"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)]
)
def test_a_correlation_goes_by_cluster_means_of_both(method: str, theirs: Any) -> None:
    dense, label = values(48), np.random.default_rng(1).integers(0, 4, 48).astype(float)
    units = [f"g{index // 2}" for index in range(48)]
    inputs = of_dense(dense, label.tolist(), units)
    results = run("correlation", inputs, method=method)
    expected = theirs(dense[:, 2].reshape(24, 2).mean(axis=1), label.reshape(24, 2).mean(axis=1))
    assert results["s1", 2, "r", "trend of group"]["number"] == pytest.approx(expected.statistic)
    assert results["s1", 2, "p", "trend of group"]["number"] == pytest.approx(expected.pvalue)
    size = sizes("correlation", inputs, method=method)[""]
    assert size == "48 samples of 24 units, 48 distinct prompts, 24 clusters"


@pytest.mark.parametrize(
    ("part", "theirs"), [("anova", stats.f_oneway), ("kruskal", stats.kruskal)]
)
def test_several_groups_by_cluster_means(part: str, theirs: Any) -> None:
    dense, groups = values(30), [f"k{index % 3}" for index in range(30)]
    results = numbers(part, of_dense(dense, groups))
    expected = theirs(*(dense[offset::3] for offset in range(3)), axis=0)
    np.testing.assert_allclose(list(results["p"].values()), expected.pvalue, rtol=1e-9)
    two = numbers(part, of_dense(dense, groups), between=["k0", "k2"])
    np.testing.assert_allclose(
        list(two["p"].values()), theirs(dense[0::3], dense[2::3], axis=0).pvalue, rtol=1e-9
    )


def test_strata_of_ranks() -> None:
    inputs = of_dense(values(48), halves(24) * 2, level=["x"] * 24 + ["y"] * 24)
    plain, within = (numbers("mann_whitney", inputs, within=key, **PAIR) for key in (None, "level"))
    assert plain["p"] != within["p"]
    assert plain["rank_biserial"] == within["rank_biserial"]


# --- groups and units -----------------------------------------------------------------------------


def test_one_group_against_the_rest() -> None:
    inputs = of_dense(values(), [["x", "y", "z"][index % 3] for index in range(24)])
    merged = of_dense(values(), [["x", "other", "other"][index % 3] for index in range(24)])
    result, expected = (
        run("welch", inputs, between=["x", "rest"]),
        run("welch", merged, between=["x", "other"]),
    )
    assert [row["number"] for row in result.values()] == [
        row["number"] for row in expected.values()
    ]
    assert sizes("welch", inputs, between=["x", "rest"])["rest"].startswith("16 samples")


def test_a_group_that_is_named_rest_is_refused() -> None:
    message = (
        "between: 'rest' means all other samples, but there are samples whose group is 'rest'. "
        "Give that group another name, or name both groups."
    )
    refused(message, "welch", of_dense(values(), ["x", "rest"] * 12), between=["x", "rest"])


@pytest.mark.parametrize("unit", ["unit", "game", "sentence"])
def test_units_go_by_several_names(unit: str) -> None:
    inputs = of_dense(values(), halves(), [f"g{index // 3}" for index in range(24)])
    size = sizes("welch", inputs, unit=unit, **PAIR)["a"]
    assert size.endswith("12 distinct prompts, 4 clusters")


def test_a_metadata_key_may_name_the_unit() -> None:
    inputs = of_dense(values(), halves(), condition=[f"c{index // 4}" for index in range(24)])
    assert sizes("welch", inputs, unit="condition", **PAIR)["a"].endswith("3 clusters")
    message = (
        "unit: no sample has metadata 'conditoin'. Did you mean 'condition'? The samples have: "
        "condition, group."
    )
    refused(message, "welch", inputs, unit="conditoin", **PAIR)


def test_a_sample_without_its_unit_is_refused() -> None:
    inputs = of_dense(values(), halves(), condition=[f"c{index // 4}" for index in range(24)])
    inputs["sample_meta"] = inputs["sample_meta"].slice(0, 40)
    message = (
        "unit: sample 'n0016' has no metadata 'condition', so the unit that it belongs to is "
        "unknown. Take `unit: unit` (the samples' own), `unit: sample`, or a key that every "
        "compared sample has."
    )
    refused(message, "welch", inputs, unit="condition", **PAIR)


@pytest.mark.parametrize("part", [part.removeprefix("compare.") for part in PARTS])
def test_a_group_of_fewer_than_three_units_is_refused_by_every_test(part: str) -> None:
    groups: list[Any] = [1.0, 2.0] if part == "correlation" else ["a", "a", "b", "b", "b"]
    where = "by: 'group'" if part == "correlation" else "between: group 'a'"
    message = (
        f"{where} has 2 samples of 2 units, 2 distinct prompts, 2 clusters (unit: unit, cluster: "
        "prompt, half: all); a test needs at least 3 independent clusters to estimate a "
        "spread. Give "
        "the experiment more units."
    )
    refused(
        message, part, of_dense(values(len(groups)), groups), **(PAIR if part in TWO_GROUPS else {})
    )


def test_units_that_equal_prompts_join_are_told_apart_from_too_few() -> None:
    """Games that open with one prompt: twelve units, and one cluster."""
    samples = [
        sample(f"n{index}", f"u{index // 2}", prompt="" if index % 2 else "opening")
        for index in range(12)
    ]
    inputs = tables(samples, ["a"] * 6 + ["b"] * 6, [])
    message = (
        "between: group 'a' has 6 samples of 3 units, 4 distinct prompts, 1 cluster (unit: unit, "
        "cluster: prompt, half: all); a test needs at least 3 independent clusters to estimate "
        "a spread. Equal prompts join its units: give the experiment more distinct prompts, or set "
        "`cluster: none` if units are independent all the same (games that open with one prompt)."
    )
    refused(message, "welch", inputs, **PAIR)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_one_row_that_fires_and_differs_is_one_of_as_many_labellings(method: str) -> None:
    dense = np.zeros((40, 2))
    dense[0, 1] = 2.0
    results = run("correlation", of_dense(dense, [1.0] + [0.0] * 39), method=method)
    number = {key[2]: row["number"] for key, row in results.items() if key[1] == 1}
    assert number["r"] == pytest.approx(1.0)
    assert number["p"] == pytest.approx(2 / 40)
    assert number["t"] is number["r_low"] is number["r_high"] is None


def unmeasured() -> dict[str, pa.Table]:
    """Forty samples with one feature, without a difference; nobody looked at ten of the second
    group.
    """
    rng = np.random.default_rng(0)
    inputs = of_dense(
        np.column_stack([5 + rng.normal(size=40), np.ones(40)]),
        ["a"] * 20 + ["b"] * 20,
        number=list(range(40)),
    )
    rows = inputs["activations"]
    return {**inputs, "activations": rows.filter(pc.less(rows["sample"], "n0030"))}


@pytest.mark.parametrize("part", TESTS)
def test_samples_that_were_not_measured_are_not_silent(part: str) -> None:
    asked = {"by": "number"} if part == "correlation" else {"between": ("a", "b")}
    with pytest.raises(DataError) as caught:
        run(part, unmeasured(), **asked)
    assert str(caught.value) == (
        "space s1 (m/resid_post.1/s1): 10 of 40 samples have no row in table 'activations' (the "
        "first is 'n0030'). Where nothing fires there is a row with empty lists; a missing row "
        "means that the sample was not measured (for example, because the selector matched no "
        "token), which is not the same as nothing firing. Extract at tokens that each sample has, "
        "or leave such samples out: `missing: leave_out` of the comparisons."
    )
    results = run(part, unmeasured(), missing="leave_out", **asked)
    assert not any(
        row["number"]
        for key, row in results.items()
        if key[2] == "significant" and part != "correlation"
    )
    texts = set(sizes(part, unmeasured(), missing="leave_out", **asked).values())
    left = 30 if part == "correlation" else 10
    assert (
        f"{left} samples of {left} units, {left} distinct prompts, {left} clusters, 10 not measured"
        in texts
    )


@pytest.mark.parametrize("part", TESTS)
@pytest.mark.parametrize("others", [0, 3])
def test_samples_none_of_which_was_measured_are_not_silent(part: str, others: int) -> None:
    """Also where other samples than those that are compared have rows."""
    asked = {"by": "number"} if part == "correlation" else {"between": ("a", "b")}
    inputs = unmeasured()
    elsewhere = [
        {"space": "s1", "sample": f"x{index}", "position": 0, "features": [1], "values": [1.0]}
        for index in range(others)
    ]
    inputs["activations"] = pa.Table.from_pylist(elsewhere, schema=inputs["activations"].schema)
    with pytest.raises(DataError) as caught:
        run(part, inputs, **asked)
    assert str(caught.value) == (
        "no space has a row of any of the 40 samples in table 'activations' (the first is "
        "'n0000'). Where nothing fires there is a row with empty lists: these samples were not "
        "measured, for example because a selector matched no token. Extract at tokens that they "
        "have."
    )


def test_a_group_that_was_not_measured_is_refused() -> None:
    inputs = unmeasured()
    rows = inputs["activations"]
    inputs["activations"] = rows.filter(pc.less(rows["sample"], "n0020"))
    with pytest.raises(DataError) as caught:
        run("welch", inputs, between=("a", "b"), missing="leave_out")
    assert str(caught.value) == (
        "between: of group 'b' none of the 20 samples has a row of activations in every space, so "
        "that `missing: leave_out` leaves none. Extract at tokens that these samples have."
    )


def test_a_trend_needs_numbers_that_change() -> None:
    message = (
        "by: 'group' is 'a' in sample 'n0000'; a correlation follows numbers. Take a key whose "
        "values are finite numbers, or compare groups (compare.welch, compare.kruskal)."
    )
    refused(message, "correlation", of_dense(values(4), list("aabb")))
    message = (
        "by: 'group' is 2 in each of the 4 samples compared; nothing can follow a number that does "
        "not change. Take another key, or samples that differ in it."
    )
    refused(message, "correlation", of_dense(values(4), [2.0] * 4))


def test_a_trend_over_a_half_without_units_is_refused() -> None:
    names = [f"n{index}" for index in range(40) if half(0, f"n{index}") == "select"][:4]
    message = (
        "by: no unit with 'group' falls into the half 'confirm'. Take `half: all`, or give the "
        "experiment more units."
    )
    refused(
        message,
        "correlation",
        tables([sample(name) for name in names], [1.0, 2.0, 3.0, 4.0], []),
        half="confirm",
    )


def test_several_groups_are_at_least_two() -> None:
    message = "by: 'group' names fewer than two groups. Groups by 'group': a (4 samples)."
    refused(message, "anova", of_dense(values(4), list("aaaa")))
    with pytest.raises(ValidationError, match="'a' is named twice; name each group once"):
        SeveralGroups(by="group", between=("a", "b", "a"))


# --- the family -----------------------------------------------------------------------------------


def two_spaces(**more: Any) -> dict[str, pa.Table]:
    """The same values in two SAEs; by default at different layers."""
    dense = values(24, 8) + np.outer(np.arange(24) < 12, np.arange(8) == 3) * 3
    inputs = of_dense(dense, halves())
    other = inputs["activations"].set_column(
        0, inputs["activations"].schema.field(0), pa.array(["s2"] * 24)
    )
    described = tables([], [], [], [space("s1", 8, 1), space("s2", 100, more.get("layer", 2))])[
        "spaces"
    ]
    return inputs | {
        "activations": pa.concat_tables([inputs["activations"], other]),
        "spaces": described,
    }


def test_a_family_of_one_space_is_corrected_by_itself_and_says_so() -> None:
    results = run("welch", two_spaces(), family="space", **PAIR)
    for name, width in (("s1", 8), ("s2", 100)):
        p, q = (
            np.array([results[name, index, stat, "a vs b"]["number"] for index in range(8)])
            for stat in ("p", "q")
        )
        np.testing.assert_allclose(q, benjamini_hochberg(p, width))
        message = compared("welch", two_spaces(), family="space", **PAIR).describe(name)
        assert message == f"welch: bh over {width} features of this space, alpha 0.05"


def test_rare_features_are_no_part_of_the_family_in_either_group() -> None:
    dense = np.zeros((24, 8))
    dense[:, 0], dense[:6, 1], dense[:3, 2], dense[12:, 3] = (
        1 + np.arange(24),
        1 + np.arange(6),
        1,
        1 + np.arange(12),
    )
    inputs = of_dense(dense, halves())
    results = run("welch", inputs, min_count=4, **PAIR)
    assert {feature for _, feature, _, _ in results} == {0, 1, 3}
    text = "welch: bh over 3 features that fired in at least 4 samples, alpha 0.05"
    assert compared("welch", inputs, min_count=4, **PAIR).describe() == text
    assert {feature for _, feature, _, _ in run("welch", inputs, min_density=0.5, **PAIR)} == {0, 3}
    swapped = of_dense(dense, halves()[::-1])
    assert {feature for _, feature, _, _ in run("welch", swapped, min_count=4, **PAIR)} == {0, 1, 3}


def test_the_family_is_the_same_whatever_differs() -> None:
    inputs = two_spaces()
    strict = run("welch", inputs, alpha=1e-9, min_abs_d=3.0, **PAIR)
    loose = run("welch", inputs, alpha=0.5, **PAIR)
    assert all(
        strict[key]["number"] == row["number"] for key, row in loose.items() if key[2] in ("p", "q")
    )


@pytest.mark.parametrize("correct", ["by", "storey", "holm", "bonferroni"])
def test_other_corrections_are_named_with_their_q(correct: str) -> None:
    results = run("welch", two_spaces(), correct=correct, **PAIR)
    message = compared("welch", two_spaces(), correct=correct, **PAIR).describe()
    assert message == f"welch: {correct} over 108 features, alpha 0.05"
    assert results["s1", 3, "significant", "a vs b"]["number"] == 1.0


# --- the same feature in several SAEs -------------------------------------------------------------


def twins(
    result: dict[tuple[str, int, str, str], dict[str, Any]],
) -> set[tuple[str, int, str, float]]:
    return {
        (index[0], index[1], row["text"], row["number"])
        for index, row in result.items()
        if index[2] == "same_as"
    }


def test_features_that_do_the_same_in_two_saes_of_a_site_are_one_discovery() -> None:
    results = run("welch", two_spaces(layer=1), **PAIR)
    discovered = {key[:2] for key in results if key[2] == "discovered"}
    assert discovered == {("s1", 3), ("s2", 3)}
    assert twins(results) == {("s2", 3, "s1", 3.0)}
    assert twins(run("welch", two_spaces(layer=2), **PAIR)) == set()


def test_alike_is_a_correlation_of_095_between_different_saes() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((200, 3))
    near, far = base + 0.05 * rng.random((200, 3)), base + 0.5 * rng.random((200, 3))
    r = [
        np.corrcoef(base[:, index], other[:, index])[0, 1]
        for other in (near, far)
        for index in range(3)
    ]
    assert min(r[:3]) > 0.95 > max(r[3:])
    order = [np.zeros((2, 3))] * 2
    columns = [sparse.csc_array(base), sparse.csc_array(near)]
    assert same_as(columns, order) == [((1, index), (0, index)) for index in range(3)]
    assert same_as([columns[0], sparse.csc_array(far)], order) == []
    assert same_as([columns[0], sparse.csc_array(base[:, ::-1].copy())], order) == [
        ((1, index), (0, 2 - index)) for index in range(3)
    ]
    twice, other = (
        sparse.csc_array(np.repeat(base[:, :1], 2, axis=1)),
        sparse.csc_array(base[:, 1:2]),
    )
    assert same_as([twice, other], [np.zeros((2, 2)), np.zeros((2, 1))]) == []


def directions(count: int) -> np.ndarray:
    """Columns of mean 0 that are orthogonal and equally long: a sum's r with a part of it is the
    cosine between them.
    """
    drawn = np.random.default_rng(0).normal(size=(60, count))
    return np.linalg.qr(drawn - drawn.mean(axis=0))[0]


def turned(angle: float, axis: np.ndarray, other: np.ndarray) -> Any:
    return sparse.csc_array((np.cos(angle) * axis + np.sin(angle) * other)[:, None])


def test_two_features_of_one_sae_are_never_one_discovery() -> None:
    """Both features of the first SAE are like the one of the second: it goes with the more alike,
    the other counts by itself.
    """
    x, y, z = directions(3).T
    first, second, other = turned(0.30, x, y), turned(0.28, x, z), turned(0.0, x, y)
    assert np.cos(0.30) * np.cos(0.28) < 0.95 < np.cos(0.30)
    columns = [sparse.hstack([first, second], format="csc"), other]
    order = [np.array([[0.0, 1.0]]), np.array([[2.0]])]
    assert same_as(columns, order) == [((1, 0), (0, 1))]
    assert same_as(columns[::-1], order[::-1]) == [((0, 0), (1, 1))]


def test_likeness_goes_through_a_third_sae_but_not_back_into_the_first() -> None:
    x, y = directions(2).T
    a, b, c, d = (turned(angle, x, y) for angle in (0.0, 0.2, 0.42, 0.66))
    order = [np.array([[0.0]]), np.array([[1.0]]), np.array([[2.0]])]
    assert same_as([a, b, c], order) == [((1, 0), (0, 0)), ((2, 0), (0, 0))]
    with_d = [np.array([[0.0, 3.0]]), *order[1:]]
    assert same_as([sparse.hstack([a, d], format="csc"), b, c], with_d) == [
        ((1, 0), (0, 0)),
        ((2, 0), (0, 0)),
    ]
    assert same_as([d, c], order[:2]) == [((1, 0), (0, 0))]


def test_the_first_by_order_stands_for_the_others() -> None:
    base = sparse.csc_array(np.random.default_rng(0).random((50, 1)))
    pair = [base, base]
    assert same_as(pair, [np.array([[1.0], [0.0]]), np.array([[0.0], [0.5]])]) == [((0, 0), (1, 0))]
    assert same_as(pair, [np.array([[0.0], [0.2]]), np.array([[0.0], [0.5]])]) == [((1, 0), (0, 0))]


# --- nothing there --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", TWO_GROUPS)
def test_a_space_in_which_nothing_fired_gives_no_rows(part: str) -> None:
    names = [f"n{index}" for index in range(6)]
    inputs = tables(
        [sample(name) for name in names], list("aaabbb"), [("s1", name, 0, {}) for name in names]
    )
    assert run(part, inputs, **PAIR) == {}
    with_unmeasured = tables(
        [sample(name) for name in names],
        list("aaabbb"),
        [("s1", name, 0, {}) for name in names],
        [space(), space("s2")],
    )
    assert run(part, with_unmeasured, **PAIR) == {}


def test_columns_without_a_spread_are_no_evidence_in_any_test() -> None:
    inputs = of_dense(np.full((12, 2), 0.1), halves(12))
    for part in TWO_GROUPS:
        assert set(numbers(part, inputs, **PAIR)["p"].values()) == {1.0}
    for part in ("anova", "kruskal"):
        assert set(numbers(part, inputs)["p"].values()) == {1.0}
    ordered = of_dense(np.full((12, 2), 0.1), np.arange(12.0).tolist())
    for method in ("pearson", "spearman"):
        assert set(numbers("correlation", ordered, method=method)["p"].values()) == {1.0}


def test_the_spec_of_the_design_is_valid() -> None:
    spec = {
        "by": "outcome",
        "between": ["bankruptcy", "voluntary_stop"],
        "unit": "game",
        "correct": "bh",
        "alpha": 0.05,
    }
    params = Means(**spec, min_abs_d=0.3, covariates=["balance", "round"])
    assert params.covariates == ("balance", "round")
