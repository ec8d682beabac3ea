"""Steering along a planted axis moves the decision dose by dose; random directions do not, and each
dose equals a plain pass.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, run
from toolkit.errors import DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_patch.steer.params import Steering
from toolkit_patch.steer.section import figures, findings
from toolkit_patch.steer.stage import shown_layers

GIVEN = {
    "outcomes": OUTCOMES,
    "by": "cause",
    "between": ["yes", "no"],
    "layers": [1, 2],
    "points": 16,
    "axis_samples": 40,
}


@pytest.fixture(scope="module")
def steered(world):
    return run("patch.steer", GIVEN, world.tables, world.model)


def test_the_axis_of_the_cause_moves_the_outcome_all_the_way_and_no_random_direction_does(steered):
    test = next(row for row in steered["dose_tests"].to_pylist() if row["outcome"] == "stop")
    assert test["axis"] == "yes vs no"
    assert test["layers"] == "1-2"
    assert test["monotone"]
    assert test["tau"] > 0.9
    assert test["slope"] > 0.005
    assert (test["beyond"], test["directions"]) == (0, 20)
    assert test["p_directions"] == pytest.approx(1 / 21)
    assert test["z"] > 2.5


def test_there_is_a_curve_for_the_axis_and_for_each_random_direction(steered):
    rows = steered["doses"].to_pylist()
    assert len({row["direction"] for row in rows}) == 21
    assert len({row["dose"] for row in rows}) == 7
    sums: dict[tuple[str, float], float] = {}
    for row in rows:
        key = row["direction"], row["dose"]
        sums[key] = sums.get(key, 0.0) + row["probability"]
    assert np.allclose(list(sums.values()), 1.0)


def test_a_dose_of_almost_nothing_does_almost_nothing(world):
    params = {**GIVEN, "doses": [-1e-4, 0.0, 1e-4]}
    rows = run("patch.steer", params, world.tables, world.model)["doses"].to_pylist()
    assert max(abs(row["effect"]) for row in rows) < 1e-4


def test_the_finding_is_the_sentence_of_the_largest_slope(steered):
    work = make_work(None, steered)
    result = next(iter(findings(work.inputs)))
    assert "Moving the stream behind layers 1-2 along yes vs no changes P(" in result.sentence
    assert "0 of 20 random directions moved as far do as much" in result.sentence


def test_the_second_finding_is_the_course_over_the_doses_of_the_outcome_drawn_first(steered):
    inputs = make_work(None, steered).inputs
    first, course = findings(inputs)
    tests = steered["dose_tests"].to_pylist()
    best = max(tests, key=lambda row: abs(row["slope"]))
    points = [row for row in steered["doses"].to_pylist() if row["outcome"] == best["outcome"]]
    last = max(row["dose"] for row in points)
    value = {row["direction"]: row["probability"] for row in points if row["dose"] == last}
    assert f"P({best['outcome']}) goes from " in course.sentence
    assert f"to {value['axis']:.3f}, a change of" in course.sentence
    assert "along random directions it changes by" in course.sentence
    assert (course.number, course.n) == (best["tau"], best["clusters"])
    assert first.rank < course.rank
    assert next(iter(figures(inputs))).title.startswith(f"P({best['outcome']}) by dose")
    weakest_first = pa.Table.from_pylist(
        sorted(tests, key=lambda row: abs(row["slope"])), schema=steered["dose_tests"].schema
    )
    turned = make_work(None, {**steered, "dose_tests": weakest_first}).inputs
    assert next(iter(figures(turned))).title.startswith(f"P({best['outcome']}) by dose")


def test_a_group_that_is_not_there_is_refused(world):
    with pytest.raises(DataError, match=r"group 'maybe' of cause has fewer than 2 samples"):
        run("patch.steer", {**GIVEN, "between": ["yes", "maybe"]}, world.tables, world.model)


def test_the_part_keeps_its_contract(world):
    work = make_work(None, world.tables, model=world.model)
    few = {**GIVEN, "points": 4, "axis_samples": 8}
    check_part(PARTS.get("stage", "patch.steer"), params=few, work=work)


def test_layers_are_given_or_a_share_of_the_depth():
    params = {"outcomes": {"a": ["x"]}, "by": "b", "between": ["c", "d"]}
    assert Steering.model_validate(params).chosen_layers(32) == [16, 17, 18, 19, 20, 21]
    assert Steering.model_validate(params).chosen_layers(4) == [2]
    assert Steering.model_validate({**params, "layers": [3, 1, 3]}).chosen_layers(4) == [1, 3]
    assert shown_layers([1, 3]) == "1, 3"
    assert shown_layers([2]) == "2"
