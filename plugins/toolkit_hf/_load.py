"""Loading a model's files into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import BadInput
from toolkit.files import locate
from toolkit.hub import fetch
from toolkit.work import Reporter

from ._identity import FETCHED, HuggingFace, identify, repository


def load(params: HuggingFace, report: Reporter) -> Any:
    """The model on its devices, ready for stages."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from ._places import place
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
    places = place(module, blocks, params.device_map or (params.device,))
    return CausalModel(
        identity, module, tokeniser, places, switch=params.attention == "auto", family=family
    )


def _module(folder: Path, params: HuggingFace) -> Any:
    """The weights, every one of them from the files."""
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
    """What transformers reads from a folder: from its files alone, running none of its code, and
    without the prompt that would ask for it.
    """
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (ValueError, RuntimeError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in str(error):
            said = (
                "it asks to run code of the model's repository, which is never run. Save the "
                "tokeniser and config in transformers' own classes, or write a loader: "
                "docs/tutorial/a-model-loader.md"
            )
        raise BadInput(f"{folder}: transformers does not load it: {said}") from error


def _attention(asked: str, config: Any) -> str:
    """How attention is computed. What sdpa has no means for, some releases of transformers leave
    out without a word.
    """
    beyond = {
        "caps its attention scores": getattr(config, "attn_logit_softcapping", None) is not None,
        "scales its attention scores by layer": bool(
            getattr(config, "scale_attn_by_inverse_layer_idx", False)
        ),
        "does not scale its attention scores": not getattr(config, "scale_attn_weights", True),
    }
    why = next((text for text, holds in beyond.items() if holds), None)
    if asked == "sdpa" and why:
        raise BadInput(
            f"attention: this {config.model_type} {why}, which `sdpa` cannot. Use `auto` or "
            "`eager`."
        )
    return ("eager" if why else "sdpa") if asked == "auto" else asked


def _folder(params: HuggingFace, report: Reporter) -> Path:
    if params.path is not None:
        return locate(params.path)
    found = repository(params)
    if found.folder:
        return found.folder
    report.phase("download")
    return fetch(found, FETCHED)
