"""Five classic mistakes, put into loaders that are right: each is found by the examination and
named.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.errors import BadInput
from toolkit.hookpoints import hookpoint
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_lab import saes_path
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.weights import Weights
from toolkit_saes.examine import alternatives as _alternatives
from toolkit_saes.examine import stage as _examine
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.saelens import SaeLens

FITS = ""


def message_of(world: Any, sae: CanonicalSae, texts: int = 6) -> str:
    """What the examination says of an SAE where it is used."""
    results = dict(_examine.examine(world.work([sae], _examine.Examine(), world.texts[:texts])))
    return str(results["saes"].to_pylist()[0]["message"])


def whole(result: Matrix) -> torch.Tensor:
    """(features, numbers), as it is run."""
    return result.rows(range(result.shape[0]))


def thresholds(weights: Weights) -> torch.Tensor:
    """One a feature."""
    assert weights.threshold is not None
    return weights.threshold.expand(weights.w_enc.shape[0]).contiguous()


def as_openmoss(folder: Path, right: Weights, k: int) -> list[CanonicalSae]:
    """The lab's SAE of layer 2 in OpenMOSS's layout: training units, one threshold per feature."""
    known = {
        "sae_type": "sae",
        "hook_point_in": "blocks.2.hook_resid_post",
        "d_model": right.w_enc.shape[1],
        "expansion_factor": right.w_enc.shape[0] / right.w_enc.shape[1],
        "act_fn": "batchtopk",
        "top_k": k,
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
    }
    write.write_json(folder / "L2R" / "config.json", known)
    norm, scale = 50.0, right.w_enc.shape[1] ** 0.5 / 50.0
    lengths = torch.linspace(0.5, 2, right.w_enc.shape[0])
    tensors = {
        "W_E": whole(right.w_enc).T / lengths,
        "b_E": right.b_enc * scale / lengths,
        "W_D": whole(right.w_dec) * lengths[:, None],
        "b_D": right.b_dec * scale,
        "activation_function.log_jumprelu_threshold": (thresholds(right) * scale).log(),
        "dataset_average_activation_norm.blocks.2.hook_resid_post": torch.tensor(norm),
    }
    write.write_tensors(folder / "L2R" / "sae_weights.safetensors", dict(tensors))
    return _llama_scope.load(LlamaScope(path=str(folder)), SilentReporter())


def as_saelens(folder: Path, right: Weights) -> list[CanonicalSae]:
    """The same as SAELens writes it."""
    width = right.w_enc.shape[0]
    known = {
        "architecture": "jumprelu",
        "d_in": right.w_enc.shape[1],
        "d_sae": width,
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {"hook_name": "blocks.2.hook_resid_post", "sae_lens_version": "6.54.12"},
    }
    write.write_json(folder / "cfg.json", known)
    tensors = {
        "W_enc": whole(right.w_enc).T,
        "b_enc": right.b_enc,
        "W_dec": whole(right.w_dec),
        "b_dec": right.b_dec,
    }
    write.write_tensors(
        folder / "sae_weights.safetensors", {**tensors, "threshold": thresholds(right)}
    )
    return _saelens.load(SaeLens(path=str(folder)), SilentReporter())


@pytest.fixture(params=["llama_scope", "openmoss", "gemma_scope", "saelens"])
def right(request: pytest.FixtureRequest, tmp_path: Path) -> CanonicalSae:
    """The lab's SAE of layer 2, from each layout."""
    if request.param == "gemma_scope":
        params = GemmaScope(path="package:toolkit_lab/files/gemma_scope", l0=(30,))
        return _gemma_scope.load(params, SilentReporter())[0]
    (sae,) = _llama_scope.load(LlamaScope(path=str(saes_path()), layers=2), SilentReporter())
    if request.param == "llama_scope":
        return sae
    weights = sae.weights(torch.empty(0))
    (result,) = (
        as_openmoss(tmp_path, weights, 24)
        if request.param == "openmoss"
        else as_saelens(tmp_path, weights)
    )
    result.declared_l0 = 24
    return result


def test_the_right_one_fits(lab: Any, right: CanonicalSae) -> None:
    assert message_of(lab, right) == FITS


def changed(sae: CanonicalSae, change: Callable[[Weights], Weights]) -> CanonicalSae:
    other = sae.run_as(change)
    other.declared_l0 = sae.declared_l0
    return other


def test_a_dropped_threshold(lab: Any, right: CanonicalSae) -> None:
    message = message_of(lab, changed(right, lambda weights: replace(weights, gate="relu")))
    assert message.endswith("he threshold is missing, or is in other units than the activations.")


def test_b_dec_subtracted(lab: Any, right: CanonicalSae) -> None:
    message = message_of(lab, changed(right, lambda weights: replace(weights, subtract_b_dec=True)))
    assert "At resid_post.2 (b_dec not subtracted) it would: L0 " in message
    assert message.endswith("b_dec is subtracted from the inputs, and should not be.")


def moved(place: str) -> CanonicalSae:
    """The lab's SAE of layer 2, taken for one of another place."""
    (sae,) = _llama_scope.load(LlamaScope(path=str(saes_path()), layers=2), SilentReporter())
    return CanonicalSae(replace(sae._facts, hookpoint=place), sae._read)


@pytest.mark.parametrize("layer", [1, 3])
def test_a_layer_off_by_one(lab: Any, layer: int) -> None:
    message = message_of(lab, moved(f"resid_post.{layer}"))
    assert f"does not fit at resid_post.{layer}: " in message
    assert "At resid_post.2 it would: L0 " in message
    assert message.endswith("The layer is off by one.")


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "resid_mid"])
def test_a_wrong_site(lab: Any, site: str) -> None:
    message = message_of(lab, moved(f"{site}.2"))
    assert f"does not fit at {site}.2: " in message
    assert "At resid_post.2 it would: L0 " in message
    assert message.endswith("It belongs to another site.")


def test_a_dropped_norm_factor(lab: Any, tmp_path: Path) -> None:
    """As a loader would that takes the norms for sqrt(d)."""
    folder = Path(shutil.copytree(saes_path() / "Lab-L2R-4x", tmp_path / "Lab-L2R-4x"))
    known = json.loads((folder / "hyperparams.json").read_text())
    known["dataset_average_activation_norm"] = dict.fromkeys(("in", "out"), known["d_model"] ** 0.5)
    (folder / "hyperparams.json").write_text(json.dumps(known))
    (sae,) = _llama_scope.load(LlamaScope(path=str(tmp_path)), SilentReporter())
    message = message_of(lab, sae)
    assert "At resid_post.2 (inputs times 0.21" in message
    assert "A norm factor was dropped: inputs and outputs are to be scaled by 0.21" in message


def test_a_norm_factor_dropped_from_openmoss(lab: Any, tmp_path: Path) -> None:
    (plain,) = _llama_scope.load(LlamaScope(path=str(saes_path()), layers=2), SilentReporter())
    (sae,) = as_openmoss(tmp_path, plain.weights(torch.empty(0)), 24)
    message = message_of(
        lab, changed(sae, lambda weights: replace(weights, scale_in=1.0, scale_out=1.0))
    )
    assert "does not fit" in message
    assert "A norm factor was dropped" in message


def test_the_place_before_the_post_norm() -> None:
    """Where a model has both, an SAE of the one that is used at the other is told from it."""
    nothing = Matrix(torch.empty(0, 4))
    facts = Facts("S", "r", "mlp_out.2", 7, 4, "d", "r", None)
    sae = CanonicalSae(facts, lambda: Weights(nothing, torch.empty(0), nothing, torch.empty(0)))
    shown = {f"{site}.2": torch.zeros(3, 4) for site in ("mlp_out", "mlp_raw", "resid_post")} | {
        "attn_z.2": torch.zeros(3, 5)
    }
    results = {str(place): cause for place, cause in _alternatives.other_sites(sae, shown)}
    assert results == {
        "resid_post.2": _alternatives.SITE,
        "mlp_raw.2": _alternatives.BEFORE,
    }
    other = CanonicalSae(replace(facts, hookpoint="mlp_raw.2"), sae._read)
    assert (
        dict((str(place), cause) for place, cause in _alternatives.other_sites(other, shown))[
            "mlp_out.2"
        ]
        == _alternatives.BEHIND
    )


def test_what_only_fits_with_bos(small: Any) -> None:
    """Features that nothing but BOS sets off, and an L0 declared with it counted in."""
    width = small.model.width
    eye, streams = (
        torch.eye(width),
        small.model.run(small.texts[:6], ["resid_post.2"])["resid_post.2"],
    )
    far = float(
        torch.cat([streams[index, 1 : len(ids)] for index, ids in enumerate(small.texts[:6])])
        .abs()
        .max()
    )
    weights = Weights(
        Matrix(torch.cat([eye, -eye])),
        torch.zeros(2 * width),
        Matrix(torch.cat([eye, -eye])),
        torch.zeros(width),
        torch.tensor(far),
    )
    fired = int((streams[0, 0].abs() > far).sum())
    distinct = list(dict.fromkeys(map(tuple, small.texts[:6])))
    declared = fired * len(distinct) / sum(map(len, distinct))
    facts = Facts("B", "r", "resid_post.2", 2 * width, width, "d", "r", declared)
    message = message_of(small, CanonicalSae(facts, lambda: weights))
    assert f"At resid_post.2 (with BOS) it would: L0 {declared:.1f}, explained variance " in message
    assert message.endswith(_alternatives.BOS)


def test_a_transcoder_is_compared_with_what_it_writes(lab: Any) -> None:
    """A linear map from one site to the other, least squares, as a transcoder: it fits there and
    not at another layer.
    """
    streams = {name: _rows(lab, name) for name in ("mlp_in_normed.1", "mlp_out.1")}
    inputs, expected = streams["mlp_in_normed.1"], streams["mlp_out.1"]
    both = torch.cat([inputs, -inputs], dim=1).relu()
    solved = torch.linalg.lstsq(
        torch.cat([both, torch.ones(len(both), 1)], dim=1).double(), expected.double()
    ).solution.float()
    eye = torch.eye(inputs.shape[1])
    w_enc, w_dec = Matrix(torch.cat([eye, -eye])), Matrix(solved[:-1])
    weights = Weights(w_enc, torch.zeros(both.shape[1]), w_dec, solved[-1], gate="relu")
    facts = Facts(
        "T",
        "r",
        "mlp_in_normed.1",
        both.shape[1],
        inputs.shape[1],
        "d",
        "r",
        None,
        ("mlp_out.1", expected.shape[1]),
    )
    sae = CanonicalSae(facts, lambda: weights)
    result = dict(_examine.examine(lab.work([sae], _examine.Examine(), lab.texts)))[
        "saes"
    ].to_pylist()
    assert [row["site"] for row in result][:3] == [
        "mlp_in_normed.1",
        "mlp_in_normed.0 -> mlp_out.0",
        "mlp_in_normed.2 -> mlp_out.2",
    ]
    assert result[0]["verdict"] == "fits", result[0]["message"]
    assert result[0]["explained_variance"] > result[1]["explained_variance"]


def _rows(lab: Any, name: str) -> torch.Tensor:
    result = lab.model.run(lab.texts, [name])[name]
    return torch.cat([result[index, 1 : len(ids)] for index, ids in enumerate(lab.texts)]).float()


def test_a_model_that_does_not_show_a_site() -> None:
    class Shy:
        def run(self, batch: Any, capture: list[str]) -> dict[str, Any]:
            if hookpoint(capture[0]).site != "resid_post":
                raise BadInput("cannot be captured")
            return {}

    assert _alternatives.shows(Shy(), "resid_post.1")  # type: ignore[arg-type]
    assert not _alternatives.shows(Shy(), "mlp_raw.1")  # type: ignore[arg-type]
