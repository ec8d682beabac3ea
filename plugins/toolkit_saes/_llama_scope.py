"""Llama Scope's original layout: one folder a layer, trained in scaled units, folded into raw ones when read.

The order of the fold is upstream's: dataset norms, then unit decoder rows; the threshold was fitted after it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from toolkit.errors import BadInput
from toolkit.files import PathText, content_digest, locate, read_json, safetensors_header
from toolkit.hookpoints import hookpoint
from toolkit.hub import fetch, snapshot
from toolkit.records import Identity, Params, Reporter

from ._jumprelu import Facts, JumpRelu, Weights
from ._layers import Layers, chosen

RECIPE = "llama_scope: jumprelu after folding dataset norms and decoder norms"
TENSORS = {"encoder.weight": 2, "encoder.bias": 1, "decoder.weight": 2, "decoder.bias": 1}
_FOLDER = re.compile(r".*-L(\d+)(R|M|A|TC)-\d+x")


class LlamaScope(Params):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (the folder that holds one folder a layer)."""

    release: str | None = Field(None, description="Repository on the hub, for example fnlp/Llama3_1-8B-Base-LXR-8x.")
    revision: str = Field("main", description="Commit, tag or branch of the repository.")
    path: PathText | None = Field(None, description="Folder with one folder a layer, `package:NAME/FOLDER` or a path.")
    layers: Layers = Field("all", description="all, 8, 1-31 or [8, 15, 31]; layers count from 0.")

    @model_validator(mode="after")
    def _one_place(self) -> LlamaScope:
        if (self.release is None) == (self.path is None):
            raise ValueError("give either release (a repository on the hub) or path (a folder), not both")
        return self


def identify(params: LlamaScope) -> Identity:
    """The hash of the chosen layers' files, and what they read."""
    revision, root = _root(params)
    name = params.release or locate(str(params.path)).name
    if root is None:
        return Identity(name, revision, f"{name}@{revision}:{params.layers}")
    facts = [_facts(folder) for folder in _folders(params, root)]
    digest = content_digest({folder.name + "/" + file: folder / file for folder in _folders(params, root) for file in _FILES})
    layers = [hookpoint(found.hookpoint).layer for found in facts]
    return Identity(name, revision, digest, {"inputs": facts[0].inputs, "width": facts[0].width, "layers": layers})


def load(params: LlamaScope, report: Reporter) -> list[JumpRelu]:
    """The chosen SAEs, in order of layers; weights are read when an SAE is first used."""
    revision, root = _root(params)
    if root is None:
        report.phase("download")
        found = snapshot(str(params.release), revision, "*-L*/hyperparams.json")
        root = fetch(found, _patterns(params))
    report.phase("load")
    return [JumpRelu(_facts(folder), lambda folder=folder: read_weights(folder)) for folder in _folders(params, root)]


_FILES = ("hyperparams.json", "checkpoints/final.safetensors")


def _root(params: LlamaScope) -> tuple[str, Path | None]:
    if params.path is not None:
        return "local", locate(params.path)
    found = snapshot(str(params.release), params.revision, "*-L*/hyperparams.json")
    return found.revision, found.folder


def _patterns(params: LlamaScope) -> list[str]:
    """What to fetch: only the layers asked for."""
    if params.layers == "all":
        return ["*/hyperparams.json", "*/checkpoints/final.safetensors"]
    layers = chosen(params.layers, range(1000), str(params.release))
    return [f"*-L{layer}[RMAT]*/{file}" for layer in layers for file in _FILES]


def _folders(params: LlamaScope, root: Path) -> list[Path]:
    found = {int(match[1]): folder for folder in sorted(root.iterdir()) if (match := _FOLDER.fullmatch(folder.name))}
    if not found:
        raise BadInput(f"{root} holds no Llama Scope SAEs: no folder is named like Llama3_1-8B-Base-L15R-8x.")
    return [found[layer] for layer in chosen(params.layers, found, root.name)]


def _facts(folder: Path) -> Facts:
    """From the two files' headers; tensors are held against the shapes that hyperparams.json promises."""
    known = read_json(folder / "hyperparams.json")
    header = safetensors_header(_weights_file(folder))
    missing = [name for name in TENSORS if name not in header]
    if missing:
        raise BadInput(f"{_weights_file(folder)} has no tensor '{missing[0]}': it is not in Llama Scope's original layout.")
    try:
        inputs, width, point = int(known["d_model"]), int(known["d_sae"]), hookpoint(str(known["hook_point_in"]))
        declared = known.get("top_k")
    except KeyError as error:
        raise BadInput(f"{folder / 'hyperparams.json'} has no {error.args[0]!r}: it is not in Llama Scope's original layout.") from None
    if header["encoder.weight"]["shape"] != [width, inputs] or header["decoder.weight"]["shape"] != [inputs, width]:
        raise BadInput(
            f"{_weights_file(folder)}: encoder.weight is {header['encoder.weight']['shape']} and decoder.weight "
            f"{header['decoder.weight']['shape']}; hyperparams.json promises [{width}, {inputs}] and [{inputs}, {width}]."
        )
    digest = content_digest({file: folder / file for file in _FILES})
    return Facts(folder.name, folder.parent.name, str(point), width, inputs, digest, RECIPE, float(declared) if declared else None)


def _weights_file(folder: Path) -> Path:
    file = folder / "checkpoints" / "final.safetensors"
    if not file.exists():
        raise BadInput(f"{folder} has no checkpoints/final.safetensors. Copy or download the folder again.")
    return file


def read_weights(folder: Path) -> Weights:
    """The folded weights, float32."""
    import torch
    from safetensors.torch import load_file

    known: dict[str, Any] = read_json(folder / "hyperparams.json")
    raw = {name: tensor.float() for name, tensor in load_file(_weights_file(folder)).items() if name in TENSORS}
    norms = known["dataset_average_activation_norm"]
    scale_in, scale_out = (known["d_model"] ** 0.5 / norms[side] for side in ("in", "out"))
    lengths = raw["decoder.weight"].norm(dim=0)
    return Weights(
        w_enc=(raw["encoder.weight"].T * (lengths * scale_in / scale_out)).contiguous(),
        b_enc=raw["encoder.bias"] * lengths / scale_out,
        w_dec=(raw["decoder.weight"] / lengths).T.contiguous(),
        b_dec=raw["decoder.bias"] / scale_out,
        threshold=torch.tensor(float(known["jump_relu_threshold"])),
    )
