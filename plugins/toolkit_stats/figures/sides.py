"""The colours of the two sides of a contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit import figures as draw

if TYPE_CHECKING:
    from toolkit_stats.compare.contrasts import ContrastTable

HIGHER_IN_A, HIGHER_IN_B = "var(--computed)", "var(--failed)"


def key_of_sides(contrast: ContrastTable) -> str:
    """The key of colours: one for each group in which features are higher."""
    return draw.key(
        [(HIGHER_IN_A, f"higher in {contrast.a}"), (HIGHER_IN_B, f"higher in {contrast.b}")]
    )
