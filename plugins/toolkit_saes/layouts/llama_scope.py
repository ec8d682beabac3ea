"""Llama Scope: the original layout, trained in scaled units and folded into raw ones when read, and
OpenMOSS's later two.

One folder per layer. The order of the original fold is upstream's: dataset norms, then unit decoder
rows; the threshold was fitted after it. The later layouts are in `_openmoss`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from toolkit.errors import BadInput, choices
from toolkit.files.hub import Snapshot
from toolkit.files.local import content_digest, read_json
from toolkit.hookpoints import hookpoint
from toolkit_saes.encode.canonical import Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.tensors import (
    check_axes,
    check_shapes,
    refuse_pickles,
    safetensors_shapes,
    safetensors_weights,
)
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts import config
from toolkit_saes.layouts import openmoss as _openmoss
from toolkit_saes.layouts.base import FolderLayout
from toolkit_saes.layouts.layers import chosen
from toolkit_saes.layouts.location import SaeLocation
from toolkit_saes.layouts.published import llama_scope_facts
from toolkit_saes.layouts.releases import llama_page

RECIPE = "llama_scope: jumprelu after folding dataset norms and decoder norms"
NEEDED = (
    "d_model",
    "d_sae",
    "hook_point_in",
    "jump_relu_threshold",
    "dataset_average_activation_norm",
)
FIXED: dict[str, Any] = {
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "use_glu_encoder": False,
}
"""The settings that the fold assumes; others are refused."""
TENSORS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
FILES = ("hyperparams.json", "checkpoints/final.safetensors")
_FOLDER = re.compile(r"(?:.*-)?L(\d+)(R|M|A|TC)(?:-\d+x)?")


class LlamaScope(SaeLocation):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (the folder that holds one
    folder per layer).
    """

    release: str | None = Field(
        None, description="Repository on the hub, for example fnlp/Llama3_1-8B-Base-LXR-8x."
    )
    folder: str = Field(
        "",
        description="Folder of the release that holds one folder per layer, for releases that have "
        "several.",
    )
    kind: Literal["R", "M", "A", "TC"] | None = Field(
        None,
        description="R: residual stream, M: MLP output, A: attention output, TC: transcoder; "
        "where a folder holds several.",
    )


class LlamaScopeLayout(FolderLayout[LlamaScope]):
    """One folder per layer; its name ends with layer and kind, such as L15R-8x."""

    def marker(self, params: LlamaScope) -> str:
        """A config of any layer."""
        return f"{_below(params)}*L*/*.json"

    def patterns(self, params: LlamaScope, snapshot: Snapshot) -> list[str]:
        """The files of the chosen layers, in each of the three layouts."""
        below, files = _below(params), (*FILES, *_openmoss.FILES)
        if params.layers == "all":
            return [f"{below}*/{file}" for file in files]
        layers = chosen(params.layers, range(1000), str(params.release))
        return [f"{below}*L{layer}[RMAT]*/{file}" for layer in layers for file in files]

    def by_layer(self, params: LlamaScope, root: Path) -> dict[int, Path]:
        """The folder of each layer; the root itself where that is one."""
        return _by_layer(params, root)

    def locate_saes(self, params: LlamaScope, root: Path) -> list[Path]:
        """The folders of the chosen layers."""
        return _folders(params, root)

    def files(self, sae: Path) -> dict[str, Path]:
        """Config and weights, whatever the layout."""
        return {name: sae / name for name in _files(sae)}

    def published_facts(self, params: LlamaScope) -> dict[str, Any]:
        """From the recorded shapes of the layers."""
        return llama_scope_facts(str(params.release), params.layers)

    def digest_name(self, sae: Path, root: Path) -> str:
        """The folder's name, without its parents."""
        return sae.name

    def requested(self, params: LlamaScope) -> str:
        """Folder, kind and layers."""
        return ":".join(filter(None, (params.folder, params.kind, str(params.layers))))

    def facts(self, params: LlamaScope, sae: Path, release: str) -> Facts:
        """From config and header."""
        if _openmoss.is_sae(sae):
            return _openmoss.facts(sae, release)
        return _original(sae, release)

    def read(self, params: LlamaScope, sae: Path) -> Weights:
        """Folded for the original layout."""
        return read_weights(sae)


LAYOUT = LlamaScopeLayout()
identify, load, downloads = LAYOUT.identify, LAYOUT.load, LAYOUT.downloads


def _below(params: LlamaScope) -> str:
    return f"{params.folder}/" if params.folder else ""


def _by_layer(params: LlamaScope, root: Path) -> dict[int, Path]:
    root = root / params.folder
    if not root.is_dir():
        raise BadInput(f"saes.with.folder: {root} is not a folder.")
    results: dict[int, list[Path]] = {}
    for folder in [root] if _is_sae(root) else sorted(root.iterdir()):
        match = _FOLDER.fullmatch(folder.name)
        if folder.is_dir() and match and params.kind in (None, match[2]):
            results.setdefault(int(match[1]), []).append(folder)
        elif folder == root and not match:
            results[_own_layer(root)] = [root]
    for layer, folders in results.items():
        if len(folders) > 1:
            raise BadInput(
                f"{root} holds several SAEs of layer {layer}: "
                f"{choices(folder.name for folder in folders)}. Choose with `kind:`, or put them "
                "into folders of their own."
            )
    return {layer: folders[0] for layer, folders in results.items()}


def _is_sae(folder: Path) -> bool:
    return (folder / FILES[0]).exists() or _openmoss.is_sae(folder)


def _own_layer(folder: Path) -> int:
    file = folder / (_openmoss.FILES[0] if _openmoss.is_sae(folder) else FILES[0])
    return hookpoint(config.hookpoint_of(read_json(file), "hook_point_in", file)).layer


def _folders(params: LlamaScope, root: Path) -> list[Path]:
    folders = _by_layer(params, root)
    if not folders:
        below = [
            folder.name
            for folder in sorted((root / params.folder).iterdir())
            if folder.is_dir() and any(map(_is_sae, folder.glob("*")))
        ]
        if below:
            raise BadInput(
                f"{root} holds Llama Scope SAEs in {choices(below)}: choose with `folder:`."
            )
        raise BadInput(
            f"{root} holds no Llama Scope SAEs: no folder is named like Llama3_1-8B-Base-L15R-8x."
        )
    return [folders[layer] for layer in chosen(params.layers, folders, params.release or root.name)]


def _files(folder: Path) -> tuple[str, str]:
    """The two files of an SAE's folder, whatever its layout."""
    if _openmoss.is_sae(folder):
        return _openmoss.FILES
    _weights_file(folder)
    return FILES


def _original(folder: Path, release: str) -> Facts:
    """The facts from the two files' headers; tensors are checked against the shapes in
    hyperparams.json.
    """
    known, file = _hyperparams(folder), _weights_file(folder)
    shapes = safetensors_shapes(file)
    inputs, width = (
        config.positive_integer(known, "d_model", folder / FILES[0]),
        config.positive_integer(known, "d_sae", folder / FILES[0]),
    )
    check_axes(file, inputs, width, inputs)
    promised = {
        "encoder.weight": (width, inputs),
        "encoder.bias": (width,),
        "decoder.weight": (inputs, width),
        "decoder.bias": (inputs,),
    }
    missing = ": it is not in Llama Scope's original layout"
    check_shapes(file, shapes, promised, config="hyperparams.json", missing=missing)
    point, end = (
        config.hookpoint_of(known, name, folder / FILES[0])
        for name in ("hook_point_in", "hook_point_out")
    )
    output, recipe = (None, RECIPE) if end == point else ((end, inputs), f"{RECIPE}; writes {end}")
    return Facts(
        name=folder.name,
        release=release,
        hookpoint=point,
        width=width,
        inputs=inputs,
        digest=content_digest({name: folder / name for name in FILES}),
        recipe=recipe,
        declared_l0=float(known["top_k"]) if known.get("top_k") else None,
        output=output,
        neuronpedia=llama_page(release, folder.parent.name, hookpoint(point).layer),
    )


def _hyperparams(folder: Path) -> dict[str, Any]:
    """hyperparams.json, checked to have all settings of the fold and none that it does not
    support.
    """
    file = folder / "hyperparams.json"
    known = read_json(file)
    missing = [name for name in NEEDED if name not in known]
    if missing:
        raise BadInput(f"{file} has no {missing[0]!r}: it is not in Llama Scope's original layout.")
    for name, value in FIXED.items():
        if known.get(name, value) != value:
            raise BadInput(
                f"{file}: {name} is {config.shown(known[name])}; `llama_scope` reads SAEs with "
                f"{value!r} only."
            )
    norm = known["dataset_average_activation_norm"]
    norms = {
        side: config.positive(
            norm.get(side) if isinstance(norm, dict) else norm,
            f"dataset_average_activation_norm.{side}",
            file,
        )
        for side in ("in", "out")
    }
    return {
        **known,
        "dataset_average_activation_norm": norms,
        "jump_relu_threshold": config.number(
            known["jump_relu_threshold"], "jump_relu_threshold", file, least=0
        ),
        "top_k": config.positive_integer(known, "top_k", file) if known.get("top_k") else None,
        "hook_point_out": known.get("hook_point_out") or known["hook_point_in"],
    }


def _weights_file(folder: Path) -> Path:
    file = folder / "checkpoints" / "final.safetensors"
    if not file.exists():
        refuse_pickles(file.parent)
        raise BadInput(
            f"{folder} has no checkpoints/final.safetensors. Copy or download the folder again."
        )
    return file


def read_weights(folder: Path) -> Weights:
    """The weights as the SAE is run: folded for the original layout."""
    if _openmoss.is_sae(folder):
        return _openmoss.read_weights(folder)
    import torch

    known, raw = _hyperparams(folder), safetensors_weights(_weights_file(folder), TENSORS)
    norms = known["dataset_average_activation_norm"]
    scale_in, scale_out = (known["d_model"] ** 0.5 / norms[side] for side in ("in", "out"))
    decoder = Matrix(raw["decoder.weight"], turned=True)
    lengths = decoder.lengths().clamp(
        min=1e-20
    )  # a feature with a zero decoder row must not become NaN
    return Weights(
        w_enc=Matrix(raw["encoder.weight"], scale=lengths * (scale_in / scale_out)),
        b_enc=raw["encoder.bias"] * lengths / scale_out,
        w_dec=replace(decoder, scale=1 / lengths),
        b_dec=raw["decoder.bias"] / scale_out,
        threshold=torch.tensor(float(known["jump_relu_threshold"])),
    )
