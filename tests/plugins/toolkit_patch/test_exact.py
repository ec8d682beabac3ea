"""Edits of a screen are exact: equal to a full pass of the plain model with a hand-written hook, in
every family, for many rows and several layers at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.hooks import changed_output
from tests.plugins.toolkit_hf.families import FAMILIES, WIDTH, build
from toolkit.saes import Sae
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_patch.screen.arms import SpaceEdits
from toolkit_patch.screen.outcomes import Outcomes
from toolkit_patch.screen.passes import push, read_prompt

FEATURES = 24
OUTCOMES = Outcomes(("up", "down", "other"), (tuple(range(90)), tuple(range(90, 180))))


class TinySae(Sae):
    """A random JumpReLU SAE of the stream after one block, with what it leaves out."""

    def __init__(self, layer: int, width: int | None = None) -> None:
        size = width or WIDTH
        rng = torch.Generator().manual_seed(layer)
        self.name, self.release, self.hookpoint = f"tiny-{layer}", "tiny", f"resid_post.{layer}"
        self.width, self.inputs, self.digest, self.recipe = FEATURES, size, self.name, "jumprelu"
        self.pointwise = True
        self._columns = torch.randn((FEATURES, size), generator=rng) / size**0.5
        self._rows = torch.randn((FEATURES, size), generator=rng)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        before = rows @ self._columns.T + 0.1
        return before * (before > 0.2)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations @ self._rows

    def decoder_rows(self, features: Any) -> torch.Tensor:
        return self._rows[torch.as_tensor(features)]

    def encoder_columns(self, features: Any) -> torch.Tensor:
        return self._columns[torch.as_tensor(features)]

    def encoder_bias(self, features: Any) -> torch.Tensor:
        return torch.full((len(features),), 0.1)

    def thresholds(self, features: Any) -> torch.Tensor:
        return torch.full((len(features),), 0.2)


def edits_of(sae: Sae, count: int = 6) -> SpaceEdits:
    features = torch.arange(count)
    values = torch.stack([torch.linspace(0, 3, count), torch.linspace(2, 0, count)], dim=1)
    rows = sae.decoder_rows(features)
    return SpaceEdits(sae, np.arange(count), features, values, rows, rows.flip(0), None)


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2", "qwen2"])
def both(request, tmp_path_factory):
    """The same checkpoint by the toolkit's loader and by transformers alone."""
    family = FAMILIES[request.param]
    folder = build(family, tmp_path_factory.mktemp(request.param))
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    blocks = plain.get_submodule(family.blocks)
    ids = np.random.default_rng(1).integers(5, 250, 21).tolist()
    return load(HuggingFace(path=str(folder), device="cpu"), SilentReporter()), plain, blocks, ids


def hooked(
    plain: Any, block: Any, ids: list[int], stream: torch.Tensor, position: int = -1
) -> np.ndarray[Any, Any]:
    """Probabilities of the outcomes after a full pass in which a token's stream behind a block is
    replaced, by default the last one's.
    """

    def replaced(before: torch.Tensor) -> torch.Tensor:
        after = before.clone()
        after[0, position] = stream
        return after

    with changed_output(block, replaced), torch.inference_mode():
        logits = plain(torch.tensor([ids])).logits[0, -1].double()
    chances = torch.softmax(logits, 0)
    listed = [float(chances[list(tokens)].sum()) for tokens in OUTCOMES.tokens]
    return np.array([*listed, 1 - sum(listed)])


def test_every_arm_equals_a_full_pass_with_a_hook(both):
    model, plain, blocks, ids = both
    spaces = [edits_of(TinySae(layer)) for layer in (0, 1, 3)]
    reading = read_prompt(model, OUTCOMES, ids, [edits.sae.hookpoint for edits in spaces])
    made = [
        (edits.sae.layer, rows)
        for edits in spaces
        for _, rows in edits.edits(reading, ("reconstruct", "random_feature"))
    ]
    layers = torch.cat([torch.full((len(rows),), layer) for layer, rows in made])
    streams = torch.cat([rows for _, rows in made])
    result, divergence = push(model, OUTCOMES, reading, layers, streams)
    expected = np.stack(
        [
            hooked(plain, blocks[layer], ids, row)
            for layer, row in zip(layers.tolist(), streams, strict=True)
        ]
    )
    assert len(streams) > 100
    assert abs(expected - expected[0]).max() > 0.05
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert (divergence >= 0).all()


@pytest.mark.parametrize("position", [0, 7, 19])
def test_a_token_in_the_middle_equals_a_full_pass_with_a_hook(both, position):
    model, plain, blocks, ids = both
    spaces = [edits_of(TinySae(layer), 3) for layer in (0, 2)]
    hookpoints = [edits.sae.hookpoint for edits in spaces]
    reading = read_prompt(model, OUTCOMES, ids, hookpoints, position)
    made = [(edits.sae.layer, rows) for edits in spaces for _, rows in edits.edits(reading, ())]
    layers = torch.cat([torch.full((len(rows),), layer) for layer, rows in made])
    streams = torch.cat([rows for _, rows in made])
    result, _ = push(model, OUTCOMES, reading, layers, streams)
    expected = np.stack(
        [
            hooked(plain, blocks[layer], ids, row, position)
            for layer, row in zip(layers.tolist(), streams, strict=True)
        ]
    )
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert abs(expected - expected[0]).max() > 1e-3


def test_rows_do_not_depend_on_who_shares_their_batch(both):
    model, _, _, ids = both
    edits = edits_of(TinySae(1))
    reading = read_prompt(model, OUTCOMES, ids, [edits.sae.hookpoint])
    streams = torch.cat([rows for _, rows in edits.edits(reading, ())])
    layers = torch.full((len(streams),), edits.sae.layer)
    together, _ = push(model, OUTCOMES, reading, layers, streams)
    alone = [push(model, OUTCOMES, reading, layers[:1], row[None])[0][0] for row in streams]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_a_feature_set_to_its_own_value_changes_nothing(both):
    model, _, _, ids = both
    edits = edits_of(TinySae(2))
    reading = read_prompt(model, OUTCOMES, ids, [edits.sae.hookpoint])
    activations = edits.own_values(reading)
    unchanged = SpaceEdits(
        edits.sae,
        edits.members,
        edits.features,
        activations[:, None].expand(-1, 2),
        edits.rows,
        None,
        None,
    )
    arms = dict(unchanged.edits(reading, ()))
    assert torch.equal(
        arms["set_a"], reading.streams[edits.sae.hookpoint].expand(len(activations), -1)
    )


def test_all_features_and_the_error_give_the_stream_back(both):
    model, _, _, ids = both
    sae = TinySae(1)
    reading = read_prompt(model, OUTCOMES, ids, [sae.hookpoint])
    stream = reading.streams[sae.hookpoint]
    active = sae.encode(stream[None])[0]
    error = stream - sae.reconstruct(stream[None])[0]
    torch.testing.assert_close(active @ sae.decoder_rows(range(FEATURES)) + error, stream)


def test_own_values_are_those_of_the_whole_encoder(both):
    model, _, _, ids = both
    edits = edits_of(TinySae(3), FEATURES)
    reading = read_prompt(model, OUTCOMES, ids, [edits.sae.hookpoint])
    whole = edits.sae.encode(reading.streams[edits.sae.hookpoint][None])[0]
    assert 0 < int((whole > 0).sum()) < FEATURES
    torch.testing.assert_close(edits.own_values(reading), whole)
