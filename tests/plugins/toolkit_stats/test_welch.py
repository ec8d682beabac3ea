"""The stage compare.welch: which samples are compared, what is independent, what it writes, and
what it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from scipy import stats

from tests.plugins.toolkit_stats import comparison_tables
from tests.plugins.toolkit_stats.comparison_tables import (
    RowsByKey,
    of_groups,
    sample,
    space,
    tables,
)
from toolkit.errors import DataError
from toolkit.statistics.randomness import half
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit.testing.nulls import null_groups, planted_groups
from toolkit_stats.samples.params import Means

SIX = [f"n{at}" for at in range(6)]
PAIR = {"between": ("a", "b"), "details": "all"}


def small() -> dict[str, pa.Table]:
    """Six samples; feature 2 fires in group a only, feature 5 everywhere."""
    names = [f"n{i}" for i in range(6)]
    values: list[dict[int, float]] = [
        {2: 1.0, 5: 2.0},
        {2: 2.0, 5: 2.5},
        {2: 1.5, 5: 2.0},
        {5: 2.0},
        {5: 2.5},
        {5: 3.0},
    ]
    rows = [("s1", name, 0, result) for name, result in zip(names, values, strict=True)]
    return tables([sample(name) for name in names], list("aaabbb"), rows)


def run(inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any) -> RowsByKey:
    """The stage's rows by (space, feature, stat, group)."""
    return comparison_tables.run("welch", inputs, seed, **{**PAIR, **params})


def refused(message: str, inputs: Mapping[str, pa.Table], **params: Any) -> None:
    with pytest.raises(DataError) as caught:
        run(inputs, **params)
    assert str(caught.value) == message


def test_it_keeps_the_contract() -> None:
    check_part(
        comparison_tables.PARTS["compare.welch"],
        params={"by": "group", **PAIR},
        work=make_work(tables=small()),
    )


# --- what it writes -------------------------------------------------------------------------------


def test_features_that_are_no_discovery_have_effect_p_and_q_without_details() -> None:
    inputs = of_groups(planted_groups(4, d=1.2, which=(6,), n_games=120, rounds=4, n_features=12))
    result, detailed = run(inputs, details="discovered", alpha=0.001), run(inputs, alpha=0.001)
    assert {stat for _, feature, stat, group in result if feature == 5 and group == "a vs b"} == {
        "d",
        "p",
        "q",
        "significant",
    }
    assert {key: row["number"] for key, row in result.items() if key[1] == 6} == {
        key: row["number"] for key, row in detailed.items() if key[1] == 6
    }
    assert "discovered" in {stat for _, feature, stat, _ in result if feature == 6}


def test_each_fired_feature_has_every_statistic_once() -> None:
    results = run(small())
    stats_of = {(stat, group) for _, feature, stat, group in results if feature == 2}
    sides = {(stat, group) for stat in ("mean", "std", "density") for group in ("a", "b")}
    contrast = {
        (stat, "a vs b")
        for stat in ("d", "d_low", "d_high", "g", "t", "df", "p", "q", "significant")
    }
    assert stats_of == sides | contrast | {("fired", "")}
    assert {feature for _, feature, _, _ in results} == {2, 5}


def test_the_numbers_are_those_of_the_samples() -> None:
    results = run(small())
    a, b = [2.0, 2.5, 2.0], [2.0, 2.5, 3.0]
    theirs = stats.ttest_ind(a, b, equal_var=False)
    number = {
        (stat, group): row["number"]
        for (_, feature, stat, group), row in results.items()
        if feature == 5
    }
    assert number["mean", "a"] == pytest.approx(np.mean(a))
    assert number["density", "a"] == 1.0
    assert number["std", "b"] == pytest.approx(np.std(b, ddof=1))
    assert number["fired", ""] == 6.0
    assert number["t", "a vs b"] == pytest.approx(theirs.statistic, rel=1e-9)
    assert number["df", "a vs b"] == pytest.approx(theirs.df, rel=1e-9)
    assert number["p", "a vs b"] == pytest.approx(theirs.pvalue, rel=1e-9)
    assert number["d", "a vs b"] == pytest.approx(
        (np.mean(a) - np.mean(b)) / np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    )
    size = comparison_tables.sizes("welch", small(), **PAIR)["a"]
    assert size == "3 samples of 3 units, 3 distinct prompts, 3 clusters"
    assert results["s1", 2, "density", "b"]["number"] == 0.0


def test_the_family_is_every_feature_of_every_space_fired_or_not() -> None:
    inputs = small() | {"spaces": tables([], [], [], [space(), space("s2", 1000, 2)])["spaces"]}
    results = run(inputs)
    p, q = (results["s1", 2, stat, "a vs b"] for stat in ("p", "q"))
    message = comparison_tables.compared("welch", inputs, **PAIR)
    assert message.describe() == "welch: bh over 1008 features, alpha 0.05"
    assert message.tested == {"s1": 8, "s2": 1000}
    assert q["number"] == pytest.approx(min(1.0, p["number"] * 1008))


def test_two_spaces_share_one_correction() -> None:
    inputs = small()
    other = inputs["activations"].set_column(
        0, inputs["activations"].schema.field(0), pa.array(["s2"] * 6)
    )
    both = pa.concat_tables([inputs["activations"], other])
    results = run(
        inputs
        | {
            "activations": both,
            "spaces": tables([], [], [], [space(), space("s2", 8, 2)])["spaces"],
        }
    )
    p = results["s1", 2, "p", "a vs b"]["number"]
    assert (
        results["s1", 2, "q", "a vs b"]["number"]
        == results["s2", 2, "q", "a vs b"]["number"]
        == pytest.approx(p * 16 / 2)
    )


def test_a_feature_that_spreads_nowhere_has_no_t_and_is_not_significant() -> None:
    rows = [
        ("s1", name, 0, {3: value}) for name, value in zip(SIX, [1.0] * 3 + [2.0] * 3, strict=True)
    ]
    results = run(tables([sample(name) for name in SIX], list("aaabbb"), rows))
    assert [
        results["s1", 3, stat, "a vs b"]["number"]
        for stat in ("d", "t", "df", "p", "q", "significant")
    ] == [
        *[None] * 3,
        *[1.0, 1.0, 0.0],
    ]


def test_significant_asks_for_a_small_q_and_a_large_d() -> None:
    inputs = of_groups(planted_groups(2, d=1.0, which=(4,), n_games=120, rounds=4, n_features=20))
    assert run(inputs)["s1", 4, "significant", "a vs b"]["number"] == 1.0
    assert run(inputs, min_abs_d=5.0)["s1", 4, "significant", "a vs b"]["number"] == 0.0
    assert run(inputs, alpha=1e-12)["s1", 4, "significant", "a vs b"]["number"] == 0.0


@pytest.mark.parametrize("spaces", [[], [space()]], ids=["no space", "a space"])
def test_samples_that_were_not_measured_are_refused(spaces: list[dict[str, Any]]) -> None:
    message = (
        "no space has a row of any of the 6 samples in table 'activations' (the first is 'n0'). "
        "Where nothing fires there is a row "
    )
    message += (
        "with empty lists: these samples were not measured, for example because a selector matched "
        "no token. Extract at tokens that they have."
    )
    refused(message, tables([sample(name) for name in SIX], list("aaabbb"), [], spaces))


def silent(samples: Sequence[str]) -> list[tuple[str, str, int, dict[int, float]]]:
    """Rows with empty lists: somebody looked, and nothing fired."""
    return [("s1", name, 1, {}) for name in samples]


def test_a_space_in_which_nothing_fired_gives_no_rows() -> None:
    assert run(tables([sample(name) for name in SIX], list("aaabbb"), silent(SIX))) == {}


# --- which samples, and what is independent -------------------------------------------------------


def p_values(inputs: Mapping[str, pa.Table], **params: Any) -> np.ndarray:
    return np.array(
        [row["number"] for (_, _, stat, _), row in run(inputs, **params).items() if stat == "p"]
    )


def test_rounds_taken_for_units_mislead_and_units_do_not() -> None:
    inputs = of_groups(null_groups(11, n_games=60, rounds=8, n_features=200, game_sd=1.5))
    assert (p_values(inputs, unit="sample") < 0.05).mean() > 0.3
    assert (p_values(inputs, unit="unit") < 0.05).mean() < 0.09


def test_a_planted_feature_is_found_with_its_sign() -> None:
    inputs = of_groups(planted_groups(4, d=1.2, which=(6,), n_games=120, rounds=4, n_features=40))
    results = run(inputs, alpha=0.001)
    assert [
        feature
        for (_, feature, stat, _), row in results.items()
        if stat == "significant" and row["number"]
    ] == [6]
    assert 0.5 < results["s1", 6, "d", "a vs b"]["number"] < 1.6
    swapped = run(inputs, between=("b", "a"))
    assert swapped["s1", 6, "d", "b vs a"]["number"] == pytest.approx(
        -results["s1", 6, "d", "a vs b"]["number"]
    )


def test_equal_prompts_are_one_cluster_in_their_group_only() -> None:
    samples = [sample(f"n{i}", prompt=f"p{min(i % 4, 2)}") for i in range(8)]
    inputs = tables(samples, list("aaaabbbb"), [("s1", f"n{i}", 0, {1: 1.0 + i}) for i in range(8)])
    three = "4 samples of 4 units, 3 distinct prompts, 3 clusters"
    assert comparison_tables.sizes("welch", inputs, **PAIR) == {"a": three, "b": three}
    four = "4 samples of 4 units, 3 distinct prompts, 4 clusters"
    assert comparison_tables.sizes("welch", inputs, **PAIR, cluster="none")["a"] == four


def test_samples_of_other_groups_and_without_the_key_are_left_out() -> None:
    inputs = small()
    more = tables(
        [sample("x0"), sample("x1")],
        ["c", "c"],
        [("s1", "x0", 0, {2: 9.0, 7: 1.0}), ("s1", "x1", 0, {2: float("nan")})],
    )
    together = {
        name: pa.concat_tables([inputs[name], more[name]])
        for name in ("samples", "sample_meta", "activations")
    }
    assert run({**together, "spaces": inputs["spaces"]}) == run(inputs)
    unlabelled = together["sample_meta"].slice(0, 6)
    assert run({**together, "sample_meta": unlabelled, "spaces": inputs["spaces"]}) == run(inputs)


def test_each_half_of_the_units_is_its_own_and_both_are_all() -> None:
    inputs = of_groups(null_groups(1, n_games=40, rounds=3, n_features=10))
    sizes = {}
    for part in ("select", "confirm", "all"):
        groups = comparison_tables.compared("welch", inputs, 9, **PAIR, half=part).groups
        sizes[part] = groups[0].samples
    games = {row["unit"] for row in inputs["samples"].to_pylist()}
    label = dict(
        zip(
            inputs["samples"]["unit"].to_pylist(),
            inputs["sample_meta"]["string"].to_pylist(),
            strict=True,
        )
    )
    assert sizes["select"] + sizes["confirm"] == sizes["all"]
    assert sizes["select"] == 3 * sum(
        label[game] == "a" and half(9, game) == "select" for game in games
    )


@pytest.mark.parametrize(("pool", "expected"), [("max", 3.0), ("mean", 1.5)], ids=["max", "mean"])
def test_positions_of_a_sample_become_one_value(pool: str, expected: float) -> None:
    rows = [
        ("s1", "n0", index, {1: value} if value else {0: 1.0})
        for index, value in enumerate([3.0, 2.0, 1.0, 0.0])
    ]
    rows += [("s1", f"n{i}", 0, {1: 0.5 * i}) for i in range(1, 6)]
    results = run(tables([sample(name) for name in SIX], list("aaabbb"), rows), pool=pool)
    assert results["s1", 1, "mean", "a"]["number"] == pytest.approx((expected + 1.5) / 3)


def test_groups_may_be_named_by_numbers() -> None:
    rows = [("s1", name, 0, {1: 1.0 + index}) for index, name in enumerate(SIX)]
    results = run(
        tables([sample(name) for name in SIX], [1.0] * 3 + [0.5] * 3, rows), between=[1, 0.5]
    )
    assert results["s1", 1, "mean", "1"]["number"] == 2.0
    assert results["s1", 1, "mean", "0.5"]["number"] == 5.0


# --- what it refuses ------------------------------------------------------------------------------


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    refused(
        "by: no sample has metadata 'gruop'. Did you mean 'group'? The samples have: group.",
        small(),
        by="gruop",
    )


def test_samples_without_any_metadata_are_reported() -> None:
    bare = small() | {"sample_meta": arrow_schema("sample_meta").empty_table()}
    refused("by: no sample has metadata 'group'. The samples have: none.", bare)


def test_an_unknown_group_is_answered_with_those_there_are() -> None:
    samples = [sample(f"n{i}") for i in range(3)]
    inputs = tables(samples, ["stop", "stop", "bet"], [])
    message = (
        "between: no sample has group 'stopp'. Did you mean 'stop'? Groups by 'group': bet (1 "
        "sample), stop (2 samples)."
    )
    refused(message, inputs, between=("stopp", "bet"))


def test_a_group_that_is_not_in_the_half_is_refused() -> None:
    names = [f"n{i}" for i in range(40)]
    chosen = [name for name in names if half(0, name) == "select"][:4] + [
        name for name in names if half(0, name) == "confirm"
    ][:2]
    inputs = tables([sample(name) for name in chosen], list("aaaabb"), [])
    message = (
        "between: no unit with group 'b' falls into the half 'select'. Take `half: all`, or give "
        "the experiment more units."
    )
    refused(message, inputs, half="select")


@pytest.mark.parametrize(
    ("params", "result"),
    [
        (
            {},
            "4 samples of 2 units, 4 distinct prompts, 2 clusters (unit: unit, cluster: prompt, "
            "half: all)",
        ),
        (
            {"cluster": "none"},
            "4 samples of 2 units, 4 distinct prompts, 2 clusters (unit: unit, cluster: none, "
            "half: all)",
        ),
    ],
    ids=["prompts", "units"],
)
def test_a_group_of_fewer_than_three_clusters_is_refused_with_its_numbers(
    params: dict[str, str], result: str
) -> None:
    samples = [sample(f"n{index}", f"g{index // 2}") for index in range(4)] + [
        sample(f"m{index}") for index in range(3)
    ]
    message = (
        f"between: group 'a' has {result}; a test needs at least 3 independent clusters to "
        "estimate a spread. Give the experiment more units."
    )
    inputs = tables(samples, list("aaaabbb"), silent([entry["sample"] for entry in samples]))
    refused(message, inputs, **params)
    assert run(inputs, unit="sample") == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_number_that_is_none_names_where_it_is(value: float) -> None:
    inputs = small()
    bad = tables([], [], [("s1", "n1", 1, {4: 1.0, 6: value})])["activations"]
    message = (
        f"space s1 (m/resid_post.1/s1): feature 6 has the activation {value} in sample 'n1'; a "
        "test needs finite numbers. Leave that sample out, or extract in a wider number format."
    )
    refused(message, inputs | {"activations": pa.concat_tables([inputs["activations"], bad])})


def test_a_feature_outside_its_space_is_refused() -> None:
    inputs = small() | {"spaces": tables([], [], [], [space(width=5)])["spaces"]}
    message = (
        "space s1 (m/resid_post.1/s1): there is a feature 5, but its width is 5 (features 0 to 4). "
        "The activations do not match the description of the space; extract them again."
    )
    refused(message, inputs)


def test_a_space_that_nobody_described_is_refused() -> None:
    inputs = small() | {"spaces": tables([], [], [], [space("s9")])["spaces"]}
    message = (
        "space s1: it has activations, but table 'spaces' does not describe it, so its width is "
        "unknown. Let the stage that writes the activations write 'spaces' too. Spaces described: "
        "s9."
    )
    refused(message, inputs)


def test_a_group_is_not_compared_with_itself() -> None:
    with pytest.raises(ValidationError, match="both groups are 'a'; name two different ones"):
        Means(by="group", between=("a", "a"))
