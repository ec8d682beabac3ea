"""The causal screen against planted truth: causes are found, correlates are not, and a lossy SAE's
effect is called by its name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_patch.worlds import (
    OUTCOMES,
    PARTS,
    WholePasses,
    load_saes,
    make_world,
    run,
    table,
)
from toolkit.errors import BadInput, DataError
from toolkit.saes import space_id
from toolkit.statistics.randomness import half
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_patch.attribution.stage import Attribution
from toolkit_patch.doses.params import Doses
from toolkit_patch.joint.params import Joint
from toolkit_patch.screen.params import Delta


def test_planted_causes_are_causal_and_planted_correlates_are_not(world, screened):
    verdicts = world.verdicts(screened)
    assert {truth.direction for truth, _ in verdicts} >= {"u", "v", "w", "echo", "shadow"}
    for truth, verdict in verdicts:
        assert (verdict == "causal") == (truth.role == "causal"), (truth, verdict)
    assert sum(truth.role == "causal" for truth, _ in verdicts) == 4


def test_a_verdict_says_what_was_corrected_and_against_how_many_directions(screened):
    reasons = [
        row["reason"] for row in screened["verdicts"].to_pylist() if row["verdict"] == "causal"
    ]
    for reason in reasons:
        assert "0 of 3" in reason
        assert "other features move it as much (q 0." in reason
        assert "over 16 features)" in reason


@pytest.mark.slow
def test_a_shield_lowers_the_outcome(planted, model):
    world = make_world(planted, model, planted.llama_scope, by="shield")
    results = world.screen(points=20)
    causal = [row for row in results["verdicts"].to_pylist() if row["verdict"] == "causal"]
    assert causal
    assert {world.truth(row).direction for row in causal} == {"guard"}
    assert all(row["effect"] < -0.05 for row in causal)


@pytest.mark.slow
def test_with_a_lossy_sae_both_values_have_an_effect_and_the_verdict_blames_reconstruction(
    planted, model
):
    world = make_world(planted, model, planted.lossy)
    results = world.screen(candidates={"top": 8})
    for truth, verdict in world.verdicts(results):
        assert verdict == ("causal" if truth.role == "causal" else "reconstruction"), truth
    inert = [row for row in results["screens"].to_pylist() if world.truth(row).role != "causal"]
    assert inert
    for row in inert:
        assert min(row["reconstruct_a"], row["reconstruct_b"]) > 0.1
        assert row["p_reconstruct"] < 1e-6
        assert abs(row["effect"]) < 1e-3


def test_effects_are_those_of_a_whole_pass_with_a_hand_made_edit(world, screened):
    """An independent float64 forward with the same edit gives the same probability."""
    from toolkit.testing.planted import ReferenceModel

    reference = ReferenceModel.load(world.planted.model)
    row = next(row for row in screened["screens"].to_pylist() if row["effect"] > 0.3)
    sae = next(sae for sae in world.saes if space_id(world.model.identity, sae) == row["space"])
    key = {"feature": row["feature"], "space": row["space"], "arm": "set:yes", "outcome": "stop"}
    effect = next(
        result
        for result in screened["effects"].to_pylist()
        if result["sample"] != "*" and key.items() <= result.items()
    )
    ids = next(
        s["token_ids"]
        for s in world.tables["samples"].to_pylist()
        if s["sample"] == effect["sample"]
    )

    def edit(stream: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import torch

        activation = float(sae.encode(torch.from_numpy(stream[-1:]).float())[0, row["feature"]])
        decoder = sae.decoder_rows([row["feature"]])[0].double().numpy()
        stream[-1] += (row["value_a"] - activation) * decoder
        return stream

    logits = reference.run(ids, {sae.layer: edit}).logits[-1]
    chances = np.exp(logits - logits.max())
    expected = chances[world.planted.truth.stop_id] / chances.sum()
    assert effect["probability"] == pytest.approx(expected, abs=1e-4)


def test_outcomes_and_what_is_in_none_add_up_to_one(screened):
    sums: dict[Any, float] = {}
    for row in screened["effects"].to_pylist():
        if row["arm"] not in ("specific", "random"):
            key = row["space"], row["feature"], row["sample"], row["arm"]
            sums[key] = sums.get(key, 0.0) + row["probability"]
    assert np.allclose(list(sums.values()), 1.0)
    assert {row["outcome"] for row in screened["effects"].to_pylist()} == {"stop", "bet", "other"}


def test_sham_is_a_no_op_in_every_row(screened):
    assert max(row["sham"] for row in screened["screens"].to_pylist()) < 1e-5


def test_every_arm_is_there_by_default_and_a_spec_may_leave_controls_out(world, screened):
    arms = {row["arm"] for row in screened["effects"].to_pylist()}
    both = {f"{arm}:{group}" for group in ("yes", "no") for arm in ("set", "reconstruct")}
    drawn = {f"random_{what}:{g}" for what in ("feature", "direction") for g in ("yes", "no")}
    drawn |= {f"{what}:{g}" for what in ("shuffled", "mean_difference") for g in ("yes", "no")}
    assert arms == {"sham", "reconstruct", "specific", "random", *both, *drawn}
    few = world.screen(arms=[], points=6, candidates={"top": 4}, directions=40)
    assert {row["reconstruct"] for row in few["screens"].to_pylist()} == {None}


def test_features_that_do_not_pass_have_a_summary_and_no_rows_for_points(screened):
    passing = {
        (row["space"], row["feature"])
        for row in screened["screens"].to_pylist()
        if row["p_directions"] is not None
    }
    written = {(row["space"], row["feature"]) for row in screened["effects"].to_pylist()}
    assert len(passing) < len(screened["screens"])
    assert written == passing


@pytest.mark.slow
def test_steps_over_ranges_of_features_give_what_one_step_gives(world):
    params = {"outcomes": OUTCOMES, "candidates": {"top": 6}, "points": 12, "directions": 60}
    args = params, world.tables, world.model, world.saes
    whole = run("patch.delta", *args)
    halves = [run("patch.delta", *args, features=span) for span in ((0, 2), (2, 6))]
    for name in ("screens", "effects"):
        joined = pa.concat_tables([part[name] for part in halves])
        keys = [(column, "ascending") for column in ("space", "feature")]
        keys += [("sample", "ascending"), ("arm", "ascending")] if name == "effects" else []
        keys += [("outcome", "ascending")]
        for left, right in zip(
            joined.sort_by(keys).to_pylist(), whole[name].sort_by(keys).to_pylist(), strict=True
        ):
            for column, value in right.items():
                if isinstance(value, float):
                    limit = 1e-3 if column.startswith("p") and column != "probability" else 2e-6
                    assert left[column] == pytest.approx(value, abs=limit), column
                else:
                    assert left[column] == value


def test_a_range_beyond_the_family_writes_nothing(world):
    params = {"outcomes": OUTCOMES, "candidates": {"top": 4}, "points": 4}
    assert not run("patch.delta", params, world.tables, world.model, world.saes, (4, 8))


def test_verdicts_refuse_a_family_of_which_a_part_was_not_screened(world):
    params = {"outcomes": OUTCOMES, "candidates": {"top": 6}, "points": 4}
    results = run("patch.delta", params, world.tables, world.model, world.saes, (0, 4))
    with pytest.raises(DataError, match=r"declared 6 features, and 4 were screened"):
        run("patch.verdicts", {}, results)


def test_every_feature_that_fired_can_be_the_family(world):
    results = world.screen(candidates="all", points=10, arms=[])
    fired = {
        (row["space"], row["feature"])
        for row in world.tables["features"].to_pylist()
        if row["stat"] == "d" and row["number"] is not None
    }
    screens = results["screens"].to_pylist()
    assert {(row["space"], row["feature"]) for row in screens} == fired
    assert {row["null"] for row in screens} == {None, "directions"}
    causal = [row for row in results["verdicts"].to_pylist() if row["verdict"] == "causal"]
    assert {world.truth(row).role for row in causal} == {"causal"}


def test_decision_points_are_units_that_the_comparison_did_not_see(world, screened):
    units = {row["sample"]: row["unit"] for row in world.tables["samples"].to_pylist()}
    used = {units[row["sample"]] for row in screened["effects"].to_pylist() if row["sample"] != "*"}
    assert used
    assert {half(0, unit) for unit in used} == {"confirm"}


def test_the_parts_keep_their_contracts(world, screened):
    work = make_work(None, world.tables, model=world.model, saes=world.saes)
    few = {"candidates": {"top": 2}, "points": 4, "directions": 40}
    part = PARTS.get("stage", "patch.delta")
    check_part(part, params={"outcomes": OUTCOMES, **few}, work=work)
    judged = make_work(None, screened)
    check_part(PARTS.get("stage", "patch.verdicts"), params={}, work=judged)


# --- refusals -------------------------------------------------------------------------------------


def test_the_raw_stream_has_numbers_that_cannot_be_screened_as_features(planted, model, world):
    tables = {name: world.tables[name] for name in ("samples", "sample_meta")}
    params = {"by": "cause", "between": ["yes", "no"], "half": "select"}
    raw = run("compare.residual", params, tables, model)
    with pytest.raises(
        DataError,
        match=r"belongs to space .*/resid_post\.\d/raw, and no SAE of this stage makes that space",
    ):
        replace(world, tables=world.tables | raw).screen()


def test_features_of_another_space_are_refused_and_both_spaces_named(planted, model, world):
    others = load_saes(planted.lossy)
    with pytest.raises(
        DataError,
        match=r"belongs to space .*resid_post\.\d/Planted-L\dR-8x, and no SAE of this stage makes "
        r"that space with .*; they make .*resid_post\.1/PlantedLossy-L1R-8x",
    ):
        run("patch.delta", {"outcomes": OUTCOMES}, world.tables, model, others)


class Lying(WholePasses):
    """Its suffix does not agree with its own pass."""

    def readout(self, states, tokens, base=None):
        return self._model.readout(states, tokens, base)

    def last_hookpoint(self):
        return self._model.last_hookpoint()

    def prefix(self, ids, capture=()):
        return self._model.prefix(ids, capture)

    def suffix(self, prefix, *rows):
        return self._model.suffix(prefix, *rows) * 1.5


class Skipping(Lying):
    """Its suffix sets one row no time, and another one twice."""

    def suffix(self, prefix, layers, rows, made):
        states = self._model.suffix(prefix, layers, rows, made)
        made[2], made[3] = 0, 2
        return states


class Losing(Lying):
    """Its suffix loses a row."""

    def suffix(self, prefix, *rows):
        return self._model.suffix(prefix, *rows)[:-1]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Lying, r"The sham arm changes a probability by .*`suffix` does not agree with its own"),
        (
            Skipping,
            r"1 token of row 2 was planned in its prompt, and 0 were edited \(2 of \d+ rows differ",
        ),
        (Losing, r"edits were planned at a decision point and \d+ were made"),
    ],
)
def test_a_model_whose_suffix_is_wrong_stops_everything(world, kind, message):
    with pytest.raises(DataError, match=message):
        replace(world, model=kind(world.model)).screen(points=3)


def test_outcomes_that_share_a_first_token_are_refused(world):
    with pytest.raises(BadInput, match=r"'b' \(' stop bet'\) and 'a' begin with the same token"):
        world.screen(outcomes={"a": [" stop"], "b": [" stop bet"]})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"between": ["yes", "maybe"]}, "no stage compared 'yes vs maybe'"),
        (
            {"candidates": {"min_count": 10_000}},
            "No feature can be screened: of 0 that fired in at least 10000 samples",
        ),
        ({"candidates": {"features": ["9/3"]}}, "There is no space at layer 9"),
    ],
)
def test_refusals(world, params, message):
    with pytest.raises((DataError, BadInput), match=message):
        world.screen(**params)


def test_a_feature_that_never_fired_is_refused_by_its_address(world):
    sae = world.saes[0]
    fired = {row["feature"] for row in world.tables["features"].to_pylist()}
    silent = next(index for index in range(sae.width) if index not in fired)
    with pytest.raises(DataError, match=f"feature {sae.layer}/{silent} never fired in the samples"):
        world.screen(candidates={"features": [f"{sae.layer}/{silent}"]})


def test_values_below_zero_are_refused(world):
    rows = world.tables["features"].to_pylist()
    wrong = [{**row, "number": -0.5} if row["stat"] == "mean" else row for row in rows]
    tables = world.tables | {"features": table("features", wrong)}
    with pytest.raises(DataError, match=r"would be set to -0.5, and its activations are never"):
        replace(world, tables=tables).screen()


def test_a_comparison_of_all_units_leaves_no_unit_to_confirm_with(world):
    params = {"by": "cause", "between": ["yes", "no"]}
    tables = {**world.tables}
    tables |= run("compare.welch", params, world.tables, world.model, world.saes)
    with pytest.raises(DataError, match=r"was compared on all of the units only"):
        replace(world, tables=tables).screen()


def test_no_unit_left_to_confirm(world):
    kept = [row for row in world.tables["samples"].to_pylist() if half(0, row["unit"]) == "select"]
    only = replace(world, tables={**world.tables, "samples": table("samples", kept)})
    with pytest.raises(
        DataError, match="there is no decision point in the `confirm` half of the units"
    ):
        only.screen()


@pytest.mark.parametrize("params", [Attribution, Delta, Doses, Joint])
def test_params_name_the_outcomes_that_there_are(params):
    with pytest.raises(ValueError, match=r"there is no outcome 'stopp'\. Did you mean 'stop'"):
        params(outcomes={"stop": ("x",)}, outcome="stopp")


def test_params_refuse_too_few_directions():
    with pytest.raises(ValueError, match="greater than or equal to 19"):
        Delta(outcomes={"a": ("x",)}, directions=5)
