"""Doses of features: causes rise with their dose, at decisions that the screen did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, RecordingReporter, run
from toolkit.statistics.randomness import half
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_patch.doses.params import DOSES, Doses
from toolkit_patch.doses.section import figures, findings
from toolkit_patch.doses.stage import dose
from toolkit_patch.screen.points import decision_points


@pytest.fixture(scope="module")
def dosed(world, screened):
    params = {"outcomes": OUTCOMES, "points": 12}
    return run("patch.doses", params, world.tables | screened, world.model, world.saes)


def test_causes_rise_with_the_dose_and_move_the_outcome_at_other_decisions(world, dosed):
    rows = dosed["feature_dose_tests"].to_pylist()
    assert len(rows) == 4
    for row in rows:
        assert world.truth(row).role == "causal"
        assert row["effect"] > 0.3
        assert row["q"] < 0.001
        assert row["tau"] > 0.5
        assert row["q_tau"] < 0.001
        assert row["observed"] > 0
    # Far beyond what was seen the norm takes over, and two of the curves turn a little.
    assert sum(row["monotone"] for row in rows) == 2


def test_a_dose_is_a_multiple_of_the_larger_mean(dosed, screened):
    means = {
        (row["space"], row["feature"]): max(row["value_a"], row["value_b"])
        for row in screened["screens"].to_pylist()
    }
    rows = dosed["feature_doses"].to_pylist()
    assert sorted({row["dose"] for row in rows}) == list(DOSES)
    for row in rows:
        assert row["value"] == pytest.approx(row["dose"] * means[row["space"], row["feature"]])


def test_a_correlate_does_not_rise(world, screened):
    layers = {row["space"]: row["hookpoint"] for row in world.tables["spaces"].to_pylist()}
    quiet = next(
        row
        for row in screened["screens"].to_pylist()
        if world.truth(row).role != "causal" and abs(row["set_a"]) < 1e-4
    )
    address = f"{layers[quiet['space']].rpartition('.')[2]}/{quiet['feature']}"
    params = {"outcomes": OUTCOMES, "points": 8, "features": [address]}
    results = run("patch.doses", params, world.tables | screened, world.model, world.saes)
    (row,) = results["feature_dose_tests"].to_pylist()
    assert abs(row["effect"]) < 1e-3


def test_decisions_are_of_the_half_that_the_screen_did_not_see(world):
    work = make_work(Doses(outcomes={"a": ("x",)}), world.tables, model=world.model)
    points = decision_points(work, 12, "select")
    assert {half(0, unit) for point in points for _, unit in point.owners} == {"select"}


def test_values_that_were_never_seen_are_warned_of(world, screened):
    reporter = RecordingReporter()
    params = Doses.model_validate({"outcomes": OUTCOMES, "points": 3, "doses": [0, 1, 1000]})
    tables = world.tables | screened
    work = make_work(params, tables, model=world.model, saes=world.saes)
    list(dose(replace(work, report=reporter)))
    assert any(
        "4 of 4 features are set to values outside of the observed range" in text
        for text in reporter.warnings
    )


def test_without_a_causal_feature_there_is_nothing_to_dose(world, screened):
    reporter = RecordingReporter()
    params = Doses.model_validate({"outcomes": OUTCOMES, "verdicts": ["sham fails"]})
    work = make_work(params, world.tables | screened, model=world.model, saes=world.saes)
    assert not list(dose(replace(work, report=reporter)))
    assert reporter.warnings == ["no feature has the verdict sham fails, so none gets doses"]


def test_the_report_shows_a_curve_for_each_feature(world, dosed):
    work = make_work(None, world.tables | dosed)
    curves, table = figures(work.inputs)
    assert curves.html.count("<polyline") == 4
    assert table.html.count("<tr>") == 5
    (result,) = findings(work.inputs)
    start = "Over 7 doses, P(stop) rises or falls all the way with 2 of 4 features"
    assert result.sentence.startswith(start)


def test_the_part_keeps_its_contract(world, screened):
    work = make_work(None, world.tables | screened, model=world.model, saes=world.saes)
    few: dict[str, Any] = {"outcomes": OUTCOMES, "points": 4}
    check_part(PARTS.get("stage", "patch.doses"), params=few, work=work)
