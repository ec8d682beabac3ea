"""Gemma Scope 1's layout: `layer_L/width_W/average_l0_N/params.npz`. No config file: the path says what it is.

The training norm is folded in already, so the tensors are used as stored. This reads residual-stream SAEs (`res`).
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from toolkit.errors import BadInput, choices
from toolkit.files import PathText, content_digest, locate
from toolkit.hub import fetch, snapshot
from toolkit.records import Identity, Params, Reporter

from ._jumprelu import Facts, JumpRelu, Weights
from ._layers import Layers, chosen

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
    revision, root = _root(params)
    name = params.release or locate(str(params.path)).name
    if root is None:
        wanted = f"{params.layers}:{params.width}:{params.l0}"
        return Identity(name, revision, f"{name}@{revision}:{wanted}")
    files = _files(params, root)
    facts = [_facts(root, file) for file in files]
    digest = content_digest({str(file.relative_to(root)): file for file in files})
    layers = sorted({_layer(file) for file in files})
    return Identity(name, revision, digest, {"inputs": facts[0].inputs, "width": facts[0].width, "layers": layers})


def load(params: GemmaScope, report: Reporter) -> list[JumpRelu]:
    """The chosen SAEs, by layer and L0; weights are read when an SAE is first used."""
    revision, root = _root(params)
    if root is None:
        report.phase("download")
        found = snapshot(str(params.release), revision, "layer_*")
        root = fetch(found, [f"layer_*/width_{params.width}/*/params.npz"])
    report.phase("load")
    return [JumpRelu(_facts(root, file), lambda file=file: _weights(file)) for file in _files(params, root)]


def _root(params: GemmaScope) -> tuple[str, Path | None]:
    if params.path is not None:
        return "local", locate(params.path)
    found = snapshot(str(params.release), params.revision, "layer_*")
    return found.revision, found.folder


def _files(params: GemmaScope, root: Path) -> list[Path]:
    there = {path for path in root.glob("layer_*/width_*/average_l0_*/params.npz")}
    if not there:
        raise BadInput(f"{root} holds no Gemma Scope SAEs: there is no layer_L/width_W/average_l0_N/params.npz below it.")
    wide = [path for path in there if path.parts[-3] == f"width_{params.width}"]
    if not wide:
        widths = {path.parts[-3].removeprefix("width_") for path in there}
        raise BadInput(f"saes.with.width: {root.name} has no width '{params.width}'; it has {choices(widths)}.")
    layers = chosen(params.layers, [_layer(path) for path in wide], root.name)
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


def _facts(root: Path, file: Path) -> Facts:
    inputs, width = _shape(file)
    name = "/".join(file.parts[-4:-1])
    digest = content_digest({"params.npz": file})
    return Facts(name, root.name, f"resid_post.{_layer(file)}", width, inputs, digest, RECIPE, float(_l0(file)))


def _shape(file: Path) -> tuple[int, int]:
    """Of W_enc, from the archive's headers."""
    import numpy as np

    try:
        with zipfile.ZipFile(file) as archive:
            missing = [name for name in NAMES if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise BadInput(f"{file} has no array '{missing[0]}': it is not in Gemma Scope's layout.")
            with archive.open("W_enc.npy") as member:
                np.lib.format.read_magic(member)
                inputs, width = np.lib.format.read_array_header_1_0(member)[0]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise BadInput(f"{file} cannot be read ({error}): it is cut off or no NumPy archive. Copy or download it again.") from None
    return int(inputs), int(width)


def _weights(file: Path) -> Weights:
    import numpy as np
    import torch

    with np.load(file) as archive:
        read: dict[str, Any] = {name: torch.from_numpy(archive[name]).float() for name in NAMES}
    return Weights(read["W_enc"], read["b_enc"], read["W_dec"], read["b_dec"], read["threshold"])
