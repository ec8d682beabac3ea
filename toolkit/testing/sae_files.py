"""Write small random SAEs in each published layout, for tests of adapters.

Every writer takes settings and tensors that replace its defaults; None leaves one out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

INPUTS, WIDTH, OUTPUTS = 6, 11, 5
HOOK = "blocks.3.hook_resid_post"


def numbers(*shape: int, seed: int) -> Tensor:
    """Draw normal numbers from a seed."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _without_none(known: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in known.items() if value is not None}


def write_json(file: Path, known: dict[str, Any]) -> None:
    """Write a JSON config, leaving out values that are None."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_without_none(known)))


def write_tensors(file: Path, tensors: dict[str, Tensor | None]) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}, file
    )


def openmoss(
    folder: Path,
    *,
    new: bool = True,
    norms: tuple[float, float] = (3.0, 3.0),
    tensors: Any = None,
    **settings: Any,
) -> dict[str, Tensor]:
    """Write OpenMOSS's layout of 2026 or 2025; returns the tensors as x W_E + b_E and f W_D + b_D
    use them.
    """
    known = {
        "sae_type": "sae",
        "hook_point_in": HOOK,
        "hook_point_out": HOOK,
        "d_model": INPUTS,
        "expansion_factor": (WIDTH + 0.5) / INPUTS,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        **settings,
    }
    write_json(folder / "config.json", known)
    used = {
        "W_E": numbers(INPUTS, WIDTH, seed=1),
        "b_E": numbers(WIDTH, seed=2) / 4,
        "W_D": numbers(WIDTH, INPUTS, seed=3),
        "b_D": numbers(INPUTS, seed=4),
        "log": numbers(WIDTH, seed=5) / 2,
    }
    names = ("W_E", "b_E", "W_D", "b_D", "activation_function.log_jumprelu_threshold")
    if not new:
        names = (
            "encoder.weight",
            "encoder.bias",
            "decoder.weight",
            "decoder.bias",
            "log_jumprelu_threshold",
        )
    turned = {
        name: tensor if new or tensor.ndim == 1 else tensor.T for name, tensor in used.items()
    }
    stored: dict[str, Any] = dict(zip(names, turned.values(), strict=True))
    for point, norm in zip((known["hook_point_in"], known["hook_point_out"]), norms, strict=True):
        stored[f"dataset_average_activation_norm.{point}"] = used["b_D"].new_tensor(norm)
    write_tensors(folder / "sae_weights.safetensors", {**stored, **(tensors or {})})
    return used


def saelens(
    folder: Path, architecture: str = "standard", *, tensors: Any = None, **settings: Any
) -> dict[str, Tensor]:
    """Write SAELens's own files, as version 6 does."""
    transcoder = "transcoder" in architecture
    outputs = OUTPUTS if transcoder else INPUTS
    metadata = {
        "hook_name": "blocks.3.ln2.hook_normalized" if transcoder else HOOK,
        "sae_lens_version": "6.54.12",
    }
    if transcoder:
        metadata["hook_name_out"] = "blocks.3.hook_mlp_out"
    known = {
        "architecture": architecture,
        "d_in": INPUTS,
        "d_sae": WIDTH,
        "d_out": OUTPUTS if transcoder else None,
        "k": 3 if "topk" in architecture else None,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not transcoder,
        "normalize_activations": "none",
        "metadata": metadata,
        **settings,
    }
    write_json(folder / "cfg.json", known)
    made: dict[str, Tensor] = {
        "W_enc": numbers(INPUTS, WIDTH, seed=1),
        "W_dec": numbers(WIDTH, outputs, seed=2),
        "b_dec": numbers(outputs, seed=3),
    }
    extra: tuple[str, ...] = ("b_gate", "b_mag", "r_mag") if architecture == "gated" else ("b_enc",)
    extra += ("threshold",) if "jumprelu" in architecture else ()
    made |= {name: numbers(WIDTH, seed=10 + index) / 2 for index, name in enumerate(extra)}
    if "threshold" in made:
        made["threshold"] = made["threshold"].abs()
    if "skip" in architecture:
        made["W_skip"] = numbers(OUTPUTS, INPUTS, seed=20)
    write_tensors(folder / "sae_weights.safetensors", {**made, **(tensors or {})})
    return {
        **made,
        **{name: tensor for name, tensor in (tensors or {}).items() if tensor is not None},
    }


def gemma(
    file: Path, inputs: int = INPUTS, outputs: int | None = None, **changes: Any
) -> dict[str, np.ndarray[Any, Any]]:
    """Write Gemma Scope's archive."""
    import numpy as np

    rng, outputs = np.random.default_rng(0), outputs or inputs
    arrays: dict[str, Any] = {
        "W_enc": rng.standard_normal((inputs, WIDTH)).astype(np.float32),
        "b_enc": rng.standard_normal(WIDTH).astype(np.float32),
        "W_dec": rng.standard_normal((WIDTH, outputs)).astype(np.float32),
        "b_dec": rng.standard_normal(outputs).astype(np.float32),
        "threshold": np.abs(rng.standard_normal(WIDTH)).astype(np.float32),
        **changes,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **_without_none(arrays))
    return arrays


def llama(
    folder: Path, hook: str = HOOK, out: str | None = None, tensors: Any = None, **settings: Any
) -> dict[str, Tensor]:
    """Write Llama Scope's original layout."""
    known = {
        "hook_point_in": hook,
        "hook_point_out": out or hook,
        "d_model": INPUTS,
        "d_sae": WIDTH,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.4,
        "dataset_average_activation_norm": {"in": 3.0, "out": 3.0},
        "top_k": 50,
        **settings,
    }
    write_json(folder / "hyperparams.json", known)
    made = {
        "encoder.weight": numbers(WIDTH, INPUTS, seed=1),
        "encoder.bias": numbers(WIDTH, seed=2),
        "decoder.weight": numbers(INPUTS, WIDTH, seed=3),
        "decoder.bias": numbers(INPUTS, seed=4),
    }
    write_tensors(folder / "checkpoints" / "final.safetensors", {**made, **(tensors or {})})
    return made
