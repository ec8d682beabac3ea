"""SAELens's own files, `cfg.json` and `sae_weights.safetensors`, read without SAELens and run as it
runs them.

One folder an SAE. Configs older than SAELens 6 are flat and have other names; they are converted
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from toolkit.errors import BadInput
from toolkit.files.hub import Snapshot, fetch, offline
from toolkit.files.local import content_digest, read_json
from toolkit.hookpoints import hookpoint
from toolkit_saes.encode.canonical import Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.tensors import (
    refuse_pickles,
    safetensors_shapes,
    safetensors_weights,
)
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts.base import FolderLayout
from toolkit_saes.layouts.layers import chosen
from toolkit_saes.layouts.location import SaeLocation
from toolkit_saes.layouts.saelens_config import (
    ARCHITECTURES,
    NORMS,
    describe,
    hookpoint_of,
    input_scale,
    subtracts_b_dec,
    up_to_date,
)

FILES = ("cfg.json", "sae_weights.safetensors")
DEPTH = 4
"""How many levels below the given folder are searched for SAEs."""


class SaeLens(SaeLocation):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (a folder with SAEs in it or
    below it).
    """

    release: str | None = Field(
        None, description="Repository on the hub with SAEs in SAELens's own files."
    )
    folder: str = Field(
        "", description="Folder of the release or path: one SAE, or several below it."
    )
    norm_scaling_factor: float | None = Field(
        None,
        gt=0,
        description="What inputs are multiplied by, for SAEs trained with "
        "`expected_average_only_in`; files do not hold it.",
    )


class SaeLensLayout(FolderLayout[SaeLens]):
    """One folder per SAE, at any depth; its config says where it belongs."""

    def marker(self, params: SaeLens) -> str:
        """A config."""
        return f"{params.folder or '**'}/{FILES[0]}"

    def patterns(self, params: SaeLens, snapshot: Snapshot) -> list[str]:
        """Only configs say which layer an SAE is of, so they are fetched first where some layers
        are named.
        """
        below = f"{params.folder}/" if params.folder else ""
        configs = [f"{below}{FILES[0]}", f"{below}**/{FILES[0]}"]
        if params.layers == "all" or offline():
            return [*configs, f"{below}{FILES[1]}", f"{below}**/{FILES[1]}"]
        root = fetch(snapshot, configs)
        by_layer = _by_layer(params, root, FILES[:1])
        folders = [
            folder
            for layer in chosen(params.layers, by_layer, str(params.release))
            for folder in by_layer[layer]
        ]
        return [
            (folder / name).relative_to(root).as_posix() for folder in folders for name in FILES
        ]

    def by_layer(self, params: SaeLens, root: Path) -> dict[int, list[Path]]:
        """The folders of each layer, from this one down."""
        return _by_layer(params, root)

    def locate_saes(self, params: SaeLens, root: Path) -> list[Path]:
        """The folders of the chosen layers."""
        return _folders(params, root)

    def files(self, sae: Path) -> dict[str, Path]:
        """Config and weights."""
        return {name: sae / name for name in FILES}

    def requested(self, params: SaeLens) -> str:
        """Folder, layers and the factor of a data set."""
        return f"{params.folder}:{params.layers}:{params.norm_scaling_factor or 1:g}"

    def facts(self, params: SaeLens, sae: Path, release: str) -> Facts:
        """From config and header."""
        known, file = _config(sae), sae / FILES[1]
        scale = input_scale(known, params.norm_scaling_factor, sae / FILES[0])
        digest = content_digest(self.files(sae))
        more = f"scaled by {scale:g}" if scale != 1 else ""
        return describe(known, safetensors_shapes(file), file, (release, sae.name), digest, more)

    def read(self, params: SaeLens, sae: Path) -> Weights:
        """The weights as SAELens runs them."""
        known, file = _config(sae), sae / FILES[1]
        scale = input_scale(known, params.norm_scaling_factor, sae / FILES[0])
        raw = safetensors_weights(file, safetensors_shapes(file))
        if "scaling_factor" in raw and not bool((raw["scaling_factor"] == 1).all()):
            raise BadInput(
                f"{file}: scaling_factor is not 1: SAEs fine-tuned with a factor for each feature "
                "are not read."
            )
        return convert(known, raw, scale)

    def _digest(self, params: SaeLens, root: Path, saes: Sequence[Path]) -> str:
        """The digest, with the data set's factor, which no file holds."""
        factor = f":{params.norm_scaling_factor:g}" if params.norm_scaling_factor else ""
        return super()._digest(params, root, saes) + factor


LAYOUT = SaeLensLayout()
identify, load, downloads = LAYOUT.identify, LAYOUT.load, LAYOUT.downloads


def convert(known: Mapping[str, Any], raw: Mapping[str, Any], scale: float = 1.0) -> Weights:
    """The weights from SAELens's tensors; `scale` is folded in as SAELens does, which leaves
    feature biases and thresholds unchanged.
    """
    architecture = ARCHITECTURES[known["architecture"]]
    w_enc, w_dec = Matrix(raw["W_enc"], turned=True), Matrix(raw["W_dec"])
    b_enc = raw["b_gate" if architecture.gate == "gated" else "b_enc"]
    inwards, outwards = b_enc.new_full(b_enc.shape, scale), b_enc.new_full(b_enc.shape, 1 / scale)
    if known.get("rescale_acts_by_decoder_norm") and architecture.gate in ("topk", "abstopk"):
        lengths = w_dec.lengths() / scale
        inwards, b_enc, outwards = (
            inwards * lengths,
            b_enc * lengths,
            outwards / lengths.clamp(min=1e-20),
        )
    return Weights(
        w_enc=replace(w_enc, scale=inwards),
        b_enc=b_enc,
        w_dec=replace(w_dec, scale=outwards),
        b_dec=raw["b_dec"] / scale,
        threshold=raw.get("threshold"),
        gate=architecture.gate,
        k=int(known.get("k", 0)),
        r_mag=raw.get("r_mag"),
        b_mag=raw.get("b_mag"),
        skip=Matrix(raw["W_skip"]) if "W_skip" in raw else None,
        subtract_b_dec=subtracts_b_dec(known, architecture),
        norm=NORMS[known["normalize_activations"]],
        undo_norm=not architecture.transcoder,
    )


def _config(folder: Path) -> dict[str, Any]:
    return up_to_date(read_json(folder / FILES[0]), folder / FILES[0])


def sae_folders(root: Path, names: Sequence[str] = FILES) -> list[Path]:
    """The folders, from this one down, that hold an SAE in these files."""
    folders = [
        root,
        *(
            path
            for depth in range(1, DEPTH + 1)
            for path in sorted(root.glob("/".join("*" * depth)))
        ),
    ]
    return [
        folder
        for folder in folders
        if folder.is_dir() and all((folder / name).is_file() for name in names)
    ]


def _by_layer(params: SaeLens, root: Path, names: Sequence[str] = FILES) -> dict[int, list[Path]]:
    root = root / params.folder
    if not root.is_dir():
        raise BadInput(f"saes.with.folder: {root} is not a folder.")
    results: dict[int, list[Path]] = {}
    for folder in sae_folders(root, names):
        point = hookpoint_of(_config(folder)["metadata"], "hook_name", folder / FILES[0])
        results.setdefault(hookpoint(point).layer, []).append(folder)
    return results


def _folders(params: SaeLens, root: Path) -> list[Path]:
    folders = _by_layer(params, root)
    if not folders:
        for folder in (
            root / params.folder,
            *(path.parent for path in sorted((root / params.folder).glob("*/cfg.json"))),
        ):
            refuse_pickles(folder)
        raise BadInput(
            f"{root / params.folder} holds no SAEs of SAELens: there is no cfg.json with "
            "sae_weights.safetensors in it."
        )
    layers = chosen(params.layers, folders, params.release or root.name)
    return [folder for layer in layers for folder in folders[layer]]
