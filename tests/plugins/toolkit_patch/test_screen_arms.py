"""The arms that a screen's effects are compared with, the candidates that a file or a gradient
chooses, and tokens in the middle of a prompt.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.plugins.toolkit_patch.worlds import (
    OUTCOMES,
    PARTS,
    RecordingReporter,
    WholePasses,
    run,
    table,
)
from toolkit.edits import set_stream
from toolkit.errors import BadInput, DataError
from toolkit.saes import Sae, space_id
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit_patch.screen.baselines import mean_differences, shuffled_values
from toolkit_patch.screen.candidates import read_features
from toolkit_patch.screen.params import Delta
from toolkit_patch.screen.stage import patch

FEW = {"points": 12, "directions": 40, "candidates": {"top": 6}}


# --- shuffled labels, difference of means, wording ------------------------------------------------


def test_values_of_shuffled_labels_have_next_to_no_effect(world, screened):
    rows = screened["screens"].to_pylist()
    causal = [row for row in rows if world.truth(row).role == "causal"]
    assert causal
    for row in causal:
        assert abs(row["shuffled"]) < 0.25 * abs(row["effect"])


def test_shuffled_values_are_means_of_the_same_units_under_other_labels(world):
    work = make_work(Delta(outcomes={"a": ("x",)}), world.tables)
    features = read_features(work.inputs, None, "confirm")
    dealt = shuffled_values(work, features)
    sizes = [group.samples for group in features.comparison.groups]
    total = (features.values * sizes).sum(axis=1)
    np.testing.assert_allclose((dealt * sizes).sum(axis=1), total, rtol=1e-5)
    assert abs(dealt[:, 0] - dealt[:, 1]).max() < abs(features.values @ [1, -1]).max() / 3


def test_the_difference_of_means_is_the_baseline_to_beat(world, screened):
    """Causes stand in the stream along one direction at each layer, which their mean has too."""
    rows = screened["screens"].to_pylist()
    assert max(row["mean_difference"] for row in rows) > 0.3
    by_space: dict[str, set[float]] = {}
    for row in rows:
        by_space.setdefault(row["space"], set()).add(row["mean_difference"])
    assert all(len(result) == 1 for result in by_space.values())


def test_the_mean_direction_is_the_one_that_numpy_finds(world):
    params = Delta(outcomes={"a": ("x",)})
    work = make_work(params, world.tables, model=world.model)
    features = read_features(work.inputs, None, "confirm")
    place = world.saes[0].hookpoint
    result = mean_differences(work, features.comparison, [place], "last")[place]
    meta = {row["sample"]: row["string"] for row in world.tables["sample_meta"].to_pylist()}
    from toolkit.statistics.randomness import half

    groups: dict[str, list[Any]] = {"yes": [], "no": []}
    for row in world.tables["samples"].to_pylist():
        if half(0, row["unit"]) == "select":
            stream = world.model.run([row["token_ids"]], [place])[place][0, -1]
            groups[meta[row["sample"]]].append(stream.double().numpy())
    means = [np.mean(groups[name], axis=0) for name in ("yes", "no")]
    unit = (means[0] - means[1]) / np.linalg.norm(means[0] - means[1])
    np.testing.assert_allclose(result.unit.numpy(), unit, atol=1e-4)
    assert result.position_a == pytest.approx(means[0] @ unit, abs=1e-3)
    assert result.position_b == pytest.approx(means[1] @ unit, abs=1e-3)


def test_arms_without_their_tables_are_left_out_and_that_is_said(world):
    reporter = RecordingReporter()
    tables = {name: rows for name, rows in world.tables.items() if name != "activations"}
    params = Delta.model_validate({"outcomes": OUTCOMES, **FEW})
    work = make_work(params, tables, model=world.model, saes=world.saes)
    written = dict(patch(replace(work, report=reporter)))
    assert set(written["screens"]["shuffled"].to_pylist()) == {None}
    assert None not in written["screens"]["mean_difference"].to_pylist()
    assert any("arms shuffled are left out" in text for text in reporter.warnings)


def test_a_wording_is_a_yardstick_in_the_unedited_model(world):
    word = world.planted.truth.words[0] if hasattr(world.planted.truth, "words") else "stop"
    results = world.screen(**FEW, prompt_only={"text": f"{word} "})
    values = {row["prompt_only"] for row in results["screens"].to_pylist()}
    assert len(values) == 1
    arms = {row["arm"] for row in results["effects"].to_pylist()}
    assert "prompt_only" in arms
    with pytest.raises(BadInput, match="does not say 'nowhere'"):
        world.screen(**FEW, prompt_only={"text": "x", "before": "nowhere"})


# --- counts ---------------------------------------------------------------------------------------


def test_edits_are_counted_for_each_feature(screened):
    rows = screened["screens"].to_pylist()
    assert {row["edits"] for row in rows} == {14 * rows[0]["points"]}


# --- candidates -----------------------------------------------------------------------------------


def named(world: Any, count: int = 4) -> list[tuple[int, int]]:
    layers = {space_id(world.model.identity, sae): sae.layer for sae in world.saes}
    rows = [row for row in world.tables["features"].to_pylist() if row["stat"] == "d"]
    rows.sort(key=lambda row: -abs(row["number"] or 0))
    return [(layers[row["space"]], row["feature"]) for row in rows[:count]]


def test_candidates_of_a_csv_and_of_the_published_json(world, tmp_path: Path):
    chosen = named(world)
    csv = tmp_path / "chosen.csv"
    csv.write_text("layer,feature\n" + "".join(f"{a},{b}\n" for a, b in chosen))
    addressed = tmp_path / "addressed.csv"
    addressed.write_text("address,d\n" + "".join(f"{a}/{b},1\n" for a, b in chosen))
    layers: dict[str, Any] = {}
    for layer, feature in chosen:
        facts = layers.setdefault(str(layer), {"layer": layer, "significant_features": []})
        facts["significant_features"].append({"feature_idx": feature, "cohen_d": 1.0})
    published = tmp_path / "features.json"
    published.write_text(json.dumps({"layer_results": layers}))
    families = []
    for file in (csv, addressed, published):
        params = {"candidates": {"file": str(file)}, "points": 4, "arms": [], "directions": 40}
        results = run("patch.delta", {"outcomes": OUTCOMES, **params}, world.tables, *using(world))
        rows = results["screens"].to_pylist()
        assert {row["family"] for row in rows} == {len(chosen)}
        families.append({(row["space"], row["feature"]) for row in rows})
    assert families[0] == families[1] == families[2]


def using(world: Any) -> tuple[Any, Any]:
    return world.model, world.saes


def test_the_features_of_a_file_are_params_and_so_enter_the_key(tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_text("address\n3/5\n3/6\n3/5\n")
    params = PARTS.get("stage", "patch.delta").params.model_validate(
        {"outcomes": {"a": ["x"]}, "candidates": {"file": "a.csv"}}, context={"folder": tmp_path}
    )
    assert params.candidates.features == ("3/5", "3/6")
    assert params.candidates.file is None
    again = Delta.model_validate(params.model_dump(mode="json"))
    assert again == params


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "name\nx\n", "it needs `address`, or `layer` and `feature`"),
        ("a.csv", "layer,feature\n", "names no feature"),
        ("a.csv", "layer,feature\n3,\n", "a.csv:2 names no feature"),
        ("a.json", "[]", "has no map `layer_results`"),
        ("a.json", "{", "cannot be read"),
        (
            "a.json",
            '{"layer_results": {"3": {"significant_features": [{"feature": 1}]}}}',
            r"layer_results.3.significant_features\[0\] has no feature_idx",
        ),
    ],
)
def test_files_that_name_no_features_are_refused(tmp_path: Path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        Delta.model_validate(
            {"outcomes": {"a": ["x"]}, "candidates": {"file": name}}, context={"folder": tmp_path}
        )


def test_a_published_file_of_another_space_is_refused_by_both_names(world, tmp_path: Path):
    facts = {
        "address": "other-model/resid_post.1/Other",
        "significant_features": [{"feature_idx": 1}],
    }
    file = tmp_path / "features.json"
    file.write_text(json.dumps({"layer_results": {"1": facts}}))
    with pytest.raises(
        BadInput, match=r"no space with the address 'other-model/resid_post\.1/Other'.*Spaces: "
    ):
        world.screen(candidates={"file": str(file)})


def test_features_that_never_fired_are_screened_where_that_is_asked_for(world):
    sae = world.saes[0]
    fired = {row["feature"] for row in world.tables["features"].to_pylist()}
    silent = next(index for index in range(sae.width) if index not in fired)
    causal = named(world, 1)[0]
    addresses = [f"{sae.layer}/{silent}", f"{causal[0]}/{causal[1]}"]
    params = {**FEW, "candidates": {"features": addresses, "unfired": "screen"}}
    rows = world.screen(**params)["verdicts"].to_pylist()
    assert [row["family"] for row in rows] == [2, 2]
    row = next(row for row in rows if row["feature"] == silent)
    assert (row["verdict"], row["effect"]) == ("silent here", 0.0)


# --- a gradient chooses ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gradient_may_choose_what_is_checked_exactly(world, screened):
    results = world.screen(screen="relp_then_exact", exact_checks=6)
    rows = results["screens"].to_pylist()
    assert len(rows) == 6
    assert {(row["family"], row["checked"]) for row in rows} == {(16, 6)}
    causal = {
        (row["space"], row["feature"]): row["q"]
        for row in results["verdicts"].to_pylist()
        if row["verdict"] == "causal"
    }
    exact = {
        (row["space"], row["feature"]): row["q"]
        for row in screened["verdicts"].to_pylist()
        if row["verdict"] == "causal"
    }
    assert set(causal) == set(exact)
    for key, q in causal.items():
        assert q == pytest.approx(exact[key], rel=0.2)


@pytest.mark.slow
def test_a_budget_in_steps_is_what_one_step_gives(world):
    params = {"outcomes": OUTCOMES, "screen": "relp_then_exact", "exact_checks": 5, **FEW}
    params["candidates"] = {"top": 10}
    whole = run("patch.delta", params, world.tables, *using(world))
    parts = [
        run("patch.delta", params, world.tables, *using(world), features=span)
        for span in ((0, 3), (3, 5))
    ]
    keys = [(row["space"], row["feature"]) for row in whole["screens"].to_pylist()]
    joined = [
        (row["space"], row["feature"]) for part in parts for row in part["screens"].to_pylist()
    ]
    assert joined == keys
    assert len({row["screen"] for part in parts for row in part["screens"].to_pylist()}) == 1


# --- in the middle of a prompt --------------------------------------------------------------------


def test_a_token_in_the_middle_is_edited_as_a_whole_pass_would(world):
    from toolkit.edits import Edit, OnFeatures, Set, tokens

    results = world.screen(
        **{**FEW, "points": 6}, at={"positions": [-2]}, keep="all", arms=["random_direction"]
    )
    row = max(results["screens"].to_pylist(), key=lambda row: abs(row["set_a"]))
    sae = next(s for s in world.saes if space_id(world.model.identity, s) == row["space"])
    ids = {row["sample"]: row["token_ids"] for row in world.tables["samples"].to_pylist()}
    stop = world.planted.truth.stop_id
    checked = 0
    for effect in results["effects"].to_pylist():
        key = effect["space"], effect["feature"], effect["arm"], effect["outcome"]
        if effect["sample"] == "*" or key != (row["space"], row["feature"], "set:yes", "stop"):
            continue
        prompt = ids[effect["sample"]]
        change = OnFeatures.of(sae, [row["feature"]], Set(row["value_a"]))
        edit = Edit(sae.hookpoint, change, tokens([0], [len(prompt) - 2]))
        chance = world.model.next_logits([prompt], [edit]).double().softmax(-1)[0, stop]
        assert effect["probability"] == pytest.approx(float(chance), abs=1e-4)
        checked += 1
    assert checked == 6
    assert row["sham"] < 1e-5


def test_a_selector_of_several_tokens_is_refused(world):
    with pytest.raises(DataError, match=r"tokens of sample .* are selected, and a"):
        world.screen(**FEW, at={"window": [-3, None]})


def test_two_screens_of_one_run_have_ids_of_their_own(world):
    results = [
        run("patch.delta", {"outcomes": OUTCOMES, **FEW, "points": n}, world.tables, *using(world))
        for n in (4, 5)
    ]
    ids = [set(part["screens"]["screen"].to_pylist()) for part in results]
    assert all(len(id_) == 1 for id_ in ids)
    assert ids[0] != ids[1]


def test_decisions_of_equal_states_are_one_cluster(world):
    meta = world.tables["sample_meta"].to_pylist()
    names = [row["sample"] for row in world.tables["samples"].to_pylist()]
    states = [
        {"sample": name, "key": "state", "number": None, "string": f"state{number % 3}"}
        for number, name in enumerate(names)
    ]
    tables = world.tables | {"sample_meta": table("sample_meta", meta + states)}
    rows = replace(world, tables=tables).screen(**FEW)["screens"].to_pylist()
    assert {row["clusters"] for row in rows} == {3}


# --- features that compete ------------------------------------------------------------------------


class Competing(Sae):
    """A planted SAE of which only the `k` strongest features of a token are active."""

    k = 2

    def __init__(self, sae: Sae) -> None:
        self._sae, self.pointwise, self.encoded = sae, False, 0
        for name in ("name", "hookpoint", "release", "width", "inputs", "digest", "recipe"):
            setattr(self, name, getattr(sae, name))

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        self.encoded += 1
        active = self._sae.encode(rows)
        kept = active.topk(self.k, dim=1)
        return torch.zeros_like(active).scatter(1, kept.indices, kept.values)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return self._sae.decode(activations)

    def decoder_rows(self, features: Any) -> torch.Tensor:
        return self._sae.decoder_rows(features)


def test_features_that_compete_are_encoded_whole_and_that_is_said(world):
    saes = [Competing(sae) for sae in world.saes]
    reporter = RecordingReporter()
    params = Delta.model_validate({"outcomes": OUTCOMES, **FEW, "arms": [], "keep": "all"})
    work = make_work(params, world.tables, model=world.model, saes=saes)
    results = dict(patch(replace(work, report=reporter)))
    message = [text for text in reporter.warnings if "compete with each other" in text]
    assert len(message) == 1
    assert "every decision point is encoded whole" in message[0]
    assert sum(sae.encoded for sae in saes) > FEW["points"]
    screens = results["screens"].to_pylist()
    pointwise = {
        (row["space"], row["feature"]): row["set_a"]
        for row in world.screen(**FEW, arms=[])["screens"].to_pylist()
    }
    others = [row for row in screens if abs(row["set_a"] - pointwise[_key(row)]) > 1e-3]
    assert others, "one encoder column would have given the same"
    check_by_whole_passes(world, saes, results, max(others, key=lambda row: abs(row["set_a"])))


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["space"], row["feature"]


def check_by_whole_passes(world: Any, saes: Any, result: Any, row: dict[str, Any]) -> None:
    """A feature's rows equal those of passes with the edit written by hand."""
    sae = next(sae for sae in saes if space_id(world.model.identity, sae) == row["space"])
    ids = {sample["sample"]: sample["token_ids"] for sample in world.tables["samples"].to_pylist()}
    stop, checked = world.planted.truth.stop_id, 0
    for effect in result["effects"].to_pylist():
        if effect["sample"] == "*" or (*_key(effect), effect["arm"]) != (*_key(row), "set:yes"):
            continue
        if effect["outcome"] != "stop":
            continue
        prompt = ids[effect["sample"]]
        stream = world.model.run([prompt], [sae.hookpoint])[sae.hookpoint][0, -1:].float()
        activation = sae.encode(stream)[0, row["feature"]]
        moved = stream[0] + (row["value_a"] - activation) * sae.decoder_rows([row["feature"]])[0]
        edit = set_stream(sae.hookpoint, [0], [len(prompt) - 1], moved)
        chance = world.model.next_logits([prompt], [edit]).double().softmax(-1)[0, stop]
        assert effect["probability"] == pytest.approx(float(chance), abs=1e-4)
        checked += 1
    assert checked == FEW["points"]


# --- a model that offers whole passes only --------------------------------------------------------


@pytest.mark.parametrize("at", ["last", {"positions": [-2]}])
def test_a_model_of_whole_passes_gives_the_same_screen(world, at):
    params = {"candidates": {"top": 2}, "points": 3, "at": at, "control_saes": "random_decoder"}
    params |= {"directions": 19, "direction_points": 2, "keep": "all"}
    slow, fast = (
        replace(world, model=model).screen(**params)
        for model in (WholePasses(world.model), world.model)
    )
    for name in ("screens", "control_screens", "verdicts"):
        for slow_row, other in zip(slow[name].to_pylist(), fast[name].to_pylist(), strict=True):
            assert slow_row["effect"] == pytest.approx(other["effect"], abs=1e-4)
            assert slow_row["verdict"] == other["verdict"] if name == "verdicts" else True
    assert slow["screens"]["edits"].equals(fast["screens"]["edits"])


# --- precision ------------------------------------------------------------------------------------


def test_a_bfloat16_model_is_stopped_by_its_sham(world):
    part = PARTS.get("model", "huggingface")
    params = part.params(path=str(world.planted.model), dtype="bfloat16")
    coarse = part.load(params, SilentReporter())
    features = world.tables["features"].to_pylist()
    spaces = world.tables["spaces"].to_pylist()
    ids = {
        row["space"]: space_id(coarse.identity, sae)
        for row in spaces
        for sae in world.saes
        if space_id(world.model.identity, sae) == row["space"]
    }
    moved = {
        name: table(name, [{**row, "space": ids[row["space"]]} for row in rows])
        for name, rows in (("features", features), ("spaces", spaces))
    }
    other = replace(world, model=coarse, tables=world.tables | moved)
    with pytest.raises(DataError, match=r"sham arm changes a probability .* dtype too coarse"):
        other.screen(arms=[], points=8, candidates={"top": 4})
