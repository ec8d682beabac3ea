"""`family: discovered`: what the select half found is the family, and units that did not select it
measure it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.plugins.toolkit_stats.comparison_tables import (
    PARTS,
    TESTS,
    compared,
    joined,
    of_dense,
    outputs,
    run,
    space,
    tables,
)
from toolkit.errors import DataError
from toolkit.parts import ReportSection
from toolkit.statistics.corrections import benjamini_hochberg
from toolkit.statistics.randomness import half
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_work
from toolkit_stats import declared as _compares
from toolkit_stats import toolkit_parts
from toolkit_stats.samples.groups import group_design
from toolkit_stats.samples.params import Means

PAIR = {"between": ("a", "b")}
CONFIRM = {"half": "confirm", "family": "discovered"}
UNITS = 240
SIDE = np.array([half(0, f"n{at:04d}") for at in range(UNITS)])
LABEL = ["ab"[at % 2] for at in range(UNITS)]
FIRST = np.array(LABEL) == "a"


def world(effects: dict[int, float], width: int = 30) -> np.ndarray:
    """Normal features, of which some differ by so many standard deviations."""
    dense = np.random.default_rng(0).normal(size=(UNITS, width))
    for feature, size in effects.items():
        dense[FIRST, feature] += size
    return dense


def both(
    dense: np.ndarray, part: str = "welch", **params: Any
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the select half finds, and what the confirm half makes of that."""
    inputs = of_dense(dense, LABEL)
    select = run(part, inputs, half="select", **PAIR, **params)
    before = outputs(part, inputs, half="select", **PAIR, **params)
    return select, run(part, {**inputs, **before}, **CONFIRM, **PAIR, **params)


def description_of(dense: np.ndarray, **params: Any) -> str:
    """How the confirm half says what it did."""
    inputs = of_dense(dense, LABEL)
    before = outputs("welch", inputs, half="select", **PAIR, **params)
    return compared("welch", {**inputs, **before}, **CONFIRM, **PAIR, **params).describe()


def marked(result: dict[Any, Any], stat: str) -> set[int]:
    return {key[1] for key, row in result.items() if key[2] == stat and row["number"]}


def of(result: dict[Any, Any], stat: str) -> dict[int, float]:
    return {key[1]: row["number"] for key, row in result.items() if key[2] == stat}


def test_the_family_is_what_the_select_half_found_by_its_own_q_and_cut() -> None:
    select, confirm = both(world({3: 1.0, 8: -1.2, 11: 0.9, 20: 0.75}), min_abs_d=0.8)
    family = marked(select, "significant")
    assert family < marked(select, "discovered")
    assert {key[1] for key in confirm} == family
    p, q = of(confirm, "p"), of(confirm, "q")
    np.testing.assert_allclose(
        list(q.values()), benjamini_hochberg(np.array(list(p.values())), len(family))
    )
    assert description_of(world({3: 1.0, 8: -1.2, 11: 0.9, 20: 0.75}), min_abs_d=0.8) == (
        f"welch, half confirm: bh over {len(family)} features chosen in the select half, "
        "alpha 0.05, |d| >= 0.8"
    )
    assert {3, 8} <= marked(confirm, "significant")


def test_what_is_confirmed_is_measured_on_the_confirm_half_and_beside_it_stands_what_chose_it() -> (
    None
):
    dense = world({3: 1.0, 8: -1.2})
    select, confirm = both(dense)
    rows = FIRST & (SIDE == "confirm"), ~FIRST & (SIDE == "confirm")
    a, b = (dense[rows_of_group, 3] for rows_of_group in rows)
    pooled = np.sqrt(
        ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    )
    assert of(confirm, "d")[3] == pytest.approx((a.mean() - b.mean()) / pooled)
    assert of(confirm, "d_select") == {
        feature: of(select, "d")[feature] for feature in marked(select, "significant")
    }
    assert of(confirm, "d_low")[3] < of(confirm, "d")[3] < of(confirm, "d_high")[3]


def test_the_units_that_chose_flatter_what_they_chose_and_the_others_do_not() -> None:
    dense = world(dict.fromkeys(range(400), 0.4), width=400)
    select, confirm = both(dense, alpha=0.01)
    chosen = marked(select, "significant")
    assert len(chosen) > 20
    assert np.mean([of(select, "d")[feature] for feature in chosen]) > 0.55
    assert np.mean(list(of(confirm, "d").values())) == pytest.approx(0.4, abs=0.06)


def test_a_feature_that_falls_silent_still_counts_in_the_family() -> None:
    dense = world({3: 1.5, 8: 1.5, 11: 1.5})
    dense[SIDE == "confirm", 8] = 0.0
    select, confirm = both(dense)
    family = len(marked(select, "significant"))
    assert 8 in marked(select, "significant")
    assert 8 not in of(confirm, "p")
    assert f"bh over {family} features" in description_of(dense)
    assert f"bh over {family - 1} features" in description_of(dense, min_count=5)


def test_an_effect_that_turns_round_confirms_nothing() -> None:
    dense = world({3: 1.5, 8: 1.5})
    dense[SIDE == "confirm", 8] *= -1
    select, confirm = both(dense)
    assert of(select, "d")[8] > 1 > -1 > of(confirm, "d")[8]
    assert of(confirm, "p")[8] < 1e-6
    assert of(confirm, "q")[8] == 1.0
    assert 3 in marked(confirm, "significant")
    assert 8 not in marked(confirm, "significant") | marked(confirm, "discovered")


@pytest.mark.parametrize("part", TESTS)
def test_every_comparison_can_confirm(part: str) -> None:
    groups: list[Any] = np.where(FIRST, 2.0, 1.0).tolist() if part == "correlation" else LABEL
    inputs = of_dense(np.maximum(world({3: 2.0}), 0), groups)
    more = PAIR if part in ("welch", "student", "mann_whitney", "auroc", "permutation") else {}
    select = outputs(part, inputs, half="select", **more)
    confirm = run(part, {**inputs, **select}, **CONFIRM, **more)
    assert 3 in marked(confirm, "significant")
    params = {"by": "group", **CONFIRM, **more}
    check_part(
        PARTS[f"compare.{part}"],
        params=params,
        work=make_work(tables={**inputs, **select}),
    )


def test_nothing_found_leaves_nothing_to_confirm() -> None:
    select, confirm = both(world({}))
    assert not marked(select, "significant")
    assert confirm == {}


def test_the_halves_share_no_unit_and_no_prompt() -> None:
    inputs = of_dense(world({3: 1.0}), LABEL)
    prompts = [f"p{index // 6}" if index % 3 else f"own{index}" for index in range(UNITS)]
    index = inputs["samples"].schema.get_field_index("cluster")
    inputs["samples"] = inputs["samples"].set_column(
        index, inputs["samples"].schema.field(index), pa.array(prompts)
    )
    sides = [
        group_design(make_work(Means(by="group", half=part, **PAIR), inputs))
        for part in ("select", "confirm")
    ]
    units, texts = (
        [{row[name] for row in side.rows} for side in sides] for name in ("unit", "cluster")
    )
    assert not units[0] & units[1]
    assert not texts[0] & texts[1]


# --- refusals -------------------------------------------------------------------------------------


def refused(message: str, before: Mapping[str, pa.Table] | None, **params: Any) -> None:
    inputs = of_dense(world({3: 1.5}), LABEL)
    with pytest.raises(DataError) as caught:
        run(
            "welch",
            {**inputs, **(before or {})},
            **CONFIRM,
            **PAIR,
            **params,
        )
    assert str(caught.value) == message


def test_a_family_of_discoveries_needs_a_stage_that_made_them() -> None:
    start = (
        "family: `discovered` tests what an earlier stage found, and no stage among the needs "
        "compared 'a vs b'."
    )
    end = " Add to the needs a stage that compares the same with `half: select`."
    refused(start + end, None)
    other = outputs("welch", of_dense(world({3: 1.5}), LABEL), between=("b", "a"), half="select")
    refused(f"{start} Did you mean 'b vs a'? They compared: b vs a.{end}", other)


@pytest.mark.parametrize(
    ("part", "where"), [("all", "on all units"), ("confirm", "on the confirm half")]
)
def test_units_that_chose_cannot_confirm(part: str, where: str) -> None:
    refused(
        f"family: the stage before compared 'a vs b' {where}; units that chose a feature cannot "
        "confirm it. Set `half: select` there: this stage tests on `half: confirm`, which shares "
        "no unit with it.",
        outputs("welch", of_dense(world({3: 1.5}), LABEL), half=part, **PAIR),
    )


def test_two_stages_on_the_select_half_are_one_too_many() -> None:
    inputs = of_dense(world({3: 1.5}), LABEL)
    welch, other = (outputs(part, inputs, half="select", **PAIR) for part in ("welch", "auroc"))
    stricter = outputs("welch", inputs, half="select", alpha=0.01, **PAIR)
    start = "family: more than one stage among the needs compared 'a vs b' on the select half "
    refused(
        f"{start}(auroc, half select: bh over 30 features, alpha 0.05, welch, half select: bh over "
        "30 features, alpha 0.05); need one of them only.",
        joined(welch, other),
    )
    refused(
        f"{start}(welch, half select: bh over 30 features, alpha 0.01, welch, half select: bh over "
        "30 features, alpha 0.05); need one of them only.",
        joined(welch, stricter),
    )


def test_what_all_units_found_does_not_disturb_what_the_select_half_found() -> None:
    inputs = of_dense(world({3: 1.5, 8: 0.5}), LABEL)
    select, everything = (outputs("welch", inputs, half=part, **PAIR) for part in ("select", "all"))
    alone, together = (
        run("welch", {**inputs, **before}, **CONFIRM, **PAIR)
        for before in (select, joined(everything, select))
    )
    assert alone == together


def test_a_space_of_another_extraction_is_refused() -> None:
    inputs = of_dense(world({3: 1.5}), LABEL)
    select = outputs("welch", inputs, half="select", **PAIR)
    spaces = tables([], [], [], [space("other", 30)])["spaces"]
    activations = inputs["activations"].set_column(
        0, inputs["activations"].schema.field(0), pa.array(["other"] * UNITS)
    )
    with pytest.raises(
        DataError,
        match=r"found features in space m/resid_post\.1/s1, of which this stage has no "
        r"activations.*Spaces here: m/resid_post\.1/other",
    ):
        run(
            "welch",
            {**inputs, "spaces": spaces, "activations": activations, **select},
            **CONFIRM,
            **PAIR,
        )


@pytest.mark.parametrize("part", ["all", "select"])
def test_discoveries_are_tested_on_the_confirm_half_only(part: str) -> None:
    with pytest.raises(
        ValidationError,
        match=rf"tested on units that did not select the features.*found half: {part}",
    ):
        Means(by="group", half=part, family="discovered", **PAIR)


# --- what people see ------------------------------------------------------------------------------


def test_the_plan_does_not_pretend_to_know_the_family() -> None:
    asked = _compares.features(Means(by="group", **CONFIRM, **PAIR), {})
    assert (asked.discovered, asked.each_space, asked.half) == (True, False, "confirm")
    assert not _compares.features(Means(by="group", **PAIR), {}).discovered


def test_the_report_shows_the_confirmed_effect_beside_the_one_that_chose() -> None:
    input_tables = of_dense(world({3: 1.0, 8: -1.2}), LABEL)
    every, select = (
        outputs("welch", input_tables, half=part, **PAIR) for part in ("all", "select")
    )
    confirm = outputs("welch", {**input_tables, **select}, **CONFIRM, **PAIR)
    sections = {part.name: part for part in toolkit_parts() if isinstance(part, ReportSection)}
    inputs = TableInputs({**input_tables, **joined(every, select, confirm)})
    titled = {figure.title: figure.html for figure in sections["top-features"].run(inputs)}
    name = "a vs b, welch, half confirm: the clearest differences"
    assert set(titled) >= {
        name,
        "a vs b, welch, half select: the clearest differences",
        "a vs b, welch: the clearest differences",
    }
    assert "d where it was chosen" in titled[name]
    assert "d where it was chosen" not in titled["a vs b, welch: the clearest differences"]
    chosen = select["features"].to_pylist()
    d = {row["feature"]: row["number"] for row in chosen if row["stat"] == "d"}
    assert f"{d[3]:.3g}" in titled[name]
    profile = {figure.title: figure.html for figure in sections["layer-profile"].run(inputs)}[
        "a vs b, welch, half confirm"
    ]
    assert "features chosen in the select half" in profile
    assert profile.count("welch, half confirm: ") == 1
    assert "half select" not in profile
    for group in compared("welch", {**input_tables, **select}, **CONFIRM, **PAIR).groups:
        assert f"{group.name}: {group.describe()}." in profile


def test_means_of_one_half_are_not_shown_for_another() -> None:
    inputs = of_dense(world({3: 1.0}), LABEL)
    select, confirm = (
        outputs("welch", inputs, half=part, **PAIR) for part in ("select", "confirm")
    )
    section = next(part for part in toolkit_parts() if part.name == "top-features")
    assert isinstance(section, ReportSection)
    alone = next(iter(section.run(TableInputs({**inputs, **confirm})))).html
    both = section.run(TableInputs({**inputs, **joined(select, confirm)}))
    assert alone == next(
        figure.html for figure in both if figure.title.startswith("a vs b, welch, half confirm")
    )
