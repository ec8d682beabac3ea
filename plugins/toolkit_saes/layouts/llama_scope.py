"""Llama Scope: the original layout, trained in scaled units and folded into raw ones when read, and
OpenMOSS's later two.

One folder a layer. The order of the original fold is upstream's: dataset norms, then unit decoder
rows; the threshold was fitted after it. The later layouts are in `_openmoss`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from toolkit.errors import BadInput, choices
from toolkit.files import check_link, content_digest, locate, read_json
from toolkit.hookpoints import hookpoint
from toolkit.hub import Download, Snapshot, fetch, offline, snapshot
from toolkit.parts import Identity
from toolkit.work import Reporter
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.tensors import (
    check_axes,
    refuse_pickles,
    safetensors_shapes,
    safetensors_weights,
    swapped,
)
from toolkit_saes.extract.sizes import Size, sizes
from toolkit_saes.layouts import config
from toolkit_saes.layouts import openmoss as _openmoss
from toolkit_saes.layouts.canonical import CanonicalSae, Facts, Weights
from toolkit_saes.layouts.layers import all_there, chosen
from toolkit_saes.layouts.placed import Placed
from toolkit_saes.layouts.published import llama_scope_facts
from toolkit_saes.layouts.releases import known, llama_page

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
"""What the fold assumes; other settings would be run wrongly."""
TENSORS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
FILES = ("hyperparams.json", "checkpoints/final.safetensors")
_FOLDER = re.compile(r"(?:.*-)?L(\d+)(R|M|A|TC)(?:-\d+x)?")


class LlamaScope(Placed):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (the folder that holds one
    folder a layer).
    """

    release: str | None = Field(
        None, description="Repository on the hub, for example fnlp/Llama3_1-8B-Base-LXR-8x."
    )
    folder: str = Field(
        "",
        description="Folder of the release that holds one folder a layer, "
        "for "
        "releases "
        "that have several.",
    )
    kind: Literal["R", "M", "A", "TC"] | None = Field(
        None,
        description="R: residual stream, M: MLP output, A: attention output, "
        "TC: "
        "transcoder; where a "
        "folder holds several.",
    )


def identify(params: LlamaScope) -> Identity:
    """The hash of the chosen layers' files, and what they read."""
    if params.path is not None:
        root = locate(params.path)
        folders = _folders(params, root)
        digest = content_digest(
            {
                f"{folder.name}/{file}": folder / file
                for folder in folders
                for file in _files(folder)
            }
        )
        return Identity(root.name, "local", digest, _sizes(folders))
    found = _snapshot(params)
    there = found.folder is not None and all_there(params.layers, _by_layer(params, found.folder))
    facts = (
        _sizes(_folders(params, found.folder))
        if found.folder and there
        else llama_scope_facts(str(params.release), params.layers)
    )
    wanted = ":".join(filter(None, (params.folder, params.kind, str(params.layers))))
    return Identity(found.name, found.revision, f"{found.name}@{found.revision}:{wanted}", facts)


def load(params: LlamaScope, report: Reporter) -> list[CanonicalSae]:
    """The chosen SAEs, in order of layers; weights are read when an SAE is first used."""
    root = _root(params, report)
    report.phase("load")
    release = params.release or root.name
    return [
        CanonicalSae(_facts(folder, release), partial(read_weights, folder))
        for folder in _folders(params, root)
    ]


def downloads(params: LlamaScope) -> Iterator[Download]:
    """What to fetch before an offline run."""
    if params.path is None:
        yield Download(_snapshot(params), tuple(_patterns(params)))


def _snapshot(params: LlamaScope) -> Snapshot:
    below = f"{params.folder}/" if params.folder else ""
    published = known(params.release).get("revision") == params.at
    return snapshot(str(params.release), params.at, f"{below}*L*/*.json", published=published)


def _root(params: LlamaScope, report: Reporter) -> Path:
    """Where the files are, after fetching what the cache may lack."""
    if params.path is not None:
        return locate(params.path)
    found = _snapshot(params)
    if found.folder and (offline() or all_there(params.layers, _by_layer(params, found.folder))):
        return found.folder
    report.phase("download")
    return fetch(found, _patterns(params))


def _sizes(folders: Sequence[Path]) -> dict[str, Any]:
    facts = [_facts(folder, "") for folder in folders]
    stored = [(folder / _files(folder)[1]).stat().st_size for folder in folders]
    return sizes(
        [
            Size(found.hookpoint, found.inputs, found.width, found.declared_l0, size)
            for found, size in zip(facts, stored, strict=True)
        ]
    )


def _patterns(params: LlamaScope) -> list[str]:
    """What to fetch: only the layers asked for."""
    below = f"{params.folder}/" if params.folder else ""
    if params.layers == "all":
        return [f"{below}*/{file}" for file in (*FILES, *_openmoss.FILES)]
    layers = chosen(params.layers, range(1000), str(params.release))
    return [
        f"{below}*L{layer}[RMAT]*/{file}" for layer in layers for file in (*FILES, *_openmoss.FILES)
    ]


def _by_layer(params: LlamaScope, root: Path) -> dict[int, Path]:
    """The folder of each layer; the root itself where that is one."""
    root = root / params.folder
    if not root.is_dir():
        raise BadInput(f"saes.with.folder: {root} is no folder.")
    found: dict[int, list[Path]] = {}
    for folder in [root] if _is_sae(root) else sorted(root.iterdir()):
        match = _FOLDER.fullmatch(folder.name)
        if folder.is_dir() and match and params.kind in (None, match[2]):
            found.setdefault(int(match[1]), []).append(folder)
        elif folder == root and not match:
            found[_own_layer(root)] = [root]
    for layer, folders in found.items():
        if len(folders) > 1:
            raise BadInput(
                f"{root} holds several SAEs of layer {layer}: "
                f"{choices(folder.name for folder in folders)}. Choose with `kind:`, or put them "
                "into folders of their own."
            )
    return {layer: folders[0] for layer, folders in found.items()}


def _is_sae(folder: Path) -> bool:
    return (folder / FILES[0]).exists() or _openmoss.is_sae(folder)


def _own_layer(folder: Path) -> int:
    file = folder / (_openmoss.FILES[0] if _openmoss.is_sae(folder) else FILES[0])
    return hookpoint(config.place(read_json(file), "hook_point_in", file)).layer


def _folders(params: LlamaScope, root: Path) -> list[Path]:
    found = _by_layer(params, root)
    if not found:
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
    folders = [found[layer] for layer in chosen(params.layers, found, params.release or root.name)]
    for folder in folders:
        for file in _files(folder):
            check_link(folder / file, root)
    return folders


def _files(folder: Path) -> tuple[str, str]:
    """The two files of an SAE's folder, whatever its layout."""
    if _openmoss.is_sae(folder):
        return _openmoss.FILES
    _weights_file(folder)
    return FILES


def _facts(folder: Path, release: str) -> Facts:
    return (
        _openmoss.facts(folder, release) if _openmoss.is_sae(folder) else _original(folder, release)
    )


def _original(folder: Path, release: str) -> Facts:
    """From the two files' headers; tensors are held against the shapes that hyperparams.json
    promises.
    """
    known, file = _hyperparams(folder), _weights_file(folder)
    shapes = safetensors_shapes(file)
    inputs, width = (
        config.whole(known, "d_model", folder / FILES[0]),
        config.whole(known, "d_sae", folder / FILES[0]),
    )
    check_axes(file, inputs, width, inputs)
    promised = {
        "encoder.weight": (width, inputs),
        "encoder.bias": (width,),
        "decoder.weight": (inputs, width),
        "decoder.bias": (inputs,),
    }
    for name, shape in promised.items():
        if name not in shapes:
            raise BadInput(
                f"{file} has no tensor '{name}': it is not in Llama Scope's original layout."
            )
        if shapes[name] != shape:
            said = (
                f"{file}: {name} is {list(shapes[name])}; hyperparams.json promises {list(shape)}."
            )
            raise BadInput(said + swapped(shapes[name], shape))
    point, end = (
        config.place(known, name, folder / FILES[0]) for name in ("hook_point_in", "hook_point_out")
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
    """hyperparams.json, which has all that the fold needs and nothing that it does not know."""
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
    given = known["dataset_average_activation_norm"]
    norms = {
        side: config.positive(
            given.get(side) if isinstance(given, dict) else given,
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
        "top_k": config.whole(known, "top_k", file) if known.get("top_k") else None,
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
    )  # a feature that writes nothing must not become NaN
    return Weights(
        w_enc=Matrix(raw["encoder.weight"], scale=lengths * (scale_in / scale_out)),
        b_enc=raw["encoder.bias"] * lengths / scale_out,
        w_dec=replace(decoder, scale=1 / lengths),
        b_dec=raw["decoder.bias"] / scale_out,
        threshold=torch.tensor(float(known["jump_relu_threshold"])),
    )
