"""How a spec names layers: `all`, `1-31`, `8`, `[8, 15, 31]`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from toolkit.errors import BadInput

MOST = 10_000
"""An upper bound of layers: a typo in a spec must not fill the memory with numbers."""
Layers = str | int | tuple[int, ...]


def chosen(requested: Layers, available: Iterable[int], release: str) -> list[int]:
    """The requested layers in order; one that the release does not have is an error that lists
    those it has.
    """
    known = sorted(set(available))
    layers = known if requested == "all" else sorted(set(_numbers(requested)))
    missing = [layer for layer in layers if layer not in known]
    if missing:
        raise BadInput(
            f"saes.with.layers: {release} has no SAE for layer {missing[0]}; it has "
            f"{_ranges(known)}. Layers count from 0."
        )
    if not layers:
        raise BadInput(
            f"saes.with.layers: {requested!r} names no layer; {release} has {_ranges(known)}."
        )
    return layers


def all_there(requested: Layers, available: Iterable[int]) -> bool:
    """Whether a cache certainly has every requested layer; False for `all`, whose number only the
    hub knows.
    """
    return requested != "all" and set(_numbers(requested)) <= set(available)


def _numbers(requested: Layers) -> list[int]:
    if isinstance(requested, int):
        return [requested]
    if not isinstance(requested, str):
        return list(requested)
    if span := re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", requested):
        return list(range(int(span[1]), min(int(span[2]), MOST) + 1))
    if re.fullmatch(r"\s*\d+\s*", requested):
        return [int(requested)]
    raise BadInput(
        f"saes.with.layers: {requested!r} is not understood. Write all, 8, 1-31 or [8, 15, 31]."
    )


def _ranges(layers: list[int]) -> str:
    """`0-3, 7` for [0, 1, 2, 3, 7]."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and parts[-1][-1] == layer - 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return (
        ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
        or "none"
    )
