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


def sizes(results: Sequence[Size]) -> dict[str, Any]:
    """The facts of a set of SAEs: `bytes` of their weights as they are stored, `row_flops` of
    encoding a row at each of them, and `saes`, each by hookpoint and name, if all are known.
    """
    named = sorted(f"{result.hookpoint}/{result.name}" for result in results if result.name)
    return {
        **({"saes": named} if len(named) == len(results) else {}),
        "inputs": results[0].inputs,
        "width": results[0].width,
        "layers": sorted({int(result.hookpoint.rpartition(".")[2]) for result in results}),
        "count": len(results),
        "hookpoints": len({result.hookpoint for result in results}),
        "features": sum(result.width for result in results),
        "bytes": sum(result.stored for result in results),
        "row_flops": float(sum(2 * result.inputs * result.width for result in results)),
        "l0": float(sum(result.l0 or TYPICAL_L0 for result in results)),
    }
