"""Loads a model's files into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import BadInput
from toolkit.files.hub import fetch
from toolkit.files.local import locate
from toolkit.work import Reporter

from ._identity import FETCHED, HuggingFace, identify, repository


def load(params: HuggingFace, report: Reporter) -> Any:
    """The model on its devices, ready for stages."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from ._devices import place_blocks
    from ._structure import family_of
    from .engine import CausalModel

    folder = _folder(params, report)
    report.phase("load")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    identity = identify(params)
    module = _module(folder, params)
    tokeniser = _read(folder, AutoTokenizer)
    family = family_of(module, params.family)
    blocks = module.get_submodule(family.blocks)
    if not all(
        getattr(block.get_submodule(family.attention), "is_causal", True) for block in blocks
    ):
        raise BadInput(
            f"{folder}: attention of this {module.config.model_type} looks at later tokens too: it "
            "is an encoder. `huggingface` loads decoders; an encoder takes one file: "
            "docs/tutorial/a-model-loader.md."
        )
    devices = place_blocks(module, blocks, params.device_map or (params.device,))
    return CausalModel(
        identity, module, tokeniser, devices, switch=params.attention == "auto", family=family
    )


def _module(folder: Path, params: HuggingFace) -> Any:
    """The module, with every weight read from the files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    attention = _attention(params.attention, _read(folder, AutoConfig))
    module, loading = _read(
        folder,
        AutoModelForCausalLM,
        dtype="auto" if params.dtype == "auto" else getattr(torch, params.dtype),
        use_safetensors=True,
        attn_implementation=attention,
        output_loading_info=True,
    )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise BadInput(
            f"{folder}: the weights lack {len(missing)} tensors that the config asks for, first "
            f"{missing[0]}. They would be random numbers. Copy or download it again."
        )
    return module.eval()


def _read(folder: Path, kind: Any, **options: Any) -> Any:
    """Has transformers read a folder: local files only, running none of the folder's code and
    without prompting for it.
    """
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (ValueError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in str(error):
            reason = (
                "it asks to run code of the model's repository, which is never run. Save the "
                "tokeniser and config in transformers' own classes, or write a loader: "
                "docs/tutorial/a-model-loader.md"
            )
        raise BadInput(f"{folder}: transformers does not load it: {reason}") from error


def _attention(requested: str, config: Any) -> str:
    """Chooses the attention implementation. Some releases of transformers silently ignore what sdpa
    does not support.
    """
    beyond = {
        "caps its attention scores": getattr(config, "attn_logit_softcapping", None) is not None,
        "scales its attention scores by layer": bool(
            getattr(config, "scale_attn_by_inverse_layer_idx", False)
        ),
        "does not scale its attention scores": not getattr(config, "scale_attn_weights", True),
    }
    why = next((text for text, holds in beyond.items() if holds), None)
    if requested == "sdpa" and why:
        raise BadInput(
            f"attention: this {config.model_type} {why}, which `sdpa` cannot. Use `auto` or "
            "`eager`."
        )
    return ("eager" if why else "sdpa") if requested == "auto" else requested


def _folder(params: HuggingFace, report: Reporter) -> Path:
    if params.path is not None:
        return locate(params.path)
    snapshot_path = repository(params)
    if snapshot_path.folder:
        return snapshot_path.folder
    report.phase("download")
    return fetch(snapshot_path, FETCHED)
