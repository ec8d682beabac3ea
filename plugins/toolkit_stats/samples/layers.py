"""Parses which layers of a model a stage reads: `all`, `8`, `1-31`, `1-`, `[8, 15, 31]`, `kept`."""

from __future__ import annotations

import re

from toolkit.errors import DataError

Layers = str | int | tuple[int, ...]
HELP = (
    "all, 8, 1-31, 1- (to the last) or [8, 15, 31]; layers count from 0, and the stream is "
    "taken after the layer."
)
KEPT = "kept"
"""Layers whose stream an extraction kept; a model alone has none."""
MOST = 10_000


def hookpoints(requested: Layers, layers: int, model: str) -> list[str]:
    """The streams after the requested layers; one that the model does not have is an error."""
    if requested == KEPT:
        raise DataError(
            f"layers: {requested!r} is the layers whose stream an extraction kept, and none that "
            f"this stage needs kept any of {model}: add one to `needs` that has `stream: last`, or "
            "name layers."
        )
    numbers = (
        list(range(layers)) if requested == "all" else sorted(set(_numbers(requested, layers)))
    )
    missing = [number for number in numbers if not 0 <= number < layers]
    if missing or not numbers:
        named = f"names layer {missing[0]}" if missing else "names no layer"
        raise DataError(f"layers: {requested!r} {named}; {model} has the layers 0 to {layers - 1}.")
    return [f"resid_post.{number}" for number in numbers]


def _numbers(requested: Layers, layers: int) -> list[int]:
    if isinstance(requested, int):
        return [requested]
    if not isinstance(requested, str):
        return list(requested)
    if span := re.fullmatch(r"\s*(\d+)\s*-\s*(\d*)\s*", requested):
        return list(range(int(span[1]), min(int(span[2]), MOST) + 1 if span[2] else layers))
    if re.fullmatch(r"\s*\d+\s*", requested):
        return [int(requested)]
    raise DataError(
        f"layers: {requested!r} is not understood. Write all, 8, 1-31, 1- (to the last), [8, 15, "
        f"31] or {KEPT}."
    )
