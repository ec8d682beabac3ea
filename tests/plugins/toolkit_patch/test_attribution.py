"""Gradients against the exact screen: the plain one is the slope of the exact effect, and both find
planted causes.
"""

from __future__ import annotations

import pytest
import torch

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, run, table
from toolkit.saes import space_id
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_patch.attribution.section import agreements, figures, findings
from toolkit_patch.screen.outcomes import read_outcomes
from toolkit_patch.screen.passes import push, read_prompt
from toolkit_patch.screen.points import decision_points

GIVEN = {"outcomes": OUTCOMES, "points": 4}


@pytest.fixture(scope="module")
def attributed(world, screened):
    return run("patch.attribution", GIVEN, world.tables | screened, world.model, world.saes)


def test_every_screened_feature_has_an_estimate_of_each_method(attributed, screened):
    rows = attributed["gradient_effects"].to_pylist()
    assert {row["method"] for row in rows} == {"atp", "relp"}
    assert len(rows) == 2 * len(screened["screens"])


def test_planted_causes_have_the_largest_estimates(world, attributed):
    for method in ("atp", "relp"):
        rows = [
            row for row in attributed["gradient_effects"].to_pylist() if row["method"] == method
        ]
        rows.sort(key=lambda row: -abs(row["estimate"]))
        assert {world.truth(row).role for row in rows[:4]} == {"causal"}
        assert all(row["estimate"] > 10 * abs(rows[4]["estimate"]) for row in rows[:4])


def test_the_plain_gradient_is_the_slope_of_the_exact_effect(world, attributed):
    """Central differences along the decoder row, at the same points."""
    rows = [row for row in attributed["gradient_effects"].to_pylist() if row["method"] == "atp"]
    row = max(rows, key=lambda row: abs(row["estimate"]))
    sae = next(sae for sae in world.saes if space_id(world.model.identity, sae) == row["space"])
    means = {
        tested["group"]: tested["number"]
        for tested in world.tables["features"].to_pylist()
        if (tested["space"], tested["feature"], tested["stat"])
        == (row["space"], row["feature"], "mean")
    }
    work = make_work(None, world.tables, model=world.model, saes=world.saes)
    points = decision_points(work, 4, "confirm")
    outcomes = read_outcomes(world.model, OUTCOMES, points[0].text, points[0].ids)
    direction, step, slopes = sae.decoder_rows([row["feature"]]).float(), 0.02, []
    for point in points:
        reading = read_prompt(world.model, outcomes, point.ids, [sae.hookpoint])
        moved = reading.streams[sae.hookpoint] + torch.tensor([[step], [-step]]) * direction
        layers = torch.full((2,), sae.layer)
        chances, _ = push(world.model, outcomes, reading, layers, moved)
        slope = (chances[0, 0] - chances[1, 0]) / (2 * step)
        slopes += [slope] * len(point.owners)
    expected = (means["yes"] - means["no"]) * sum(slopes) / len(slopes)
    assert row["estimate"] == pytest.approx(expected, rel=0.02)


def test_agreement_is_told_for_all_and_for_each_layer(world, attributed):
    work = make_work(None, world.tables | attributed)
    (result,) = agreements(work.inputs).values()
    assert {row["where"] for row in result} > {"all"}
    assert all(-1 <= row["rank"] <= 1 for row in result)
    sentence = next(iter(findings(work.inputs))).sentence
    assert sentence.startswith("Against the exact effects of 16 features, attribution patching")
    (figure,) = figures(work.inputs)
    assert "agree with exact effects by .75 to .99" in figure.html
    assert figure.html.count("<th scope") >= len({row["where"] for row in result})


def test_estimates_that_equal_the_exact_effects_agree_fully(world, attributed):
    rows = [{**row, "estimate": row["exact"]} for row in attributed["gradient_effects"].to_pylist()]
    work = make_work(None, world.tables | {"gradient_effects": table("gradient_effects", rows)})
    (rows,) = agreements(work.inputs).values()
    whole = next(row for row in rows if row["where"] == "all")
    assert (whole["rank"], whole["r"]) == (pytest.approx(1), pytest.approx(1))


def test_the_part_keeps_its_contract(world, screened):
    work = make_work(None, world.tables | screened, model=world.model, saes=world.saes)
    part = PARTS.get("stage", "patch.attribution")
    check_part(part, params={**GIVEN, "points": 2}, work=work)
