"""Gemma Scope 1's layout: `layer_L/width_W/average_l0_N/params.npz`. No config file: the path says what it is.

The training norm is folded in already, so the tensors are used as stored. This reads residual-stream SAEs (`res`).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from toolkit.errors import BadInput, choices
from toolkit.files import PathText, content_digest, locate
from toolkit.hub import Snapshot, fetch, offline, snapshot
from toolkit.records import Identity, Params, Reporter

from ._jumprelu import Facts, JumpRelu, Weights
from ._layers import Layers, all_there, chosen

RECIPE = "gemma_scope: jumprelu, thresholds per feature, used as stored"
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
CANONICAL = 100
"""The canonical SAE of a layer and width is the one whose average L0 is nearest to this."""


class GemmaScope(Params):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (the folder that holds `layer_0`, `layer_1`, ...)."""

    release: str | None = Field(None, description="Repository on the hub, for example google/gemma-scope-2b-pt-res.")
    revision: str = Field("main", description="Commit, tag or branch of the repository.")
    path: PathText | None = Field(None, description="Folder that holds layer_0, layer_1, ...")
    layers: Layers = Field("all", description="all, 8, 0-25 or [5, 12, 19]; layers count from 0.")
    width: str = Field("16k", description="The width's folder name without `width_`: 16k, 65k, ...")
    l0: Literal["canonical", "all"] | tuple[int, ...] = Field(
        "canonical", description="canonical (nearest 100), all, or the average L0s wanted."
    )

    @model_validator(mode="after")
    def _one_place(self) -> GemmaScope:
        if (self.release is None) == (self.path is None):
            raise ValueError("give either release (a repository on the hub) or path (a folder), not both")
        return self


def identify(params: GemmaScope) -> Identity:
    """The hash of the chosen files, and what they read."""
    if params.path is not None:
        root = locate(params.path)
        files = _files(params, root)
        return Identity(root.name, "local", content_digest({str(file.relative_to(root)): file for file in files}), _sizes(files))
    found = _snapshot(params)
    facts = _sizes(_files(params, found.folder)) if found.folder and _all_there(params, found.folder) else {}
    wanted = f"{params.layers}:{params.width}:{params.l0}"
    return Identity(found.name, found.revision, f"{found.name}@{found.revision}:{wanted}", facts)


def load(params: GemmaScope, report: Reporter) -> list[JumpRelu]:
    """The chosen SAEs, by layer and L0; weights are read when an SAE is first used."""
    root = _root(params, report)
    report.phase("load")
    release = params.release or root.name
    return [JumpRelu(_facts(file, release), partial(_weights, file)) for file in _files(params, root)]


def _snapshot(params: GemmaScope) -> Snapshot:
    return snapshot(str(params.release), params.revision, "layer_*")


def _root(params: GemmaScope, report: Reporter) -> Path:
    """Where the files are, after fetching what the cache may lack."""
    if params.path is not None:
        return locate(params.path)
    found = _snapshot(params)
    if found.folder and (offline() or _all_there(params, found.folder)):
        return found.folder
    report.phase("download")
    return fetch(found, _patterns(params))


def _all_there(params: GemmaScope, root: Path) -> bool:
    """Whether the cache surely has them: which L0 is the canonical one, nobody knows without the network."""
    if isinstance(params.l0, str):
        return False
    files = [root.glob(f"layer_*/width_{params.width}/average_l0_{l0}/params.npz") for l0 in params.l0]
    return all(all_there(params.layers, map(_layer, found)) for found in files)


def _patterns(params: GemmaScope) -> list[str]:
    """What to fetch: only the layers, width and L0s asked for."""
    layers = ["*"] if params.layers == "all" else chosen(params.layers, range(1000), str(params.release))
    sparsities = ["*"] if isinstance(params.l0, str) else params.l0
    return [f"layer_{layer}/width_{params.width}/average_l0_{l0}/params.npz" for layer in layers for l0 in sparsities]


def _sizes(files: Sequence[Path]) -> dict[str, Any]:
    inputs, width = _shape(files[0])
    return {"inputs": inputs, "width": width, "layers": sorted({_layer(file) for file in files})}


def _files(params: GemmaScope, root: Path) -> list[Path]:
    release = params.release or root.name
    there = {path for path in root.glob("layer_*/width_*/average_l0_*/params.npz")}
    if not there:
        raise BadInput(f"{root} holds no Gemma Scope SAEs: there is no layer_L/width_W/average_l0_N/params.npz below it.")
    wide = [path for path in there if path.parts[-3] == f"width_{params.width}"]
    if not wide:
        widths = {path.parts[-3].removeprefix("width_") for path in there}
        raise BadInput(f"saes.with.width: {release} has no width '{params.width}'; it has {choices(widths)}.")
    layers = chosen(params.layers, [_layer(path) for path in wide], release)
    return [file for layer in layers for file in _sparsities(params, sorted(wide, key=_l0), layer)]


def _sparsities(params: GemmaScope, files: list[Path], layer: int) -> list[Path]:
    here = [path for path in files if _layer(path) == layer]
    if params.l0 == "all":
        return here
    if params.l0 == "canonical":
        return [min(here, key=lambda path: abs(_l0(path) - CANONICAL))]
    found = [path for path in here if _l0(path) in params.l0]
    if not found:
        raise BadInput(f"saes.with.l0: layer {layer} has {choices(str(_l0(path)) for path in here)}, none of {params.l0}.")
    return found


def _layer(file: Path) -> int:
    return int(file.parts[-4].removeprefix("layer_"))


def _l0(file: Path) -> int:
    found = re.fullmatch(r"average_l0_(\d+)", file.parts[-2])
    return int(found[1]) if found else 0


def _facts(file: Path, release: str) -> Facts:
    inputs, width = _shape(file)
    name = "/".join(file.parts[-4:-1])
    digest = content_digest({"params.npz": file})
    return Facts(name, release, f"resid_post.{_layer(file)}", width, inputs, digest, RECIPE, float(_l0(file)))


def _shape(file: Path) -> tuple[int, int]:
    """Of W_enc, from the archive's headers; the other arrays are held against it."""
    try:
        shapes = _shapes(file)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        said = f"{file} cannot be read ({error}): it is cut off or no NumPy archive."
        raise BadInput(f"{said} Copy or download it again.") from None
    missing = [name for name in NAMES if name not in shapes]
    if missing:
        raise BadInput(f"{file} has no array '{missing[0]}': it is not in Gemma Scope's layout.")
    if len(shapes["W_enc"]) != 2:
        raise BadInput(f"{file}: W_enc is {shapes['W_enc']}; wanted (inputs, features).")
    inputs, width = shapes["W_enc"]
    wanted = {"b_enc": (width,), "W_dec": (width, inputs), "b_dec": (inputs,), "threshold": (width,)}
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise BadInput(f"{file}: {name} is {shapes[name]}; W_enc, {shapes['W_enc']}, asks for {shape}.")
    return inputs, width


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    import numpy as np

    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in (name for name in NAMES if f"{name}.npy" in archive.namelist()):
            with archive.open(f"{name}.npy") as member:
                np.lib.format.read_magic(member)
                found[name] = np.lib.format.read_array_header_1_0(member)[0]
    return found


def _weights(file: Path) -> Weights:
    import numpy as np
    import torch

    with np.load(file) as archive:
        read: dict[str, Any] = {name: torch.from_numpy(archive[name]).float() for name in NAMES}
    return Weights(read["W_enc"], read["b_enc"], read["W_dec"], read["b_dec"], read["threshold"])
