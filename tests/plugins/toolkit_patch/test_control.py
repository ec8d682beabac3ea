"""The control of a screen: the same encoders with random decoder rows."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, run
from toolkit.errors import DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_patch.screen.control import RandomDecoder
from toolkit_patch.screen.params import Delta
from toolkit_patch.verdicts.section import figures, findings

GIVEN: dict[str, Any] = {"arms": [], "points": 24, "candidates": {"top": 16}, "directions": 200}


@pytest.fixture(scope="module")
def controlled(world: Any) -> Any:
    return world.screen(**GIVEN, control_saes="random_decoder")


def drawn(world: Any, seed: int = 0) -> RandomDecoder:
    return RandomDecoder(world.saes[0], make_work(None, {}, seed=seed), "a-space")


def test_planted_causes_are_causal_with_the_trained_decoder_and_not_with_a_random_one(
    world, controlled
):
    trained = world.verdicts(controlled)
    assert sum(verdict == "causal" for _, verdict in trained) == 4
    assert {truth.role for truth, verdict in trained if verdict == "causal"} == {"causal"}
    control = controlled["control_verdicts"].to_pylist()
    assert len(control) == len(trained) == 16
    assert {row["family"] for row in control} == {16}
    assert "causal" not in {row["verdict"] for row in control}


@pytest.mark.slow
def test_a_control_changes_nothing_of_its_screen(world, controlled):
    plain = world.screen(**GIVEN)
    assert "control_screens" not in plain
    for name in ("screens", "verdicts"):
        columns = [column for column in plain[name].column_names if column != "screen"]
        assert controlled[name].select(columns).equals(plain[name].select(columns))


def test_control_rows_carry_the_screen_they_belong_to(controlled):
    ids = {name: set(controlled[name]["screen"].to_pylist()) for name in controlled}
    assert len(set().union(*ids.values())) == 1
    edits = controlled["control_screens"]["edits"].to_pylist()
    assert edits == [3 * row["points"] for row in controlled["control_screens"].to_pylist()]


def test_a_random_decoder_fires_as_the_trained_one_and_writes_as_far_elsewhere(world):
    sae, control = world.saes[0], drawn(world)
    rows = torch.randn((5, sae.inputs), generator=torch.Generator().manual_seed(3))
    assert torch.equal(control.encode(rows), sae.encode(rows))
    some = [0, 3, 7]
    assert torch.equal(control.activations_of(rows, some), sae.activations_of(rows, some))
    trained, other = sae.decoder_rows(some).float(), control.decoder_rows(some)
    torch.testing.assert_close(other.norm(dim=1), trained.norm(dim=1))
    assert torch.nn.functional.cosine_similarity(trained, other).abs().max() < 0.8


def test_a_reconstruction_is_made_of_the_random_rows(world):
    sae, control = world.saes[0], drawn(world)
    some, none = torch.zeros((2, sae.width)), torch.zeros((1, sae.width))
    some[0, 3], some[1, 7] = 2.0, 0.5
    moved = control.decode(some) - control.decode(none)
    rows = control.decoder_rows([3, 7])
    torch.testing.assert_close(moved, torch.stack([2 * rows[0], 0.5 * rows[1]]))


def test_a_direction_depends_on_seed_and_feature_and_not_on_who_is_asked_with_it(world):
    control = drawn(world)
    assert torch.equal(control.decoder_rows([7, 3])[1], control.decoder_rows([3])[0])
    assert not torch.allclose(control.decoder_rows([3]), drawn(world, 1).decoder_rows([3]))


@pytest.mark.slow
def test_steps_over_ranges_of_features_give_the_control_of_one_step(world, controlled):
    params = {"outcomes": OUTCOMES, **GIVEN, "control_saes": "random_decoder"}
    part = run("patch.delta", params, world.tables, world.model, world.saes, (4, 8))
    whole = {
        (row["space"], row["feature"]): row for row in controlled["control_screens"].to_pylist()
    }
    rows = part["control_screens"].to_pylist()
    assert len(rows) == 4
    for row in rows:
        same = whole[row["space"], row["feature"]]
        assert row["effect"] == pytest.approx(same["effect"], abs=2e-6)


def test_the_report_states_both_rates(world, controlled):
    inputs = make_work(None, world.tables | controlled).inputs
    shown = {figure.title: figure.html for figure in figures(inputs)}
    table = shown["Trained against random decoder"]
    assert '<td class="number">4 of 16</td><td class="number">0 of 16</td>' in table
    (result,) = findings(inputs)
    assert result.sentence.startswith("4 of 16 features are causal for P(stop)")
    match = re.search(
        r"\(same encoders\), 0 of 16 are causal and (\d+) unspecific\.$", result.sentence
    )
    assert match
    verdicts = [row["verdict"] for row in controlled["control_verdicts"].to_pylist()]
    assert int(match[1]) == verdicts.count("unspecific")


def test_a_stage_writes_the_control_if_it_is_asked_for():
    part = PARTS.get("stage", "patch.delta")
    params = Delta(outcomes={"a": ("x",)})
    assert "control_screens" not in part.tables(params)
    asked = params.model_copy(update={"control_saes": "random_decoder"})
    assert "control_screens" in part.tables(asked)


def test_a_control_of_which_a_part_is_missing_is_refused(world, controlled):
    some = controlled["control_screens"].slice(0, 5)
    with pytest.raises(DataError, match="declared 16 features, and 5 were screened"):
        run("patch.verdicts", {}, {**controlled, "control_screens": some})


def test_judging_keeps_its_contract_with_a_control(controlled):
    judged = make_work(None, controlled)
    check_part(PARTS.get("stage", "patch.verdicts"), params={}, work=judged)
