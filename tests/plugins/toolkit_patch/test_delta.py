"""The causal screen against planted truth: causes are found, correlates are not, and a lossy SAE's
effect is called by its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from toolkit._plugins.loading import load_parts
from toolkit.comparisons import Comparison
from toolkit.errors import BadInput, DataError
from toolkit.models import Model
from toolkit.randomness import generator, half
from toolkit.saes import space_id
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import (
    SilentReporter,
    TableInputs,
    make_comparison,
    make_comparisons,
    make_work,
)
from toolkit.testing.planted import build_planted, prompts
from toolkit_patch._candidates import Known, chosen, known, matched
from toolkit_patch._outcomes import outcome_matrix, token_sets
from toolkit_patch._params import Delta
from toolkit_patch._verdict import estimate

PARTS = load_parts([])
OUTCOMES = {"stop": [" stop"], "bet": [" bet"]}


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def run(
    name: str, params: dict[str, Any], tables: dict[str, pa.Table], model: Model, saes: Any
) -> dict[str, pa.Table]:
    part = PARTS.get("stage", name)
    work = make_work(part.params.model_validate(params), tables, model=model, saes=saes)
    found: dict[str, list[pa.Table]] = {}
    for written, rows in part.run(work):
        found.setdefault(written, []).append(rows)
    return {written: pa.concat_tables(parts) for written, parts in found.items()}


@dataclass(frozen=True)
class World:
    """A planted model with labelled prompts, its SAEs, and what a comparison on half of the prompts
    found.
    """

    planted: Any
    model: Model
    saes: Any
    tables: dict[str, pa.Table]

    def screen(self, **params: Any) -> dict[str, pa.Table]:
        given = {"outcomes": OUTCOMES, "top": 24, "points": 40, **params}
        return run("patch.delta", given, self.tables, self.model, self.saes)

    def truth(self, row: dict[str, Any]) -> Any:
        sae = next(sae for sae in self.saes if space_id(self.model.identity, sae) == row["space"])
        known = next(truth for truth in self.planted.truth.saes if truth.name == sae.name)
        return known.features[row["feature"]]

    def verdicts(self, found: dict[str, pa.Table]) -> list[tuple[Any, str]]:
        return [(self.truth(row), row["text"]) for row in found["features"].to_pylist()]


def make_world(planted: Any, model: Model, path: Any, by: str = "cause") -> World:
    part = PARTS.get("sae", "llama_scope")
    saes = part.load(part.params(path=str(path)), SilentReporter())
    samples, meta = [], []
    for at, prompt in enumerate(prompts(planted, 200)):
        tokens = model.tokenise(prompt.text)
        name = f"s{at:04d}"
        facts = {
            "unit": name,
            "cluster": name,
            "text": tokens.text,
            "prompt_hash": name,
            "spans": [],
        }
        samples.append(
            {"sample": name, "token_ids": list(tokens.ids), "pieces": list(tokens.pieces), **facts}
        )
        meta.append(
            {
                "sample": name,
                "key": by,
                "number": None,
                "string": "yes" if getattr(prompt, by) else "no",
            }
        )
    tables = {"samples": table("samples", samples), "sample_meta": table("sample_meta", meta)}
    tables |= run("extract.activations", {}, tables, model, saes)
    tables |= run(
        "compare.welch", {"by": by, "between": ["yes", "no"], "half": "select"}, tables, model, saes
    )
    return World(planted, model, saes, tables)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return build_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def model(planted):
    part = PARTS.get("model", "huggingface")
    return part.load(part.params(path=str(planted.model)), SilentReporter())


@pytest.fixture(scope="module")
def world(planted, model):
    return make_world(planted, model, planted.llama_scope)


@pytest.fixture(scope="module")
def screened(world):
    return world.screen()


def test_planted_causes_are_causal_and_planted_correlates_are_not(world, screened):
    verdicts = world.verdicts(screened)
    assert {truth.direction for truth, _ in verdicts} >= {"u", "v", "w", "echo", "shadow"}
    for truth, text in verdicts:
        wanted = "causal" if truth.role == "causal" else "no effect"
        assert text.partition(":")[0] == wanted, (truth, text)
    assert sum(truth.role == "causal" for truth, _ in verdicts) == 4


def test_the_raw_stream_finds_the_cause_and_its_numbers_cannot_be_screened_as_features(
    planted, model, world
):
    tables = {name: world.tables[name] for name in ("samples", "sample_meta")}
    raw = run(
        "compare.residual",
        {"by": "cause", "between": ["yes", "no"], "half": "select"},
        tables,
        model,
        None,
    )
    assert any(row["number"] for row in raw["features"].to_pylist() if row["stat"] == "significant")
    with pytest.raises(
        DataError,
        match=r"belongs to space .*/resid_post\.\d/raw, and no SAE of this stage makes that space",
    ):
        replace(world, tables=world.tables | raw).screen()


def test_a_shield_lowers_the_outcome(planted, model):
    world = make_world(planted, model, planted.llama_scope, by="shield")
    found = world.screen(points=20)
    causal = [row for row in found["features"].to_pylist() if row["text"].startswith("causal")]
    assert causal
    assert {world.truth(row).direction for row in causal} == {"guard"}
    assert all(row["number"] < -0.05 for row in causal)


def test_with_a_lossy_sae_both_values_have_an_effect_and_the_verdict_blames_reconstruction(
    planted, model
):
    world = make_world(planted, model, planted.lossy)
    found = world.screen()
    for truth, text in world.verdicts(found):
        assert text.partition(":")[0] == (
            "causal" if truth.role == "causal" else "reconstruction"
        ), (truth, text)
    rows = [
        row
        for row in found["effects"].to_pylist()
        if row["sample"] == "*" and row["outcome"] == "stop"
    ]
    inert = {
        row["feature"]
        for row in found["features"].to_pylist()
        if row["text"].startswith("reconstruction")
    }
    assert inert
    for row in rows:
        if row["feature"] in inert and row["arm"].startswith("reconstruct:"):
            assert row["effect"] > 0.1
            assert row["q"] < 1e-6
        if row["feature"] in inert and row["arm"] == "specific":
            assert abs(row["effect"]) < 1e-3


def test_effects_are_those_of_a_whole_pass_with_a_hand_made_edit(world, screened):
    """An independent float64 forward with the same edit gives the same probability."""
    from toolkit.testing.planted import ReferenceModel

    reference = ReferenceModel.load(world.planted.model)
    truth = world.planted.truth
    row = next(row for row in screened["features"].to_pylist() if row["text"].startswith("causal"))
    sae = next(sae for sae in world.saes if space_id(world.model.identity, sae) == row["space"])
    one = next(
        found
        for found in screened["effects"].to_pylist()
        if found["feature"] == row["feature"]
        and found["space"] == row["space"]
        and found["arm"] == "set:yes"
        if found["sample"] != "*" and found["outcome"] == "stop"
    )
    ids = next(
        s["token_ids"] for s in world.tables["samples"].to_pylist() if s["sample"] == one["sample"]
    )
    value = next(
        found["number"]
        for found in world.tables["features"].to_pylist()
        if (found["space"], found["feature"], found["stat"], found["group"])
        == (row["space"], row["feature"], "mean", "yes")
    )

    def edit(stream: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import torch

        own = float(sae.encode(torch.from_numpy(stream[-1:]).float())[0, row["feature"]])
        stream[-1] += (value - own) * sae.decoder_rows([row["feature"]])[0].double().numpy()
        return stream

    logits = reference.run(ids, {sae.layer: edit}).logits[-1]
    chances = np.exp(logits - logits.max())
    assert one["probability"] == pytest.approx(chances[truth.stop_id] / chances.sum(), abs=1e-4)


def test_outcomes_and_what_is_in_none_add_up_to_one(screened):
    sums: dict[Any, float] = {}
    for row in screened["effects"].to_pylist():
        if row["arm"] not in ("specific", "random"):
            key = row["space"], row["feature"], row["sample"], row["arm"]
            sums[key] = sums.get(key, 0.0) + row["probability"]
    assert np.allclose(list(sums.values()), 1.0)
    assert {row["outcome"] for row in screened["effects"].to_pylist()} == {"stop", "bet", "other"}


def test_sham_is_a_no_op_in_every_row(screened):
    sham = [row for row in screened["effects"].to_pylist() if row["arm"] == "sham"]
    assert sham
    assert max(abs(row["effect"]) for row in sham) < 1e-5
    assert max(row["kl"] for row in sham) < 1e-8


def test_decision_points_are_units_that_the_comparison_did_not_see(world, screened):
    units = {row["sample"]: row["unit"] for row in world.tables["samples"].to_pylist()}
    used = {units[row["sample"]] for row in screened["effects"].to_pylist() if row["sample"] != "*"}
    assert used
    assert {half(0, unit) for unit in used} == {"confirm"}


def test_the_part_keeps_its_contract(world):
    work = make_work(None, world.tables, model=world.model, saes=world.saes)
    check_part(
        PARTS.get("stage", "patch.delta"),
        params={"outcomes": OUTCOMES, "top": 2, "points": 4},
        work=work,
    )


def test_features_of_another_space_are_refused_by_name(planted, model, world):
    part = PARTS.get("sae", "llama_scope")
    others = part.load(part.params(path=str(planted.lossy)), SilentReporter())
    with pytest.raises(
        DataError,
        match=r"belongs to space .*resid_post\.\d/Planted-L\dR-8x, and no SAE "
        r"of "
        r"this "
        r"stage makes that",
    ):
        run("patch.delta", {"outcomes": OUTCOMES}, world.tables, model, others)


class Lying(Model):
    """Its suffix does not agree with its own pass."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, text, *, chat=False):
        return self._model.encode(text, chat=chat)

    def decode(self, ids):
        return self._model.decode(ids)

    def run(self, batch, capture, edits=()):
        return self._model.run(batch, capture, edits)

    def unembed(self, states):
        return self._model.unembed(states)

    def last_hookpoint(self):
        return self._model.last_hookpoint()

    def prefix(self, ids, capture=()):
        return self._model.prefix(ids, capture)

    def suffix(self, prefix, layers, rows):
        return self._model.suffix(prefix, layers, rows) * 1.5


def test_a_sham_that_changes_something_stops_everything(world):
    lying = replace(world, model=Lying(world.model))
    with pytest.raises(
        DataError,
        match=r"The sham arm changes a probability by .*`suffix` does not agree with its own pass",
    ):
        lying.screen(points=3)


def test_outcomes_that_share_a_first_token_are_refused(world):
    with pytest.raises(BadInput, match=r"'b' \(' stop bet'\) and 'a' begin with the same token"):
        world.screen(outcomes={"a": [" stop"], "b": [" stop bet"]})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"outcome": "stopp"}, "there is no outcome 'stopp'. Did you mean 'stop'"),
        ({"between": ["yes", "maybe"]}, "no stage compared 'yes vs maybe'"),
        (
            {"min_count": 10_000},
            "No feature can be screened: of 0 that fired in at least 10000 samples",
        ),
        ({"random": 100_000}, "100000 random features were asked for"),
    ],
)
def test_refusals(world, params, message):
    with pytest.raises((DataError, BadInput), match=message):
        world.screen(**params)


def test_no_unit_left_to_confirm(world):
    kept = [row for row in world.tables["samples"].to_pylist() if half(0, row["unit"]) == "select"]
    only = replace(world, tables={**world.tables, "samples": table("samples", kept)})
    with pytest.raises(
        DataError, match="no decision point is left in the half of the units that confirms"
    ):
        only.screen()


# --- the pieces -----------------------------------------------------------------------------------


def test_an_estimate_is_a_t_interval_when_every_point_is_its_own_cluster():
    from scipy import stats

    values = generator(1, "values").normal(0.3, 1.0, 30)
    found = estimate(values, np.ones(30), np.arange(30))
    reference = stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(
        tuple(reference.confidence_interval(0.95)), rel=1e-9
    )


def test_points_of_one_cluster_are_one_piece_of_evidence():
    values = np.repeat(generator(2, "values").normal(0.3, 1.0, 10), 20)
    alone = estimate(values, np.ones(200), np.arange(200))
    clustered = estimate(values, np.ones(200), np.repeat(np.arange(10), 20))
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_values_that_do_not_differ_are_no_evidence():
    assert estimate(np.zeros(5), np.ones(5), np.arange(5)).p == 1.0


def test_random_features_fire_about_as_often_and_are_never_candidates(world):
    everything = known(TableInputs(world.tables), None)
    features = chosen(everything, top=4, alpha=0.05, min_abs_d=0.3, min_count=5)
    taken = {(feature.space, feature.index) for feature in features}
    for feature in features:
        found = matched(feature, everything, taken, 19, generator(0, "random"))
        assert len(set(found)) == 19
        assert not {(feature.space, index) for index in found} & taken
        rates = {other.index: other.rate for other in everything.features[feature.space]}
        others = [
            rate
            for index, rate in rates.items()
            if index not in found and (feature.space, index) not in taken
        ]
        worst = max(abs(rates[index] - feature.rate) for index in found)
        assert sum(abs(rate - feature.rate) < worst for rate in others) <= 2 * 19 + 19


def compared(*comparisons: Comparison, number: float | None = 1.0) -> dict[str, pa.Table]:
    """One feature, as these comparisons write it."""
    rows = []
    for comparison in comparisons:
        stats = [(stat, comparison.name) for stat in ("d", "q")]
        stats += [(stat, group) for stat in ("mean", "density") for group in comparison.group_names]
        rows += [
            {
                "space": "s",
                "feature": 1,
                "stat": stat,
                "group": group,
                "number": number,
                "comparison": comparison.id,
            }
            for stat, group in [*stats, ("fired", "")]
        ]
    return {"features": table("features", rows), "comparisons": make_comparisons(*comparisons)}


def test_one_comparison_must_be_meant():
    inputs = TableInputs(compared(make_comparison("a", "b"), make_comparison("c", "d")))
    with pytest.raises(DataError, match=r"the needed stages made 2 comparisons \(a vs b, c vs d\)"):
        known(inputs, None)
    assert known(inputs, ("c", "d")).groups == ("c", "d")
    with pytest.raises(
        DataError, match=r"no stage compared 'a vs d'\..* Comparisons: a vs b, c vs d"
    ):
        known(inputs, ("a", "d"))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("between", [None, ("a", "b")])
def test_rows_of_the_two_halves_of_one_contrast_are_never_mixed(order, between):
    select, confirm = (
        make_comparison("a", "b", id=half, half=half) for half in ("select", "confirm")
    )
    parts = [compared(select, number=2.0), compared(confirm, number=0.01)][::order]
    both = {name: pa.concat_tables([part[name] for part in parts]) for name in parts[0]}
    with pytest.raises(
        DataError,
        match=r"2 of the needed stages compared 'a vs b' \(welch, half \w+, welch, half \w+\)"
        r".*Need only the stage",
    ):
        known(TableInputs(both), between)
    beside = {**both, "comparisons": make_comparisons(confirm)}
    (feature,) = known(TableInputs(beside), between).features["s"]
    assert (feature.d, feature.values) == (0.01, (0.01, 0.01))


def test_a_group_may_be_called_as_a_contrast_is():
    made = make_comparison("cat vs dog", "mouse")
    found = known(TableInputs(compared(made)), None)
    assert found.groups == ("cat vs dog", "mouse")
    assert found == known(TableInputs(compared(made)), ("cat vs dog", "mouse"))
    assert [feature.index for feature in found.features["s"]] == [1]


def test_a_feature_without_a_defined_d_is_no_candidate():
    given = compared(make_comparison("a", "b"), number=None)
    assert known(TableInputs(given), None) == Known(("a", "b"), {})


@pytest.mark.parametrize(
    ("stat", "group"), [("mean", "b"), ("density", "a"), ("q", "a vs b"), ("fired", "")]
)
def test_a_missing_statistic_is_said_and_not_replaced(stat, group):
    given = compared(make_comparison("a", "b"))
    rows = [
        row for row in given["features"].to_pylist() if (row["stat"], row["group"]) != (stat, group)
    ]
    with pytest.raises(
        DataError, match=f"feature 1 of space s: its '{stat}'.* is missing beside its 'd'"
    ):
        known(TableInputs({**given, "features": table("features", rows)}), None)


def test_the_matrix_gives_every_token_one_outcome(world):
    sample = world.tables["samples"].to_pylist()[0]
    sets = token_sets(
        world.model, {"stop": [" stop"], "bet": [" bet"]}, sample["text"], sample["token_ids"]
    )
    truth = world.planted.truth
    assert sets == {"stop": [truth.stop_id], "bet": [truth.bet_id]}
    matrix = outcome_matrix(sets, 60)
    assert (matrix.sum(dim=1) == 1).all()


def test_params_refuse_too_few_random_features():
    with pytest.raises(ValueError, match="greater than or equal to 19"):
        Delta(outcomes={"a": ("x",)}, random=5)
