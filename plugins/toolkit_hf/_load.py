"""Loading a model's files into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import BadInput
from toolkit.files import locate
from toolkit.hub import fetch
from toolkit.records import Reporter

from ._identity import FETCHED, HuggingFace, identify, repository


def load(params: HuggingFace, report: Reporter) -> Any:
    """The model on its devices, ready for stages."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from ._model import CausalModel
    from ._places import place
    from ._structure import structure_of

    folder = _folder(params, report)
    report.phase("load")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    identity = identify(params)
    module = _module(folder, params)
    tokeniser = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    blocks = module.get_submodule(structure_of(module).blocks)
    places = place(module, blocks, params.device_map or (params.device,))
    return CausalModel(identity, module, tokeniser, places, switch=params.attention == "auto")


def _module(folder: Path, params: HuggingFace) -> Any:
    """The weights, every one of them from the files."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        module, told = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if params.dtype == "auto" else getattr(torch, params.dtype),
            local_files_only=True,
            attn_implementation=None if params.attention == "auto" else params.attention,
            output_loading_info=True,
        )
    except (ValueError, RuntimeError) as error:
        asked = "" if params.attention == "auto" else f" with `attention: {params.attention}`"
        after = "" if params.attention == "auto" else " Use auto or eager."
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{folder}: transformers does not load it{asked}: {said}{after}") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise BadInput(
            f"{folder}: the weights lack {len(missing)} tensors that the config asks for, first {missing[0]}. They would be random "
            f"numbers. Copy or download it again."
        )
    return module.eval()


def _folder(params: HuggingFace, report: Reporter) -> Path:
    if params.path is not None:
        return locate(params.path)
    found = repository(params)
    if found.folder:
        return found.folder
    report.phase("download")
    return fetch(found, FETCHED)
