"""SAELens's `cfg.json`: how an SAE is run, where it belongs, and its sizes. Configs older than
SAELens 6 are flat and have other names; they are converted first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import BadInput, choices, nearest
from toolkit.hookpoints import Hookpoint, hookpoint
from toolkit_saes.encode.canonical import Facts
from toolkit_saes.encode.gates import BY_FEATURE
from toolkit_saes.encode.tensors import (
    Shapes,
    check_axes,
    check_shapes,
)
from toolkit_saes.encode.weights import Gate, Norm
from toolkit_saes.layouts import config


class Architecture(NamedTuple):
    """How SAELens runs an SAE: the gate, the tensors besides W_enc, W_dec and b_dec, and whether it
    is a transcoder.
    """

    gate: Gate
    tensors: tuple[str, ...]
    transcoder: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "standard": Architecture("relu", ("b_enc",)),
    "gated": Architecture("gated", ("b_gate", "b_mag", "r_mag")),
    "jumprelu": Architecture("jumprelu", ("b_enc", "threshold")),
    "topk": Architecture("topk", ("b_enc",)),
    "abstopk": Architecture("abstopk", ("b_enc",)),
    "transcoder": Architecture("relu", ("b_enc",), True),
    "jumprelu_transcoder": Architecture("jumprelu", ("b_enc", "threshold"), True),
    "skip_transcoder": Architecture("relu", ("b_enc", "W_skip"), True),
    "jumprelu_skip_transcoder": Architecture("jumprelu", ("b_enc", "threshold", "W_skip"), True),
}

ADVICE = {
    "batchtopk": "It is the form in training; SAELens saves the finished SAE as jumprelu.",
    "matryoshka_batchtopk": "It is the form in training; SAELens saves the finished SAE as "
    "jumprelu.",
}

NORMS: dict[str, Norm] = {
    "none": "none",
    "constant_norm_rescale": "row",
    "layer_norm": "layer",
    "expected_average_only_in": "none",
}

OWN_NAMES = {"hook_mlp_in": "resid_mid", "hook_attn_in": "resid_pre"}
"""Hookpoint names of SAELens's models that `hookpoint` does not parse."""


def describe(
    known: Mapping[str, Any],
    shapes: Shapes,
    file: Path,
    name: tuple[str, str],
    digest: str,
    more: str = "",
) -> Facts:
    """The facts in a current config, checked against the tensors; `name` has those of the release
    and the SAE.
    """
    architecture, metadata = architecture_of(known, file), known["metadata"]
    inputs, width = (
        config.positive_integer(known, "d_in", file),
        config.positive_integer(known, "d_sae", file),
    )
    outputs = config.positive_integer(known, "d_out", file) if architecture.transcoder else inputs
    _check_shapes(file, architecture, shapes, inputs, width, outputs)
    if metadata.get("hook_head_index") is not None:
        raise BadInput(
            f"{file}: hook_head_index is {metadata['hook_head_index']!r}: SAEs of a single head "
            "are not read."
        )
    point = hookpoint_of(metadata, "hook_name", file)
    end = (
        hookpoint_of(metadata, "hook_name_out", file)
        if architecture.transcoder and metadata.get("hook_name_out")
        else point
    )
    page = metadata.get("neuronpedia_id")
    return Facts(
        name=name[1],
        release=name[0],
        hookpoint=point,
        width=width,
        inputs=inputs,
        digest=digest,
        recipe=_recipe(known, architecture, "" if point == end else f"writes {end}", more),
        declared_l0=float(active_features(known, width, file))
        if architecture.gate in ("topk", "abstopk")
        else None,
        output=(end, outputs) if architecture.transcoder else None,
        neuronpedia=str(page) if page else None,
        signed=architecture.gate == "abstopk",
        pointwise=architecture.gate in BY_FEATURE,
    )


def _recipe(known: Mapping[str, Any], architecture: Architecture, *more: str) -> str:
    """How the SAE is run, for people."""
    norm = known["normalize_activations"]
    parts = [
        f"saelens: {known['architecture']}",
        "b_dec subtracted" if subtracts_b_dec(known, architecture) else "",
        "" if norm == "none" else f"{norm} inputs",
        *more,
    ]
    return "; ".join(part for part in parts if part)


def active_features(known: Mapping[str, Any], width: int, file: Path) -> int:
    k = config.positive_integer(known, "k", file)
    if k > width:
        raise BadInput(f"{file}: k is {k}; the SAE has {width} features.")
    return k


def up_to_date(results: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A config in the form of SAELens 6, from that or from the flat one before it."""
    metadata = config.mapping(results, "metadata", file)
    version_text = results.get("sae_lens_version") or metadata.get("sae_lens_version") or "0"
    version = re.match(r"\d{1,6}", str(version_text))
    nested = isinstance(results.get("metadata"), dict)
    known = (
        dict(results) if nested and version and int(version[0]) >= 6 else _from_flat(results, file)
    )
    if known.get("finetuning_scaling_factor"):
        raise BadInput(
            f"{file}: finetuning_scaling_factor is set: SAEs fine-tuned with a factor for each "
            "feature are not read."
        )
    for name in ("d_in", "d_sae", "architecture"):
        if name not in known:
            raise BadInput(f"{file} has no {name!r}: it is not a config of SAELens.")
    norm = known.get("normalize_activations") or "none"
    config.one_of(norm, "normalize_activations", NORMS, file, "saelens")
    return {**known, "normalize_activations": norm, "metadata": known.get("metadata") or {}}


def _from_flat(results: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Convert a config older than 6.0 as SAELens does."""
    renamed = {
        "hook_point": "hook_name",
        "hook_point_head_index": "hook_head_index",
        "activation_fn_str": "activation_fn",
    }
    known = {renamed.get(name, name): value for name, value in results.items()}
    arguments = config.mapping(known, "activation_fn_kwargs", file)
    known.setdefault("architecture", "standard")
    known.setdefault("apply_b_dec_to_input", True)
    if known.get("activation_fn") == "topk" and arguments.get("k") is not None:
        known |= {"architecture": "topk", "k": arguments["k"]}
    if isinstance(known.get("normalize_activations"), bool):
        known["normalize_activations"] = (
            "expected_average_only_in" if known["normalize_activations"] else "none"
        )
    known["metadata"] = {
        **config.mapping(known, "metadata", file),
        **{name: known[name] for name in _ABOUT if name in known},
    }
    return known


_ABOUT = (
    "hook_name",
    "hook_name_out",
    "hook_head_index",
    "neuronpedia_id",
    "model_name",
    "prepend_bos",
)


def architecture_of(known: Mapping[str, Any], file: Path) -> Architecture:
    name = known["architecture"]
    if not isinstance(name, str) or name not in ARCHITECTURES:
        name = str(name)[:80]
        advice = ADVICE.get(name, nearest(name, ARCHITECTURES).strip())
        raise BadInput(
            f"{file}: architecture is {name!r}; `saelens` reads {choices(ARCHITECTURES)}. "
            f"{advice}".strip()
        )
    return ARCHITECTURES[name]


def subtracts_b_dec(known: Mapping[str, Any], architecture: Architecture) -> bool:
    return bool(known.get("apply_b_dec_to_input", True)) and not architecture.transcoder


def input_scale(known: Mapping[str, Any], factor: float | None, file: Path) -> float:
    """The data set's factor, for an SAE trained with one that its files do not hold."""
    if known["normalize_activations"] != "expected_average_only_in":
        if factor is not None:
            raise BadInput(
                f"saes.with.norm_scaling_factor: {file} says normalize_activations "
                f"{known['normalize_activations']!r}: leave it out."
            )
        return 1.0
    if factor is None:
        raise BadInput(
            f"{file}: normalize_activations is 'expected_average_only_in', and the factor is not "
            "in the files. Give `norm_scaling_factor:` (sqrt(d_in) over the mean norm of the "
            "training data); 1 runs it as SAELens does without it."
        )
    return config.positive(factor, "norm_scaling_factor", file)


def hookpoint_of(metadata: Mapping[str, Any], key: str, file: Path) -> str:
    name = metadata.get(key)
    if not name or not isinstance(name, str) or len(name) > 200:
        raise BadInput(
            f"{file} has no {key!r} in its metadata: where the SAE belongs is not known."
        )
    parts = str(name).split(".")
    if parts[0] == "blocks" and len(parts) == 3 and parts[2] in OWN_NAMES and parts[1].isdigit():
        return str(Hookpoint(OWN_NAMES[parts[2]], int(parts[1])))
    try:
        return str(hookpoint(str(name)))
    except BadInput as error:
        raise BadInput(f"{file}: {key}: {error}") from None


def _check_shapes(
    file: Path, architecture: Architecture, shapes: Shapes, inputs: int, width: int, outputs: int
) -> None:
    check_axes(file, inputs, width, outputs)
    expected = {"W_enc": (inputs, width), "W_dec": (width, outputs), "b_dec": (outputs,)}
    expected |= {
        name: (outputs, inputs) if name == "W_skip" else (width,) for name in architecture.tensors
    }
    check_shapes(file, shapes, expected, config="cfg.json", missing=f"; it holds {choices(shapes)}")
    strange = [
        name
        for name in shapes
        if name not in expected and not (name == "scaling_factor" and shapes[name] == (width,))
    ]
    if strange:
        raise BadInput(
            f"{file} has a tensor '{strange[0]}' that an SAE of this architecture does not have: "
            "it would be run wrongly."
        )
