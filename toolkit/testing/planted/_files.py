"""Writes a dictionary in the file layouts of Llama Scope and Gemma Scope.

Both describe the same SAE. The Llama Scope files keep the training-space tensors (inputs scaled
to a norm of sqrt(d), decoder columns not unit) with one threshold in folded units, so a reader has
to fold them. The Gemma Scope file is already folded and has a threshold per feature. Tensors are
float32 in both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from toolkit.statistics.randomness import generator
from toolkit.testing.planted._saes import Dictionary


def write_gemma_scope(folder: Path, dictionary: Dictionary) -> None:
    """Write params.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "params.npz",
        W_enc=dictionary.encoder.astype(np.float32),
        b_enc=dictionary.bias.astype(np.float32),
        W_dec=dictionary.decoder.astype(np.float32),
        b_dec=dictionary.decoder_bias.astype(np.float32),
        threshold=dictionary.threshold.astype(np.float32),
    )


def write_llama_scope(
    folder: Path,
    dictionary: Dictionary,
    *,
    seed: int,
    layer: int,
    norm: float,
    l0: float,
    expansion: int,
) -> None:
    """Write hyperparams.json, lm_config.json and checkpoints/final.safetensors; `norm` is the mean
    residual norm.
    """
    if len(set(dictionary.threshold)) != 1:
        raise ValueError("Llama Scope keeps one threshold for all features")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    d_model = dictionary.decoder.shape[1]
    scale = float(np.sqrt(d_model)) / norm
    length = generator(seed, "decoder norm", folder.name).uniform(0.8, 2.5, len(dictionary.bias))
    tensors: dict[str, npt.NDArray[np.float64]] = {
        "encoder.weight": dictionary.encoder.T / length[:, None],
        "encoder.bias": dictionary.bias * scale / length,
        "decoder.weight": dictionary.decoder.T * length,
        "decoder.bias": dictionary.decoder_bias * scale,
    }
    save_file(_stored(tensors), str(folder / "checkpoints" / "final.safetensors"))
    _write_json(folder / "hyperparams.json", _hyperparams(dictionary, layer, norm, l0, expansion))
    _write_json(
        folder / "lm_config.json",
        {"model_name": "planted", "d_model": d_model, "dtype": "torch.float32"},
    )


def _hyperparams(
    dictionary: Dictionary, layer: int, norm: float, l0: float, expansion: int
) -> dict[str, Any]:
    n_features, d_model = dictionary.decoder.shape
    return {
        "hook_point_in": f"blocks.{layer}.hook_resid_post",
        "hook_point_out": f"blocks.{layer}.hook_resid_post",
        "d_model": d_model,
        "d_sae": n_features,
        "expansion_factor": expansion,
        "act_fn": "jumprelu",
        "jump_relu_threshold": float(dictionary.threshold[0]),
        "top_k": round(l0),
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
        "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "use_glu_encoder": False,
        "dtype": "torch.float32",
    }


def _stored(tensors: dict[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.float32]]:
    return {
        name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
