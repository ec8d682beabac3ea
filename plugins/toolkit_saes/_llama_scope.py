"""Llama Scope's original layout: one folder a layer, trained in scaled units, folded into raw ones when read.

The order of the fold is upstream's: dataset norms, then unit decoder rows; the threshold was fitted after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from toolkit.errors import BadInput
from toolkit.files import PathText, content_digest, locate, read_json, safetensors_header
from toolkit.hookpoints import hookpoint
from toolkit.hub import Download, Snapshot, fetch, offline, snapshot
from toolkit.records import Identity, Params, Reporter

from ._jumprelu import Facts, JumpRelu, Weights
from ._layers import Layers, all_there, chosen

RECIPE = "llama_scope: jumprelu after folding dataset norms and decoder norms"
NEEDED = ("d_model", "d_sae", "hook_point_in", "jump_relu_threshold", "dataset_average_activation_norm")
FIXED: dict[str, Any] = {
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "use_glu_encoder": False,
}
"""What the fold assumes; other settings would be run wrongly."""
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
    if params.path is not None:
        root = locate(params.path)
        folders = _folders(params, root)
        digest = content_digest({folder.name + "/" + file: folder / file for folder in folders for file in FILES})
        return Identity(root.name, "local", digest, _sizes(folders))
    found = _snapshot(params)
    there = found.folder is not None and all_there(params.layers, _by_layer(found.folder))
    facts = _sizes(_folders(params, found.folder)) if found.folder and there else {}
    return Identity(found.name, found.revision, f"{found.name}@{found.revision}:{params.layers}", facts)


def load(params: LlamaScope, report: Reporter) -> list[JumpRelu]:
    """The chosen SAEs, in order of layers; weights are read when an SAE is first used."""
    root = _root(params, report)
    report.phase("load")
    release = params.release or root.name
    return [JumpRelu(_facts(folder, release), partial(read_weights, folder)) for folder in _folders(params, root)]


FILES = ("hyperparams.json", "checkpoints/final.safetensors")


def downloads(params: LlamaScope) -> Iterator[Download]:
    """What to fetch before an offline run."""
    if params.path is None:
        yield Download(_snapshot(params), tuple(_patterns(params)))


def _snapshot(params: LlamaScope) -> Snapshot:
    return snapshot(str(params.release), params.revision, "*-L*/hyperparams.json")


def _root(params: LlamaScope, report: Reporter) -> Path:
    """Where the files are, after fetching what the cache may lack."""
    if params.path is not None:
        return locate(params.path)
    found = _snapshot(params)
    if found.folder and (offline() or all_there(params.layers, _by_layer(found.folder))):
        return found.folder
    report.phase("download")
    return fetch(found, _patterns(params))


def _sizes(folders: Sequence[Path]) -> dict[str, Any]:
    facts = [_facts(folder, "") for folder in folders]
    layers = [hookpoint(found.hookpoint).layer for found in facts]
    return {"inputs": facts[0].inputs, "width": facts[0].width, "layers": layers}


def _patterns(params: LlamaScope) -> list[str]:
    """What to fetch: only the layers asked for."""
    if params.layers == "all":
        return ["*/hyperparams.json", "*/checkpoints/final.safetensors"]
    layers = chosen(params.layers, range(1000), str(params.release))
    return [f"*-L{layer}[RMAT]*/{file}" for layer in layers for file in FILES]


def _by_layer(root: Path) -> dict[int, Path]:
    return {int(match[1]): folder for folder in sorted(root.iterdir()) if (match := _FOLDER.fullmatch(folder.name))}


def _folders(params: LlamaScope, root: Path) -> list[Path]:
    found = _by_layer(root)
    if not found:
        raise BadInput(f"{root} holds no Llama Scope SAEs: no folder is named like Llama3_1-8B-Base-L15R-8x.")
    return [found[layer] for layer in chosen(params.layers, found, params.release or root.name)]


def _facts(folder: Path, release: str) -> Facts:
    """From the two files' headers; tensors are held against the shapes that hyperparams.json promises."""
    known = _hyperparams(folder)
    header = safetensors_header(_weights_file(folder))
    inputs, width, point = int(known["d_model"]), int(known["d_sae"]), hookpoint(str(known["hook_point_in"]))
    promised = {
        "encoder.weight": [width, inputs],
        "encoder.bias": [width],
        "decoder.weight": [inputs, width],
        "decoder.bias": [inputs],
    }
    for name, shape in promised.items():
        if name not in header:
            raise BadInput(f"{_weights_file(folder)} has no tensor '{name}': it is not in Llama Scope's original layout.")
        if header[name]["shape"] != shape:
            raise BadInput(f"{_weights_file(folder)}: {name} is {header[name]['shape']}; hyperparams.json promises {shape}.")
    declared = known.get("top_k")
    digest = content_digest({file: folder / file for file in FILES})
    return Facts(folder.name, release, str(point), width, inputs, digest, RECIPE, float(declared) if declared else None)


def _hyperparams(folder: Path) -> dict[str, Any]:
    """hyperparams.json, which has all that the fold needs and nothing that it does not know."""
    file = folder / "hyperparams.json"
    known = read_json(file)
    missing = [name for name in NEEDED if name not in known]
    if missing:
        raise BadInput(f"{file} has no {missing[0]!r}: it is not in Llama Scope's original layout.")
    for name, value in FIXED.items():
        if known.get(name, value) != value:
            raise BadInput(f"{file}: {name} is {known[name]!r}; `llama_scope` reads SAEs with {value!r} only.")
    return known


def _weights_file(folder: Path) -> Path:
    file = folder / "checkpoints" / "final.safetensors"
    if not file.exists():
        raise BadInput(f"{folder} has no checkpoints/final.safetensors. Copy or download the folder again.")
    return file


def read_weights(folder: Path) -> Weights:
    """The folded weights, float32."""
    import torch
    from safetensors.torch import load_file

    known = _hyperparams(folder)
    raw = {name: tensor.float() for name, tensor in load_file(_weights_file(folder)).items()}
    norms = known["dataset_average_activation_norm"]
    scale_in, scale_out = (known["d_model"] ** 0.5 / norms[side] for side in ("in", "out"))
    lengths = raw["decoder.weight"].norm(dim=0).clamp(min=1e-20)  # a feature that writes nothing must not become NaN
    return Weights(
        w_enc=(raw["encoder.weight"].T * (lengths * scale_in / scale_out)).contiguous(),
        b_enc=raw["encoder.bias"] * lengths / scale_out,
        w_dec=(raw["decoder.weight"] / lengths).T.contiguous(),
        b_dec=raw["decoder.bias"] / scale_out,
        threshold=torch.tensor(float(known["jump_relu_threshold"])),
    )
