"""The layers of a stage without SAEs: `all`, `8`, `1-31`, `1-` or `[8, 15, 31]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import BadInput

Layers = str | int | tuple[int, ...]
HELP = "all, 8, 1-31, 1- (to the last) or [8, 15, 31]; layers count from 0"
_RANGE = re.compile(r"\s*(\d{1,5})\s*-\s*(\d{0,5})\s*")


def layer_numbers(requested: Layers, layers: int, model: str) -> list[int]:
    """The requested layers; a layer that the model does not have is an error."""
    chosen = list(range(layers)) if requested == "all" else sorted(set(_numbers(requested, layers)))
    missing = [number for number in chosen if not 0 <= number < layers]
    if missing or not chosen:
        named = f"names layer {missing[0]}" if missing else "names no layer"
        raise BadInput(f"layers: {requested!r} {named}; {model} has the layers 0 to {layers - 1}.")
    return chosen


def check_layers(params: Any, facts: Mapping[str, Any]) -> str | None:
    """Why a model with these facts does not have the layers that `params.layers` names; None if it
    has them, or if its number of layers is unknown.
    """
    if "layers" not in facts:
        return None
    try:
        layer_numbers(params.layers, int(facts["layers"]), "the model")
    except BadInput as error:
        return str(error)
    return None


def _numbers(requested: Layers, layers: int) -> Sequence[int]:
    if isinstance(requested, int):
        return [requested]
    if not isinstance(requested, str):
        return requested
    if span := _RANGE.fullmatch(requested):
        return range(int(span[1]), int(span[2]) + 1 if span[2] else layers)
    if requested.strip().isdigit():
        return [int(requested)]
    raise BadInput(f"layers: {requested!r} is not understood. Write {HELP}.")
