"""Layers by features: the strongest features of each layer as cells, coloured by their effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, RunInputs
from toolkit_stats.figures.sides import key_of_sides

if TYPE_CHECKING:
    from toolkit_stats.compare.contrasts import ContrastTable

CELLS = 24
"""The most features of a layer that are drawn."""
WIDTH, LEFT, TOP, ROW, BELOW = 720.0, 96.0, 6.0, 17.0, 40.0


def figures(inputs: RunInputs) -> Iterator[Figure]:
    """A heatmap for each contrast over several spaces."""
    from toolkit_stats.compare.contrasts import read_contrasts

    for contrast in read_contrasts(inputs):
        if heatmap := layer_heatmap(contrast):
            yield heatmap


def layer_heatmap(contrast: ContrastTable) -> Figure | None:
    """A row for each space, its features by descending |effect|; None if there is one space."""
    rows = [_strongest(contrast, number) for number in range(len(contrast.spaces))]
    shown = [(number, row) for number, row in enumerate(rows) if row]
    if len(shown) < 2:
        return None
    largest = max(abs(float(contrast.d[index])) for _, row in shown for index in row) or 1.0
    body: list[str] = []
    for line, (number, row) in enumerate(shown):
        y = TOP + ROW * line
        name = contrast.spaces[number].short[-12:]
        body.append(draw.text(LEFT - 8, y + 12, name, anchor="end"))
        body += [_cell(contrast, index, rank, y, largest) for rank, index in enumerate(row)]
    bottom = TOP + ROW * len(shown)
    body += _axes(bottom, len(shown))
    return Figure(
        contrast.name,
        key_of_sides(contrast) + draw.svg(WIDTH, bottom + BELOW, body) + _scale(contrast, largest),
        f"Heatmap of {len(shown)} layers by their features with the largest |{contrast.symbol}|.",
        [_record(contrast, index, rank) for _, row in shown for rank, index in enumerate(row, 1)],
    )


def _strongest(contrast: ContrastTable, space: int) -> list[int]:
    """Entries of a space by descending |effect|."""
    import numpy as np

    entries = np.flatnonzero((contrast.space == space) & ~np.isnan(contrast.d))
    order = entries[np.argsort(-np.abs(contrast.d[entries]), kind="stable")]
    return [int(index) for index in order[:CELLS]]


def _cell(contrast: ContrastTable, index: int, rank: int, y: float, largest: float) -> str:
    """A feature: coloured by sign, as deep as its effect, with a frame if it is significant."""
    step, effect = (WIDTH - LEFT - 8) / CELLS, float(contrast.d[index])
    depth = 0.08 + 0.92 * abs(effect) / largest
    frame = ' stroke="var(--fg)" stroke-width="1"' if contrast.significant[index] else ""
    about = draw.escaped(
        f"{contrast.address(index)}: {contrast.symbol} {draw.signed(effect)}, "
        f"q {draw.small(float(contrast.q[index]))}"
    )
    box = f'x="{LEFT + step * rank + 1:.1f}" y="{y + 1:.1f}" width="{step - 2:.1f}"'
    kind = "more" if effect > 0 else "less"
    return (
        f'<rect class="{kind}" {box} height="{ROW - 3:g}" fill-opacity="{depth:.2f}"{frame}>'
        f"<title>{about}</title></rect>"
    )


def _axes(bottom: float, lines: int) -> Iterator[str]:
    step = (WIDTH - LEFT - 8) / CELLS
    for rank in (1, *range(4, CELLS + 1, 4)):
        yield draw.text(LEFT + step * (rank - 0.5), bottom + 14, draw.number(rank), anchor="middle")
    middle = LEFT + (WIDTH - LEFT) / 2
    title = "features of the layer, the largest effect first"
    yield draw.text(middle, bottom + 34, title, anchor="middle", kind="strong")
    upwards = TOP + ROW * lines / 2
    yield draw.text(12, upwards, "layer", anchor="middle", kind="strong", turn=-90)


def _scale(contrast: ContrastTable, largest: float) -> str:
    return (
        f'<p class="faint">The deepest colour is |{contrast.symbol}| = {largest:.2f}. Features '
        "with a frame are significant.</p>"
    )


def _record(contrast: ContrastTable, index: int, rank: int) -> dict[str, Any]:
    return {
        "address": contrast.address(index),
        "rank": rank,
        contrast.effect: float(contrast.d[index]),
        "q": float(contrast.q[index]),
        "significant": bool(contrast.significant[index]),
    }
