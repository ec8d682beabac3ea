"""Loading a model's files into memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.files import locate
from toolkit.hub import fetch, snapshot
from toolkit.records import Reporter

from ._identity import MARKER, HuggingFace, identify

if TYPE_CHECKING:
    import torch


def load(params: HuggingFace, report: Reporter) -> Any:
    """The model on its device, ready for stages."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from ._model import LlamaModel

    folder = _folder(params, report)
    report.phase("load")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    identity = identify(params)
    dtype = "auto" if params.dtype == "auto" else getattr(torch, params.dtype)
    module: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, attn_implementation="sdpa")
    tokeniser = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return LlamaModel(identity, module.to(_device(params.device)).eval(), tokeniser)


def _folder(params: HuggingFace, report: Reporter) -> Path:
    if params.path is not None:
        return locate(params.path)
    found = snapshot(str(params.id), params.revision, MARKER)
    if found.folder:
        return found.folder
    report.phase("download")
    return fetch(found, ["*.json", "*.safetensors", "*.jinja"])


def _device(name: str) -> torch.device:
    import torch

    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
