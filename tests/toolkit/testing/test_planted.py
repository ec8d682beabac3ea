"""The planted truth, proven by brute force: ablate, force, patch and compare logits in a plain
float64 forward.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from toolkit.testing.planted import (
    Planted,
    PlantedPrompt,
    ReferenceModel,
    SaeTruth,
    Trace,
    build_planted,
    prompts,
)

BUILDS = {
    "default": {"seed": 0},
    "small": {
        "seed": 1,
        "d_model": 32,
        "n_layers": 3,
        "effect": 2.0,
        "shield_effect": 1.0,
        "drift_effect": 0.5,
    },
    "large": {"seed": 2, "d_model": 64, "expansion": 4, "lossy_layer": 2},
}
# the attention match leaves a share of e^-12 on BOS and the MLP gates turn that into about 2e-4
EXACT = 5e-3


@dataclass(frozen=True)
class World:
    """A planted model, loaded."""

    planted: Planted
    model: ReferenceModel
    traces: list[Trace] = field(default_factory=list)  # filled once, by `residuals`

    def difference(
        self, ids: list[int], edits: dict[int, Callable[[np.ndarray], np.ndarray]] | None = None
    ) -> float:
        logits = self.model.run(ids, edits).logits[-1]
        return float(logits[self.planted.truth.stop_id] - logits[self.planted.truth.bet_id])


@dataclass(frozen=True)
class Sae:
    """An SAE read from its files by the published equations, not by the code that wrote them."""

    encoder: np.ndarray  # (d, n)
    bias: np.ndarray
    decoder: np.ndarray  # (n, d)
    decoder_bias: np.ndarray
    threshold: np.ndarray

    def encode(self, x: np.ndarray) -> np.ndarray:
        z = x @ self.encoder + self.bias
        return np.where((z > self.threshold) & (z > 0), z, 0.0)

    def decode(self, acts: np.ndarray) -> np.ndarray:
        return acts @ self.decoder + self.decoder_bias


def load_sae(truth: SaeTruth) -> Sae:
    if truth.layout == "gemma_scope":
        with np.load(truth.path / "params.npz") as file:
            stored = {name: file[name].astype(np.float64) for name in file.files}
        return Sae(
            stored["W_enc"], stored["b_enc"], stored["W_dec"], stored["b_dec"], stored["threshold"]
        )
    config = json.loads((truth.path / "hyperparams.json").read_text())
    stored = {
        k: v.astype(np.float64)
        for k, v in load_file(truth.path / "checkpoints" / "final.safetensors").items()
    }
    norm = config["dataset_average_activation_norm"]
    s_in, s_out = (np.sqrt(config["d_model"]) / norm[side] for side in ("in", "out"))
    length = np.linalg.norm(stored["decoder.weight"], axis=0)
    return Sae(
        encoder=stored["encoder.weight"].T * length * s_in / s_out,
        bias=stored["encoder.bias"] * length / s_out,
        decoder=(stored["decoder.weight"] / length).T,
        decoder_bias=stored["decoder.bias"] / s_out,
        threshold=np.full(len(length), config["jump_relu_threshold"]),
    )


def set_feature(sae: Sae, index: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The delta edit at the last position: h + (v - f) d, error kept."""

    def edit(x: np.ndarray) -> np.ndarray:
        x[-1] += (value - sae.encode(x[-1])[index]) * sae.decoder[index]
        return x

    return edit


def rebuild(
    sae: Sae, index: int | None = None, value: float = 0.0
) -> Callable[[np.ndarray], np.ndarray]:
    """Full reconstruction at the last position, error lost, one feature set if asked."""

    def edit(x: np.ndarray) -> np.ndarray:
        acts = sae.encode(x[-1])
        if index is not None:
            acts[index] = value
        x[-1] = sae.decode(acts)
        return x

    return edit


@pytest.fixture(scope="module", params=sorted(BUILDS))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    planted = build_planted(tmp_path_factory.mktemp("planted"), **BUILDS[request.param])
    return World(planted, ReferenceModel.load(planted.model))


def residuals(world: World, layer: int, *, bos: bool, n: int = 25) -> np.ndarray:
    if not world.traces:
        world.traces.extend(
            world.model.run(prompt.ids) for prompt in prompts(world.planted, 25, seed=5)
        )
    rows = [trace.resid_post[layer] for trace in world.traces[:n]]
    return np.concatenate([row if bos else row[1:] for row in rows])


def explained(sae: Sae, x: np.ndarray) -> float:
    return float(1 - ((x - sae.decode(sae.encode(x))) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


# The model


def test_the_checkpoint_loads_offline_and_agrees_with_the_float64_forward(world: World) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        world.planted.model, local_files_only=True
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        world.planted.model, local_files_only=True
    ).eval()
    assert type(model).__name__ == "LlamaForCausalLM"
    for prompt in prompts(world.planted, 6):
        ids = tokenizer(prompt.text)["input_ids"]
        assert ids == prompt.ids
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
        trace = world.model.run(ids)
        np.testing.assert_allclose(out.logits[0].numpy(), trace.logits, atol=1e-4)
        np.testing.assert_allclose(out.hidden_states[1][0].numpy(), trace.resid_post[0], atol=1e-3)
        # The last entry is normed: a tool that takes it for resid_post must be seen to be wrong.
        assert np.abs(out.hidden_states[-1][0].numpy() - trace.resid_post[-1]).max() > 0.1


def test_the_tokenizer_marks_words_and_knows_its_special_tokens(world: World) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        world.planted.model, local_files_only=True
    )
    truth = world.planted.truth
    assert tokenizer(" stop bet", add_special_tokens=False)["input_ids"] == [
        truth.stop_id,
        truth.bet_id,
    ]
    encoded = tokenizer("the losing streak unheard", return_offsets_mapping=True)
    assert encoded["input_ids"][0] == tokenizer.bos_token_id
    assert encoded["input_ids"][-1] == tokenizer.unk_token_id
    start, end = encoded["offset_mapping"][2]
    assert "the losing streak unheard"[start:end].strip() == "losing"
    assert tokenizer.decode(encoded["input_ids"][1:4]) == "the losing streak"


def test_cause_and_shield_alone_decide(world: World) -> None:
    truth = world.planted.truth
    drawn = prompts(world.planted, 24)
    assert len({len(prompt.ids) for prompt in drawn}) > 5
    assert {(p.cause, p.shield) for p in drawn} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
    for prompt in drawn:
        expected = (
            prompt.cause * truth.effect - prompt.shield * truth.shield_effect - truth.drift_effect
        )
        assert world.difference(prompt.ids) == pytest.approx(expected, abs=EXACT)
        assert world.difference(prompt.ids[1:]) == pytest.approx(expected, abs=EXACT), (
            "BOS is no part of the circuit"
        )


def test_context_reaches_other_words_but_not_the_decision(world: World) -> None:
    """Were later attention idle, a tool that ignores it would pass."""
    ids = next(p.ids for p in prompts(world.planted, 1))
    swapped = [ids[0], *reversed(ids[1:-1]), ids[-1]]
    a, b = (world.model.run(row).logits[-1] for row in (ids, swapped))
    assert np.abs(a - b).max() > 1e-3
    edit = {
        0: lambda x: x + (np.arange(len(x)) < len(x) - 1)[:, None] * np.roll(x, 1, axis=1) * 0.1
    }
    assert np.abs(world.model.run(ids, edit).logits[-1] - a).max() > 1e-3


def test_breaking_the_path_at_a_layer_silences_all_that_follows(world: World) -> None:
    truth, ids = world.planted.truth, prompts(world.planted, 1)[0].ids
    steps = [
        (int(hookpoint.rsplit(".", 1)[1]), name)
        for hookpoint, name in truth.path
        if "post" in hookpoint
    ]
    assert len(steps) == world.model.config["num_hidden_layers"]
    clean = world.model.run(ids)
    for step, (layer, name) in enumerate(steps):
        unit = truth.directions[name]
        assert clean.resid_post[layer][-1] @ unit == pytest.approx(4.0, abs=EXACT)
        broken = world.model.run(ids, {layer: lambda x, u=unit: x - np.outer(x @ u, u)})
        for later, downstream in steps[step:]:
            assert abs(broken.resid_post[later][-1] @ truth.directions[downstream]) < 1e-6
        decision = broken.logits[-1, truth.stop_id] - broken.logits[-1, truth.bet_id]
        clean_decision = clean.logits[-1, truth.stop_id] - clean.logits[-1, truth.bet_id]
        assert clean_decision - decision == pytest.approx(truth.effect, abs=EXACT)


# The features


def test_ablating_a_causal_feature_has_the_stated_effect(world: World) -> None:
    drawn = prompts(world.planted, 12)
    for truth in world.planted.truth.saes:
        sae = load_sae(truth)
        for index in truth.ids("causal"):
            feature = truth.features[index]
            role = {"u": "cause", "v": "cause", "w": "cause", "guard": "shield"}.get(
                feature.direction
            )
            prompt = next(p for p in drawn if role is None or getattr(p, role))
            effect = world.difference(prompt.ids) - world.difference(
                prompt.ids, {truth.layer: set_feature(sae, index, 0.0)}
            )
            assert effect == pytest.approx(feature.effect, abs=EXACT), (truth.name, feature)
            assert np.sign(effect) == feature.sign != 0


def test_a_planted_pair_acts_only_together(tmp_path: Path) -> None:
    """Taking one of it away changes nothing, taking both what the truth says."""
    planted = build_planted(tmp_path, n_layers=3, pair_effect=2.0)
    truth, world = planted.truth, World(planted, ReferenceModel.load(planted.model))
    with_cause = next(prompt for prompt in prompts(planted, 8) if prompt.cause)
    without = next(
        prompt
        for prompt in prompts(planted, 8)
        if not prompt.cause and prompt.shield == with_cause.shield
    )
    effect = world.difference(with_cause.ids) - world.difference(without.ids)
    assert effect == pytest.approx(truth.effect + truth.pair_effect, abs=0.05)
    for layout in ("llama_scope", "gemma_scope"):
        stated = truth.sae("wide", 0, layout)
        sae, indices = load_sae(stated), stated.ids("paired")
        assert {stated.features[index].direction for index in indices} == set(truth.pair)
        alone = [set_feature(sae, index, 0.0) for index in indices]

        def both(x: np.ndarray, edits: list[Any] = alone) -> np.ndarray:
            return edits[1](edits[0](x))

        base = world.difference(with_cause.ids)
        for edit in alone:
            assert world.difference(with_cause.ids, {0: edit}) == pytest.approx(base, abs=0.02)
        moved = base - world.difference(with_cause.ids, {0: both})
        assert moved == pytest.approx(truth.pair_effect, abs=0.02)
    joint = truth.sae("wide", 1).named("joint")
    assert joint is not None
    assert (joint.role, joint.effect) == ("causal", 2.0)


def test_patching_a_causal_value_in_carries_the_effect_over(world: World) -> None:
    without = next(p for p in prompts(world.planted, 12) if not p.cause)
    for truth in world.planted.truth.saes:
        carrier = truth.features[
            next(i for i in truth.ids("causal") if truth.features[i].direction in "uvw")
        ]
        edit = set_feature(load_sae(truth), carrier.index, 4.0)
        effect = world.difference(without.ids, {truth.layer: edit}) - world.difference(without.ids)
        assert effect == pytest.approx(carrier.effect, abs=EXACT)


@pytest.mark.parametrize("value", [0.0, 4.0, 40.0])
def test_inert_and_dead_features_change_no_logit(world: World, value: float) -> None:
    ids = next(p.ids for p in prompts(world.planted, 12) if p.cause and p.shield)
    trace = world.model.run(ids)
    clean, resid = trace.logits[-1], trace.resid_post
    for truth in world.planted.truth.saes:
        if truth.kind == "lossy":
            continue  # its silenced features write to the filler subspace; see the next test
        sae = load_sae(truth)
        for index in [*truth.ids("inert"), *truth.ids("dead")[:3]]:
            change = abs(value - sae.encode(resid[truth.layer][-1])[index])
            edited = world.model.run(ids, {truth.layer: set_feature(sae, index, value)}).logits[-1]
            # Float32 files cannot hold exact right angles: a unit of edit leaks about 3e-7 into
            # some logit.
            assert np.abs(edited - clean).max() <= 1e-6 * change, truth.features[index]


def test_background_features_move_other_words_but_never_the_decision(world: World) -> None:
    stop, bet = world.planted.truth.stop_id, world.planted.truth.bet_id
    ids = prompts(world.planted, 1)[0].ids
    clean = world.model.run(ids).logits[-1]
    for truth in world.planted.truth.saes:
        sae = load_sae(truth)
        for index in [*truth.ids("background")[:3], *truth.ids("bos")[:1], *truth.ids("dead")[:3]]:
            change = (
                world.model.run(ids, {truth.layer: set_feature(sae, index, 4.0)}).logits[-1] - clean
            )
            assert abs(change[stop] - change[bet]) < 5e-6
            moved = np.abs(change).max()
            assert moved > 1e-2 or truth.features[index].role == "dead"


def test_inert_correlates_fire_with_the_cause(world: World) -> None:
    drawn = prompts(world.planted, 20)
    cause = [prompt.cause for prompt in drawn]
    truth = world.planted.truth.sae("wide", 2)
    sae = load_sae(truth)
    acts = sae.encode(np.stack([world.model.run(prompt.ids).resid_post[2][-1] for prompt in drawn]))
    for name in ("echo", "shadow", "u", "v", "w"):
        feature = truth.named(name)
        assert feature is not None
        assert feature.role == ("causal" if name == "w" else "inert"), (
            "spent carriers are correlates too"
        )
        assert ((acts[:, feature.index] > 0) == cause).all()


def test_all_but_the_circuit_is_the_same_with_and_without_the_cause(world: World) -> None:
    """The neutral twin makes an exact null of every other feature."""
    truth = world.planted.truth
    prompt = prompts(world.planted, 1)[0]
    text = prompt.text
    for cause in truth.cause_words:
        text = text.replace(cause, truth.twins[cause])
    a, b = (
        world.model.run(prompt.ids),
        world.model.run(PlantedPrompt(text, cause=False, shield=prompt.shield).ids),
    )
    circuit = np.stack([truth.directions[name] for name in ("u", "v", "w", "echo", "shadow")])
    for x, y in zip(a.resid_post, b.resid_post, strict=True):
        change = x[-1] - y[-1]
        assert np.abs(change - change @ circuit.T @ circuit).max() < 1e-5
        assert np.abs(change).max() > 0.5


def test_dense_fire_on_every_word_dead_on_none_and_bos_features_on_bos_alone(world: World) -> None:
    for truth in world.planted.truth.saes:
        sae, x = load_sae(truth), residuals(world, truth.layer, bos=False)
        rate = (sae.encode(x) > 0).mean(0)
        bos = (
            sae.encode(
                world.model.run(prompts(world.planted, 1)[0].ids).resid_post[truth.layer][:1]
            )[0]
            > 0
        )
        assert rate[truth.dense_ids].min() >= 0.95
        assert len(truth.dense_ids) == (1 if truth.kind == "lossy" else 2)
        assert len(truth.ids("dead")) >= 30
        assert rate[truth.ids("dead")].max() == 0
        assert not bos[truth.ids("dead")].any()
        assert rate[truth.ids("bos")].max() == 0
        assert bos[truth.ids("bos")].all()
        others = np.delete(rate, [*truth.dense_ids, *truth.ids("dead"), *truth.ids("bos")])
        assert others.max() < 0.95


# The SAEs


def test_explained_variance_and_l0_are_as_stated_and_bos_ruins_them(world: World) -> None:
    for truth in world.planted.truth.saes:
        sae, words = load_sae(truth), residuals(world, truth.layer, bos=False)
        everything = residuals(world, truth.layer, bos=True)
        measured, l0 = explained(sae, words), (sae.encode(words) > 0).sum(1).mean()
        low, high = {"wide": (0.95, 1.0), "narrow": (0.8, 0.99), "lossy": (0.4, 0.6)}[truth.kind]
        assert low <= measured <= high
        assert measured == pytest.approx(truth.explained_variance, abs=0.05)
        assert l0 == pytest.approx(truth.l0, rel=0.1)
        assert explained(sae, everything) < 0.2
        assert truth.explained_variance_with_bos < 0.2
        on_bos = (sae.encode(everything[:1]) > 0).sum()
        assert on_bos == pytest.approx(truth.l0_bos, abs=2)
        assert (
            on_bos > 3 * l0
        )  # 3.5 times for the smallest expansion here, about 5 to 22 at the default one
    norms = np.linalg.norm(residuals(world, 0, bos=True, n=1), axis=1)
    assert 50 < norms[0] / np.median(norms[1:]) < 100


def test_duplicates_fire_alike_under_other_indices(world: World) -> None:
    truth = world.planted.truth
    assert {d.layer for d in truth.duplicates} == set(
        range(world.model.config["num_hidden_layers"])
    )
    by_name, acts = {sae.name: sae for sae in truth.saes}, {}
    for name, sae in by_name.items():
        acts[name] = load_sae(sae).encode(residuals(world, sae.layer, bos=False))
    compared = 0
    for pair in truth.duplicates:
        (first, i), (second, j) = pair.first, pair.second
        a, b = acts[first][:, i], acts[second][:, j]
        if a.any():
            compared += 1
            assert np.corrcoef(a, b)[0, 1] >= 0.999, pair
        if by_name[first].kind == by_name[second].kind:
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert compared > 40
    assert sum(pair.first[1] == pair.second[1] for pair in truth.duplicates) < 0.2 * len(
        truth.duplicates
    )


def test_both_layouts_hold_the_same_features(world: World) -> None:
    for layer in range(world.model.config["num_hidden_layers"]):
        llama, gemma = (
            world.planted.truth.sae("wide", layer, layout)
            for layout in ("llama_scope", "gemma_scope")
        )
        where = {feature.direction: feature.index for feature in gemma.features}
        order = [where[feature.direction] for feature in llama.features]
        x = residuals(world, layer, bos=True, n=10)
        a, b = load_sae(llama).encode(x), load_sae(gemma).encode(x)[:, order]
        near = np.abs(a - b) > 1e-3  # only values on the threshold may fall to different sides
        assert near.mean() < 1e-4
        np.testing.assert_allclose(np.where(near, 0, a), np.where(near, 0, b), atol=1e-3)


def test_llama_scope_files_need_their_fold(world: World) -> None:
    truth = world.planted.truth.sae("wide", 1)
    assert truth.path.parent == world.planted.llama_scope
    config = json.loads((truth.path / "hyperparams.json").read_text())
    stored = load_file(truth.path / "checkpoints" / "final.safetensors")
    assert stored["encoder.weight"].shape == (config["d_sae"], config["d_model"])
    assert stored["decoder.weight"].shape == (config["d_model"], config["d_sae"])
    length = np.linalg.norm(stored["decoder.weight"], axis=0)
    norm = config["dataset_average_activation_norm"]["in"]
    x = residuals(world, 1, bos=False)
    assert norm == pytest.approx(np.linalg.norm(x, axis=1).mean(), rel=0.05)
    assert abs(norm / np.sqrt(config["d_model"]) - 1) > 0.1
    assert length.max() / length.min() > 2
    scale = np.sqrt(config["d_model"]) / norm
    theta = config["jump_relu_threshold"]
    no_norm = (x @ stored["encoder.weight"].T + stored["encoder.bias"]) * length > theta
    no_length = (scale * x @ stored["encoder.weight"].T + stored["encoder.bias"]) / scale > theta
    right = load_sae(truth).encode(x) > 0
    for wrong in (no_norm, no_length):
        assert (wrong != right).any(axis=1).mean() > 0.5
    assert not 1 / 3 < no_norm.sum(1).mean() / config["top_k"] < 3, (
        "a lost norm factor must fail the examination"
    )


def test_gemma_scope_holds_two_sparsities_per_site(world: World) -> None:
    for layer in range(world.model.config["num_hidden_layers"]):
        wide = world.planted.truth.sae("wide", layer, "gemma_scope")
        narrow = world.planted.truth.sae("narrow", layer)
        assert wide.path.parent == narrow.path.parent
        assert wide.path != narrow.path
        assert wide.path.is_relative_to(world.planted.gemma_scope)
        assert narrow.l0 < wide.l0
        for truth in (wide, narrow):
            assert truth.path.name == f"average_l0_{round(truth.l0)}"
        with np.load(narrow.path / "params.npz") as file:
            assert len(set(file["threshold"].tolist())) > 1


def test_full_reconstruction_through_the_lossy_sae_shows_an_effect_for_both_values(
    world: World,
) -> None:
    """The trap: one inert feature, two opposite values, the same "effect"; the delta edit shows
    there is none.
    """
    truth = world.planted.truth
    lossy = next(sae for sae in truth.saes if sae.kind == "lossy")
    sae, echo = load_sae(lossy), lossy.named("echo")
    assert lossy.path.parent == world.planted.lossy
    assert echo is not None
    assert echo.role == "inert"
    for prompt in prompts(world.planted, 6):
        clean = world.difference(prompt.ids)
        shift = world.difference(prompt.ids, {lossy.layer: rebuild(sae)}) - clean
        assert shift == pytest.approx(truth.drift_effect, abs=0.01)
        for value in (0.0, 8.0):
            rebuilt = world.difference(prompt.ids, {lossy.layer: rebuild(sae, echo.index, value)})
            assert rebuilt - clean == pytest.approx(truth.drift_effect, abs=0.01)
            kept = world.difference(prompt.ids, {lossy.layer: set_feature(sae, echo.index, value)})
            assert kept == pytest.approx(clean, abs=1e-5)


# The builder


@pytest.mark.slow
def test_the_same_arguments_write_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, again, other = (
        build_planted(tmp_path / name, **{**BUILDS["small"], "seed": seed})
        for name, seed in (("a", 1), ("b", 1), ("c", 7))
    )
    weights = [
        hashlib.sha256((p.model / "model.safetensors").read_bytes()).hexdigest()
        for p in (first, again, other)
    ]
    assert weights[0] == weights[1] != weights[2]
    for ours, theirs, foreign in zip(
        first.truth.saes, again.truth.saes, other.truth.saes, strict=True
    ):
        assert (ours.name, ours.features) == (theirs.name, theirs.features)
        assert ours.features != foreign.features
        a, b = load_sae(ours), load_sae(theirs)
        assert all((getattr(a, name) == getattr(b, name)).all() for name in vars(a))
    assert prompts(first, 5, seed=1) == prompts(again, 5, seed=1) != prompts(first, 5, seed=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_model": 20}, "d_model"),
        ({"d_model": 44}, "multiple of 8"),
        ({"n_layers": 2}, "three layers"),
        ({"lossy_layer": 9}, "lossy_layer"),
        ({"expansion": 2}, "expansion"),
    ],
)
def test_impossible_sizes_are_refused(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_planted(tmp_path, **arguments)
