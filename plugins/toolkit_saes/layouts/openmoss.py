"""OpenMOSS's layouts of 2025 and 2026: `config.json` and `sae_weights.safetensors`, in training
units, run in the dataset-wise form.

Activations are in training units, not multiplied by decoder norms; the gate may rank by the
product. Upstream's own fold of the norms does not rescale the thresholds and changes what fires, so
nothing is folded here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import BadInput, choices
from toolkit.files.local import content_digest, read_json
from toolkit.hookpoints import hookpoint
from toolkit_saes.encode.canonical import Facts
from toolkit_saes.encode.gates import BY_FEATURE
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.tensors import (
    check_axes,
    check_shapes,
    refuse_pickles,
    safetensors_shapes,
    safetensors_weights,
)
from toolkit_saes.encode.weights import Gate, Weights
from toolkit_saes.layouts import config
from toolkit_saes.layouts.releases import llama_page

FILES = ("config.json", "sae_weights.safetensors")
NORM = "dataset_average_activation_norm."
ACTS = ("relu", "jumprelu", "topk", "batchtopk")
NORMS = ("dataset-wise", "inference", "token-wise")
TYPES = ("sae", "transcoder")


class TensorNames(NamedTuple):
    """The tensors' names; `turned`: matrices are stored with features in rows of the encoder,
    columns of the decoder.
    """

    w_enc: str
    b_enc: str
    w_dec: str
    b_dec: str
    threshold: str
    turned: bool


OLD = TensorNames(
    "encoder.weight",
    "encoder.bias",
    "decoder.weight",
    "decoder.bias",
    "log_jumprelu_threshold",
    True,
)
NEW = TensorNames("W_E", "b_E", "W_D", "b_D", "activation_function.log_jumprelu_threshold", False)
OTHER_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")


def is_sae(folder: Path) -> bool:
    """Whether a folder is in one of these layouts, by its config."""
    file = folder / FILES[0]
    return (
        file.is_file()
        and not (folder / "hyperparams.json").exists()
        and bool({"sae_type", "act_fn"} & set(read_json(file)))
    )


def facts(folder: Path, release: str) -> Facts:
    """From config and header."""
    known, file = _config(folder), _weights_file(folder)
    shapes = safetensors_shapes(file)
    layout = _layout(file, shapes)
    inputs, width = _sizes(known, folder)
    _check(file, shapes, layout, known, inputs, width)
    gate = _gate(known, shapes, file)
    point, end = (
        config.hookpoint_of(known, side, folder / FILES[0])
        for side in ("hook_point_in", "hook_point_out")
    )
    ranked = ", gate on decoder norms" if known["sparsity_include_decoder_norm"] else ""
    recipe = (
        f"openmoss: {known['act_fn']}{ranked}, {known['norm_activation']} norms, in training units"
    )
    if point != end and known["norm_activation"] == "token-wise":
        raise BadInput(
            f"{folder / FILES[0]}: norm_activation is 'token-wise', and the norm of {end}, where "
            "it writes, is not known."
        )
    return Facts(
        name=folder.name,
        release=release,
        hookpoint=point,
        width=width,
        inputs=inputs,
        digest=content_digest({name: folder / name for name in FILES}),
        recipe=recipe if point == end else f"{recipe}; writes {end}",
        declared_l0=float(known["top_k"])
        if gate == "topk" or known["act_fn"] == "batchtopk"
        else None,
        output=None if point == end else (end, inputs),
        neuronpedia=llama_page(release, folder.parent.name, hookpoint(point).layer),
        pointwise=gate in BY_FEATURE,
    )


def read_weights(folder: Path) -> Weights:
    """The tensors as stored, with the two scales."""
    import torch

    known, file = _config(folder), _weights_file(folder)
    shapes = safetensors_shapes(file)
    layout, (inputs, width) = _layout(file, shapes), _sizes(known, folder)
    raw = safetensors_weights(file, shapes)
    w_enc = Matrix(raw[layout.w_enc], turned=not layout.turned)
    w_dec = Matrix(raw[layout.w_dec], turned=layout.turned)
    threshold = _threshold(shapes)
    return Weights(
        w_enc=w_enc,
        b_enc=raw[layout.b_enc] if layout.b_enc in raw else torch.zeros(width),
        w_dec=w_dec,
        b_dec=raw[layout.b_dec] if layout.b_dec in raw else torch.zeros(inputs),
        threshold=raw[threshold].exp() if threshold else None,
        gate=_gate(known, shapes, file),
        k=min(int(known["top_k"]), width),
        rank_by=w_dec.lengths() if known["sparsity_include_decoder_norm"] else None,
        scale_in=_scale(known, raw, "hook_point_in", file),
        scale_out=_scale(known, raw, "hook_point_out", file),
        norm="row" if known["norm_activation"] == "token-wise" else "none",
    )


def _config(folder: Path) -> dict[str, Any]:
    """config.json with upstream's defaults; kinds of models that are not SAEs are refused."""
    file = folder / FILES[0]
    known = {
        "sae_type": "sae",
        "act_fn": "relu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True,
        "use_glu_encoder": False,
        "apply_decoder_bias_to_pre_encoder": False,
        "top_k": 50,
        **read_json(file),
    }
    for name in ("d_model", "expansion_factor", "hook_point_in"):
        if name not in known:
            raise BadInput(f"{file} has no {name!r}: it is not in OpenMOSS's layout.")
    if isinstance(known["act_fn"], str):
        known["act_fn"] = known["act_fn"].lower()
    known["hook_point_out"] = known.get("hook_point_out") or known["hook_point_in"]
    for name, allowed in (("sae_type", TYPES), ("act_fn", ACTS), ("norm_activation", NORMS)):
        config.one_of(known[name], name, allowed, file, "llama_scope")
    for name in ("sparsity_include_decoder_norm", "use_decoder_bias"):
        config.flag(known, name, file)
    for name in ("use_glu_encoder", "apply_decoder_bias_to_pre_encoder"):
        if known[name]:
            raise BadInput(
                f"{file}: {name} is {config.shown(known[name])}; `llama_scope` reads only SAEs "
                "without it."
            )
    config.positive_integer(known, "top_k", file)
    return known


def _sizes(known: dict[str, Any], folder: Path) -> tuple[int, int]:
    file = folder / FILES[0]
    inputs = config.positive_integer(known, "d_model", file)
    factor = config.positive(known["expansion_factor"], "expansion_factor", file)
    return inputs, int(inputs * factor)


def _weights_file(folder: Path) -> Path:
    file = folder / FILES[1]
    if file.exists():
        return file
    if (folder / "sae_weights.dcp").exists():
        raise BadInput(
            f"{folder}: sae_weights.dcp is a distributed checkpoint, which holds pickles. It is "
            "not opened. Save it as sae_weights.safetensors with OpenMOSS's own code."
        )
    refuse_pickles(folder)
    raise BadInput(f"{folder} has no sae_weights.safetensors. Copy or download the folder again.")


def _layout(file: Path, shapes: dict[str, tuple[int, ...]]) -> TensorNames:
    results = [layout for layout in (OLD, NEW) if layout.w_enc in shapes and layout.w_dec in shapes]
    if len(results) != 1:
        raise BadInput(
            f"{file} has {'both' if results else 'neither'} encoder.weight and decoder.weight "
            "(2025) and W_E and W_D (2026): it is not in one of OpenMOSS's layouts. It holds "
            f"{choices(shapes)}."
        )
    return results[0]


def _check(
    file: Path,
    shapes: dict[str, tuple[int, ...]],
    layout: TensorNames,
    known: dict[str, Any],
    inputs: int,
    width: int,
) -> None:
    check_axes(file, inputs, width, inputs)
    turn = -1 if layout.turned else 1
    expected = {
        layout.w_enc: (inputs, width)[::turn],
        layout.w_dec: (width, inputs)[::turn],
        layout.b_enc: (width,),
    }
    if known["use_decoder_bias"]:
        expected[layout.b_dec] = (inputs,)
    if threshold := _threshold(shapes):
        expected[threshold] = (width,)
    missing = ": it is not in OpenMOSS's layout"
    check_shapes(file, shapes, expected, config="config.json", missing=missing)
    if known["norm_activation"] == "dataset-wise":
        for side in ("hook_point_in", "hook_point_out"):
            if NORM + str(known[side]) not in shapes:
                raise BadInput(
                    f"{file} has no tensor '{NORM}{known[side]}': the norm that inputs are scaled "
                    "by is missing."
                )


def _gate(known: dict[str, Any], shapes: dict[str, tuple[int, ...]], file: Path) -> Gate:
    """The gate. BatchTopK chooses over a batch in training; a single row needs the thresholds that
    are stored after it.
    """
    act, stored = known["act_fn"], _threshold(shapes) is not None
    if act in ("jumprelu", "batchtopk") and not stored:
        raise BadInput(
            f"{file}: act_fn is {act}, and it has no log_jumprelu_threshold: "
            + (
                "it is damaged."
                if act == "jumprelu"
                else "what fires would depend on the batch. Export it as jumprelu with "
                "upstream's code."
            )
        )
    gates: dict[str, Gate] = {
        "relu": "relu",
        "topk": "topk",
        "jumprelu": "jumprelu",
        "batchtopk": "jumprelu",
    }
    return gates[act]


def _threshold(shapes: Any) -> str | None:
    return next((name for name in OTHER_THRESHOLDS if name in shapes), None)


def _scale(known: dict[str, Any], raw: Any, side: str, file: Path) -> float:
    """sqrt(d) over the data set's average norm at a hookpoint; upstream uses d_model for input and
    output.
    """
    if known["norm_activation"] != "dataset-wise":
        return 1.0
    name = NORM + str(known[side])
    return float(known["d_model"] ** 0.5) / config.positive(
        float(raw[name].reshape(-1)[0]), name, file
    )
