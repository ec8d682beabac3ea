"""Gemma Scope 1's files: what a path says of its SAE, and what an archive's headers say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from toolkit.errors import BadInput
from toolkit.files.local import content_digest
from toolkit_saes.encode.canonical import Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.tensors import archive_shapes, archive_weights, check_axes, swapped
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts.releases import gemma_page

RECIPE = "gemma_scope: jumprelu, thresholds per feature, used as stored"

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


class SiteHookpoints(NamedTuple):
    """The hookpoints where the SAEs of a site read and, if different, write; and its name in the
    recipe.
    """

    reads: str
    writes: str | None = None


SITES: dict[str, SiteHookpoints] = {
    "res": SiteHookpoints("resid_post"),
    "mlp": SiteHookpoints("mlp_out"),
    "att": SiteHookpoints("attn_z"),
    "transcoders": SiteHookpoints("mlp_in_normed", "mlp_out"),
    "embedding": SiteHookpoints("resid_pre"),
}


def layer_of_file(file: Path) -> int:
    return int(file.parts[-4].removeprefix("layer_")) if file.parts[-4] != "embedding" else 0


def name_of_file(file: Path) -> str:
    return "/".join(file.parts[-4:-1])


def l0_of_file(file: Path) -> int:
    match = re.fullmatch(r"average_l0_(\d+)", file.parts[-2])
    return int(match[1]) if match else 0


def facts_of_file(file: Path, release: str, site: str) -> Facts:
    inputs, width, outputs = shape_of_file(file)
    hookpoints, layer = SITES[site], layer_of_file(file)
    if inputs != outputs and hookpoints.writes is None:
        raise BadInput(
            f"{file}: it reads {inputs} numbers and writes {outputs}: it is a transcoder. Set "
            "`site: transcoders`."
        )
    name = name_of_file(file)
    recipe = {"res": RECIPE, "embedding": f"{RECIPE}, in units of the stream"}.get(
        site, f"{RECIPE}; {site}"
    )
    return Facts(
        name=name,
        release=release,
        hookpoint=f"{hookpoints.reads}.{layer}",
        width=width,
        inputs=inputs,
        digest=content_digest({"params.npz": file}),
        recipe=recipe,
        declared_l0=float(l0_of_file(file)) or None,
        output=(f"{hookpoints.writes}.{layer}", outputs) if hookpoints.writes else None,
        neuronpedia=None
        if site == "embedding"
        else gemma_page(release, file.parts[-3].removeprefix("width_"), layer, l0_of_file(file)),
    )


def shape_of_file(file: Path) -> tuple[int, int, int]:
    """The shape of W_enc from the archive's headers, and the width that W_dec writes; other arrays
    are checked against it.
    """
    shapes = archive_shapes(file, NAMES)
    missing = [name for name in NAMES if name not in shapes]
    if missing:
        raise BadInput(f"{file} has no array '{missing[0]}': it is not in Gemma Scope's layout.")
    if len(shapes["W_enc"]) != 2:
        raise BadInput(f"{file}: W_enc is {shapes['W_enc']}; expected (inputs, features).")
    inputs, width = shapes["W_enc"]
    if shapes["b_enc"] == (inputs,) != (width,):
        raise BadInput(
            f"{file}: W_enc is {shapes['W_enc']}, and b_enc has {inputs} features: its axes are "
            "swapped."
        )
    outputs = shapes["b_dec"][0] if len(shapes["b_dec"]) == 1 else inputs
    expected = {
        "b_enc": (width,),
        "W_dec": (width, outputs),
        "b_dec": (outputs,),
        "threshold": (width,),
    }
    for name, shape in expected.items():
        if shapes[name] != shape:
            problem = (
                f"{file}: {name} is {shapes[name]}; W_enc, {shapes['W_enc']}, asks for {shape}."
            )
            raise BadInput(problem + swapped(shapes[name], shape))
    check_axes(file, inputs, width, outputs)
    return inputs, width, outputs


def read_weights(file: Path) -> Weights:
    """The weights as stored; those of an embedding SAE in units of the stream."""
    read = archive_weights(file, NAMES)
    scale = 1.0 if file.parts[-4] != "embedding" else len(read["b_dec"]) ** -0.5
    return Weights(
        w_enc=Matrix(read["W_enc"], turned=True),
        b_enc=read["b_enc"],
        w_dec=Matrix(read["W_dec"]),
        b_dec=read["b_dec"],
        threshold=read["threshold"],
        scale_in=scale,
        scale_out=scale,
    )
