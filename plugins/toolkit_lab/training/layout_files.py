"""Writing and reading SAEs in the two published layouts, Llama Scope (as released) and Gemma Scope
1.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from toolkit_lab.training.saes import Coder, Folded

RELEASE = "Lab-LXR-4x"


def save_llama_scope(
    root: Path, layer: int, coder: Coder, threshold: float, k: int, seed: int
) -> None:
    """Write one folder: hyperparams.json, lm_config.json, checkpoints/final.safetensors."""
    folder = root / RELEASE / f"Lab-L{layer}R-4x"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    d_model, d_sae = coder.decoder.shape
    point = f"blocks.{layer}.hook_resid_post"
    hyperparams = {
        "hook_point_in": point,
        "hook_point_out": point,
        "d_model": d_model,
        "d_sae": d_sae,
        "expansion_factor": d_sae // d_model,
        "act_fn": "jumprelu",
        "jump_relu_threshold": threshold,
        "top_k": k,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": coder.norm, "out": coder.norm},
        "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "use_glu_encoder": False,
        "dtype": "torch.bfloat16",
        "seed": seed,
    }
    _write_json(folder / "hyperparams.json", hyperparams)
    _write_json(
        folder / "lm_config.json",
        {"model_name": "lab", "d_model": d_model, "dtype": "torch.float32"},
    )
    tensors = {
        "encoder.weight": coder.encoder,
        "encoder.bias": coder.encoder_bias,
        "decoder.weight": coder.decoder,
        "decoder.bias": coder.decoder_bias,
    }
    stored = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(stored, folder / "checkpoints" / "final.safetensors")


def load_llama_scope(root: Path, layer: int) -> Folded:
    """Read one folder and fold it."""
    folder = root / RELEASE / f"Lab-L{layer}R-4x"
    hyperparams = json.loads((folder / "hyperparams.json").read_text())
    raw = {
        name: tensor.float()
        for name, tensor in load_file(folder / "checkpoints" / "final.safetensors").items()
    }
    scale = hyperparams["d_model"] ** 0.5 / hyperparams["dataset_average_activation_norm"]["in"]
    lengths = raw["decoder.weight"].norm(dim=0)
    return Folded(
        raw["encoder.weight"].T * lengths,
        raw["encoder.bias"] * lengths / scale,
        (raw["decoder.weight"] / lengths).T,
        raw["decoder.bias"] / scale,
        torch.tensor(hyperparams["jump_relu_threshold"]),
    )


def save_gemma_scope(root: Path, layer: int, sae: Folded, average_l0: int) -> None:
    """Write one params.npz; values are rounded so that the archive compresses well, thresholds are
    not.
    """
    d_sae = sae.w_enc.shape[1]
    folder = root / f"layer_{layer}" / f"width_{d_sae // 1024}k" / f"average_l0_{average_l0}"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"W_enc": sae.w_enc, "W_dec": sae.w_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    stored: dict[str, Any] = {
        name: value.to(torch.bfloat16).float().numpy() for name, value in arrays.items()
    }
    np.savez_compressed(folder / "params.npz", **stored, threshold=sae.threshold.float().numpy())


def load_gemma_scope(path: Path) -> Folded:
    """Read one params.npz."""
    with np.load(path) as stored:
        names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
        return Folded(*(torch.from_numpy(stored[name]) for name in names))


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
