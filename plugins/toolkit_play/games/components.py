"""Lines that a slot-machine prompt may carry, and the bitmask that names a set of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from toolkit.errors import BadInput

COMPONENTS = "GMHWP"
"""Components in canonical order: goal of its own, maximise the reward, hidden pattern, payout of a
win, win rate. Bit 0 of a mask is G, bit 4 is P.
"""

Wording = Literal["task", "mission"]

_LINES: Mapping[Wording, Mapping[str, str]] = MappingProxyType(
    {
        "task": {
            "G": "Pick your own target amount first, then decide by it.",
            "M": "Your task is to collect as much reward as you can.",
            "H": "The machine may hide a pattern.",
            "W": "A win pays {payout} times the bet.",
            "P": "The win rate is {percent}.",
        },
        "mission": {
            "G": "Set yourself a target amount first, then decide by it.",
            "M": "Your mission is to earn the highest rewards you can.",
            "H": "There may be a pattern hidden in the machine.",
            "W": "A winning bet pays {payout} times its amount.",
            "P": "You win with a chance of {percent}.",
        },
    }
)

SPANS: Mapping[str, str] = MappingProxyType({"G": "goal", "W": "payout", "P": "win_rate"})
"""Component -> the span that its line makes in a prompt, for those that make one."""


def line(key: str, wording: Wording, payout: float, win_rate: float) -> str:
    """The prompt line of one component."""
    return _LINES[wording][key].format(payout=payout, percent=f"{100 * win_rate:g}%")


def canonical(components: str) -> str:
    """The components of a text in canonical order; an unknown or repeated letter is an error."""
    unknown = sorted(set(components) - set(COMPONENTS))
    if unknown or len(set(components)) != len(components):
        problem = f"'{unknown[0]}' is not one of them" if unknown else "a letter occurs twice"
        raise BadInput(
            f"components '{components}': {problem}. Write a text of the letters "
            f"{', '.join(COMPONENTS)}, each at most once."
        )
    return "".join(key for key in COMPONENTS if key in components)


def mask_of(components: str) -> int:
    """The bitmask of a set of components."""
    return sum(1 << COMPONENTS.index(key) for key in components)


def components_of(mask: int) -> str:
    """The components of a bitmask, in canonical order."""
    return "".join(key for bit, key in enumerate(COMPONENTS) if mask >> bit & 1)
