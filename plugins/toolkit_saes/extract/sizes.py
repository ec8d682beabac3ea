"""What SAEs say of themselves before they are loaded: the facts of their identity, from which plans
and prices are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TYPICAL_L0 = 64.0
"""Features of a row where an SAE does not declare how many."""


@dataclass(frozen=True)
class Size:
    """One SAE: where it reads, how many numbers, its features, how many are active as it declares,
    the bytes of its weights, and its name, where it is known.
    """

    hookpoint: str
    inputs: int
    width: int
    l0: float | None
    stored: int
    name: str = ""


def sizes(found: Sequence[Size]) -> dict[str, Any]:
    """The facts of a set of SAEs: `bytes` of their weights as they are stored, `row_flops` of
    encoding a row at each of them, and `saes`, each by hookpoint and name, if all are known.
    """
    named = sorted(f"{one.hookpoint}/{one.name}" for one in found if one.name)
    return {
        **({"saes": named} if len(named) == len(found) else {}),
        "inputs": found[0].inputs,
        "width": found[0].width,
        "layers": sorted({int(one.hookpoint.rpartition(".")[2]) for one in found}),
        "count": len(found),
        "hookpoints": len({one.hookpoint for one in found}),
        "features": sum(one.width for one in found),
        "bytes": sum(one.stored for one in found),
        "row_flops": float(sum(2 * one.inputs * one.width for one in found)),
        "l0": float(sum(one.l0 or TYPICAL_L0 for one in found)),
    }
