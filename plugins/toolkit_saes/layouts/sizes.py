"""What is known of SAEs before they are loaded: facts of their identity, used in plans and cost
estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TYPICAL_L0 = 64.0
"""Active features per row, where an SAE does not declare them."""


@dataclass(frozen=True)
class Size:
    """One SAE: its hookpoint, input width, number of features, declared L0, bytes of weights, and
    name, where known.
    """

    hookpoint: str
    inputs: int
    width: int
    l0: float | None
    stored: int
    name: str = ""


def sizes(results: Sequence[Size]) -> dict[str, Any]:
    """The facts of a set of SAEs: `bytes` of the stored weights, `row_flops` to encode a row with
    each of them, and `saes` by hookpoint and name, if all are known.
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
