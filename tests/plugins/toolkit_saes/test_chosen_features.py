"""Chosen features of every layout, read without the others: what `encode` gives for them, from the
pages of their file alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import DataError
from toolkit.saes import Sae
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded_saes import check_sae
from toolkit_saes.encode.matrix import StoredMatrix
from toolkit_saes.layouts import gemma_scope, llama_scope, saelens


def llama(folder: Path, **settings: Any) -> Any:
    write.llama(folder / "x-L3R-8x", **settings)
    return llama_scope.load(llama_scope.LlamaScope(path=str(folder)), SilentReporter())[0]


def openmoss(folder: Path, **settings: Any) -> Any:
    write.openmoss(folder / "L3R", **settings)
    return llama_scope.load(llama_scope.LlamaScope(path=str(folder)), SilentReporter())[0]


def gemma(folder: Path) -> Any:
    write.gemma(folder / "layer_3" / "width_16k" / "average_l0_7" / "params.npz")
    return gemma_scope.load(gemma_scope.GemmaScope(path=str(folder)), SilentReporter())[0]


def embedding(folder: Path) -> Any:
    write.gemma(folder / "embedding" / "width_4k" / "average_l0_6" / "params.npz")
    params = gemma_scope.GemmaScope(path=str(folder), site="embedding")
    return gemma_scope.load(params, SilentReporter())[0]


def sae_lens(folder: Path, factor: float | None = None, **settings: Any) -> Any:
    write.saelens(folder / "sae", **settings)
    params = saelens.SaeLens(path=str(folder), norm_scaling_factor=factor)
    return saelens.load(params, SilentReporter())[0]


POINTWISE: dict[str, Callable[[Path], Any]] = {
    "llama": llama,
    "llama, unequal norms": lambda folder: llama(folder, norms=(2, 8)),
    "openmoss 2025": lambda folder: openmoss(folder, new=False),
    "openmoss 2026": openmoss,
    "openmoss without decoder norms": lambda folder: openmoss(
        folder, sparsity_include_decoder_norm=False
    ),
    "openmoss relu": lambda folder: openmoss(folder, act_fn="relu"),
    "openmoss token-wise": lambda folder: openmoss(folder, norm_activation="token-wise"),
    "gemma": gemma,
    "gemma embedding": embedding,
    "saelens": sae_lens,
    "saelens jumprelu": lambda folder: sae_lens(folder, architecture="jumprelu"),
    "saelens gated": lambda folder: sae_lens(folder, architecture="gated"),
    "saelens b_dec not subtracted": lambda folder: sae_lens(folder, apply_b_dec_to_input=False),
    "saelens row norm": lambda folder: sae_lens(
        folder, normalize_activations="constant_norm_rescale"
    ),
    "saelens layer norm": lambda folder: sae_lens(folder, normalize_activations="layer_norm"),
    "saelens factor": lambda folder: sae_lens(
        folder, 0.7, normalize_activations="expected_average_only_in"
    ),
    "saelens transcoder": lambda folder: sae_lens(folder, architecture="transcoder"),
    "saelens skip transcoder": lambda folder: sae_lens(
        folder, architecture="jumprelu_skip_transcoder"
    ),
}
COMPETING: dict[str, Callable[[Path], Any]] = {
    "openmoss topk": lambda folder: openmoss(folder, act_fn="topk", top_k=3),
    "saelens topk": lambda folder: sae_lens(folder, architecture="topk"),
    "saelens topk by decoder norm": lambda folder: sae_lens(
        folder, architecture="topk", rescale_acts_by_decoder_norm=True
    ),
    "saelens abstopk": lambda folder: sae_lens(folder, architecture="abstopk"),
}
LAYOUTS = POINTWISE | COMPETING


@pytest.fixture(scope="module", params=LAYOUTS)
def sae(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One SAE of each layout."""
    return LAYOUTS[request.param](tmp_path_factory.mktemp("sae"))


def near(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-6 of the largest number."""
    assert result.shape == expected.shape
    assert float((result - expected).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([1e-2, 1.0, 30.0]),
    features=st.lists(st.integers(0, write.WIDTH - 1), min_size=1, max_size=2 * write.WIDTH),
)
def test_chosen_features_are_what_encode_gives(
    sae: Sae, seed: int, size: float, features: list[int]
) -> None:
    """In any order, also twice, as a list or a tensor."""
    rows = size * write.numbers(4, write.INPUTS, seed=seed)
    expected = sae.encode(rows)[:, features]
    near(sae.activations_of(rows, features), expected)
    near(sae.activations_of(rows, torch.tensor(features)), expected)


def test_which_saes_are_pointwise(tmp_path: Path) -> None:
    for number, (name, make) in enumerate(LAYOUTS.items()):
        assert make(tmp_path / str(number)).pointwise is (name in POINTWISE), name


def test_pre_activations_above_thresholds_are_the_activations(sae: Sae) -> None:
    """From columns, biases and thresholds by hand. Rows at a threshold are no part of this."""
    rows, features = 3 * write.numbers(200, write.INPUTS, seed=7), list(range(write.WIDTH))[::-1]
    before = sae.normalise(rows) @ sae.encoder_columns(features).T + sae.encoder_bias(features)
    near(sae.preactivations(rows, features), before)
    expected = sae.encode(rows)[:, features]
    if not sae.pointwise:
        fired = expected != 0
        near(before[fired], expected[fired])
        with pytest.raises(DataError, match=r"has no thresholds: its gate \((abs)?topk\) lets"):
            sae.thresholds(features)
        return
    thresholds = sae.thresholds(features)
    assert bool((thresholds >= 0).all())
    clear = (before - thresholds).abs() > 1e-4
    assert float(clear.float().mean()) > 0.9
    result = before * (before > thresholds)
    scale = max(1.0, float(expected.abs().max()))
    assert float((result - expected)[clear].abs().max()) <= 1e-5 * scale
    assert 0.02 < float((expected[clear] != 0).float().mean()) < 0.98


def test_the_contract_holds(sae: Any) -> None:
    """All of it, but for SAEs that restore the norm of each row, which are not decoded alone."""
    if sae.weights(torch.empty(0)).norm == "none" or not sae.weights(torch.empty(0)).undo_norm:
        check_sae(sae)
        return
    with pytest.raises(DataError, match=r"restores the norm of each row"):
        check_sae(sae)


def test_matrices_stay_in_the_file(sae: Any) -> None:
    """Reading chosen features loads nothing else; they are the same once everything is loaded."""
    sae.release_memory()
    before = [sae.encoder_columns([3, 1]), sae.encoder_bias([3, 1])]
    assert sae._loaded is None
    assert isinstance(sae._mapped.w_enc.source, StoredMatrix)
    assert isinstance(sae._mapped.w_dec.source, StoredMatrix)
    sae.encode(write.numbers(2, write.INPUTS, seed=1))
    for result, expected in zip(
        [sae.encoder_columns([3, 1]), sae.encoder_bias([3, 1])], before, strict=True
    ):
        assert torch.equal(result, expected)
    sae.release_memory()
    assert sae._loaded is None
    assert sae._mapped is None


@pytest.mark.parametrize("wrong", [-1, write.WIDTH])
def test_a_feature_that_is_not_there(sae: Sae, wrong: int) -> None:
    rows = write.numbers(2, write.INPUTS, seed=1)
    for call in (sae.encoder_columns, sae.encoder_bias, lambda it: sae.activations_of(rows, it)):
        with pytest.raises(DataError) as caught:
            call([2, wrong])
        assert str(caught.value) == (
            f"SAE {sae.name} has no feature {wrong}; its features are 0 to {write.WIDTH - 1}."
        )


class Plain(Sae):
    """An adapter that offers whole rows only."""

    name, hookpoint, release, digest, recipe = "plain", "resid_post.1", "r", "d", "relu"
    width, inputs = 5, 4

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat((rows, rows[:, :1]), dim=1).relu()

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations[:, :4]

    def decoder_rows(self, features: Any) -> torch.Tensor:
        return torch.eye(5)[:, :4][features]


def test_an_adapter_without_columns() -> None:
    """Its activations come from whole rows; what needs columns says what to write."""
    rows, sae = write.numbers(3, 4, seed=2), Plain()
    assert not sae.pointwise
    assert torch.equal(sae.activations_of(rows, [4, 1]), sae.encode(rows)[:, [4, 1]])
    for call in (sae.encoder_columns, sae.encoder_bias, sae.thresholds):
        with pytest.raises(DataError, match=r"^SAE plain has no encoder columns, .*override"):
            call([0])
    with pytest.raises(DataError, match=r"^SAE plain has no encoder columns"):
        sae.preactivations(rows, [0])
