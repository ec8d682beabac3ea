"""Which layers a stage without SAEs looks at: `all`, `8`, `1-31`, `1-` or `[8, 15, 31]`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolkit.errors import BadInput

Layers = str | int | tuple[int, ...]
HELP = "all, 8, 1-31, 1- (to the last) or [8, 15, 31]; layers count from 0"
_RANGE = re.compile(r"\s*(\d{1,5})\s*-\s*(\d{0,5})\s*")


def layer_numbers(given: Layers, layers: int, model: str) -> list[int]:
    """The layers that are meant; one that the model does not have is an error."""
    chosen = list(range(layers)) if given == "all" else sorted(set(_numbers(given, layers)))
    missing = [number for number in chosen if not 0 <= number < layers]
    if missing or not chosen:
        named = f"names layer {missing[0]}" if missing else "names no layer"
        raise BadInput(f"layers: {given!r} {named}; {model} has the layers 0 to {layers - 1}.")
    return chosen


def _numbers(given: Layers, layers: int) -> Sequence[int]:
    if isinstance(given, int):
        return [given]
    if not isinstance(given, str):
        return given
    if span := _RANGE.fullmatch(given):
        return range(int(span[1]), int(span[2]) + 1 if span[2] else layers)
    if given.strip().isdigit():
        return [int(given)]
    raise BadInput(f"layers: {given!r} is not understood. Write {HELP}.")
