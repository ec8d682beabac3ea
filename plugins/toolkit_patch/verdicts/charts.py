"""Charts of a screen as SVG: a forest of effects, effect against evidence, and effects by layer."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Tones = Mapping[str, str]

ROW_HEIGHT, LEFT, WIDTH, RIGHT, VERDICT_WIDTH = 30, 110, 520, 24, 150
HEIGHT, SMALLEST_P = 260, 1e-30
TICK_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def forest(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Dot and bar: a feature's effect with its interval. Band: 95 % of random directions."""
    limits = [
        abs(row[end])
        for row in rows
        for end in ("low", "high", "null_low", "null_high")
        if row[end] is not None
    ]
    reach = max(0.01, *limits) * 1.08
    height = ROW_HEIGHT * len(rows) + 52
    lines = [_line(number, row, reach, tones) for number, row in enumerate(rows)]
    width = LEFT + WIDTH + RIGHT + VERDICT_WIDTH
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="12">'
        f"{_axis(reach, height)}{''.join(lines)}</svg>"
        f'<p class="faint">Dot and bar: change of P({html.escape(outcome)}) with its 95 % interval '
        "over units. Band: where 95 % of random directions of equal length lie.</p>"
    )


def _line(number: int, row: Row, reach: float, tones: Tones) -> str:
    y, tone = 8 + ROW_HEIGHT * number + ROW_HEIGHT / 2, tones.get(row["verdict"], "var(--fg)")
    name = html.escape(row["name"])
    band = ""
    if row["null_low"] is not None:
        left, right = _x(row["null_low"], reach), _x(row["null_high"], reach)
        band = (
            f'<rect x="{left:.1f}" y="{y - 9:.1f}" width="{max(right - left, 1.5):.1f}" '
            'height="18" fill="var(--faint)" opacity="0.3"/>'
        )
    low, high = _x(row["low"], reach), _x(row["high"], reach)
    return (
        f"<g><title>{name}: {html.escape(row['verdict'])}: {html.escape(row['reason'])}</title>"
        f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end" fill="var(--fg)">'
        f"{name}</text>{band}"
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{tone}" '
        f'stroke-width="3"/><circle cx="{_x(row["effect"], reach):.1f}" cy="{y:.1f}" r="5" '
        f'fill="{tone}"/><text x="{LEFT + WIDTH + RIGHT}" y="{y + 4:.1f}" fill="{tone}">'
        f"{html.escape(row['verdict'])}</text></g>"
    )


def _x(value: float, reach: float) -> float:
    return LEFT + WIDTH * (value / reach + 1) / 2


def _axis(reach: float, height: float) -> str:
    """Ticks on both sides of zero."""
    bottom = height - 34
    step = next((step for step in TICK_STEPS if reach / step <= 4), TICK_STEPS[-1])
    count = int(reach / step)
    marks = []
    for number in range(-count, count + 1):
        x, tone = _x(step * number, reach), "var(--line)" if number else "var(--fg)"
        label = f"{step * number:+.2g}" if number else "0"
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom}" stroke="{tone}"/>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="var(--faint)">'
            f"{label}</text>"
        )
    return "".join(marks)


def scatter(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Across: the effect. Upwards: the evidence over units. Each dot is a feature."""
    reach = max(0.01, *(abs(row["effect"]) for row in rows)) * 1.08
    heights = [-math.log10(max(row["p_units"], SMALLEST_P)) for row in rows]
    top = max(2.0, *heights)
    width, height = LEFT + WIDTH + RIGHT, HEIGHT + 52
    dots = []
    for row, evidence in zip(rows, heights, strict=True):
        y = 8 + (HEIGHT + 10) * (1 - evidence / top)
        tone = tones.get(row["verdict"], "var(--fg)")
        dots.append(
            f'<circle cx="{_x(row["effect"], reach):.1f}" cy="{y:.1f}" r="4" fill="{tone}" '
            f'opacity="0.7"><title>{html.escape(row["name"])}: {html.escape(row["verdict"])}'
            "</title></circle>"
        )
    vertical_labels = (
        f'<text x="{LEFT - 10}" y="18" text-anchor="end" fill="var(--faint)">1e-{top:.0f}</text>'
        f'<text x="{LEFT - 10}" y="{HEIGHT + 18}" text-anchor="end" fill="var(--faint)">p 1</text>'
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="12">'
        f"{_axis(reach, height)}{vertical_labels}{''.join(dots)}</svg>"
        f'<p class="faint">Across: change of P({html.escape(outcome)}). Upwards: its p over units, '
        "before random directions are asked and before correction.</p>"
    )


def layer_map(rows: Sequence[Row], tones: Tones) -> str:
    """One line per layer; each dot is a feature at its effect."""
    layers = sorted({row["layer"] for row in rows})
    reach = max(0.01, *(abs(row["effect"]) for row in rows)) * 1.08
    height, width = ROW_HEIGHT * len(layers) + 52, LEFT + WIDTH + RIGHT
    names = "".join(
        f'<text x="{LEFT - 10}" y="{8 + ROW_HEIGHT * index + ROW_HEIGHT / 2 + 4:.1f}" '
        f'text-anchor="end" fill="var(--fg)">layer {layer}</text>'
        for index, layer in enumerate(layers)
    )
    dots = "".join(
        f'<circle cx="{_x(row["effect"], reach):.1f}" '
        f'cy="{8 + ROW_HEIGHT * layers.index(row["layer"]) + ROW_HEIGHT / 2:.1f}" r="4" '
        f'opacity="0.6" fill="{tones.get(row["verdict"], "var(--fg)")}">'
        f"<title>{html.escape(row['name'])}</title></circle>"
        for row in rows
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="12">'
        f"{_axis(reach, height)}{names}{dots}</svg>"
    )


def naive_map(rows: Sequence[Row], tones: Tones) -> str:
    """Across: the specific effect. Upwards: the naive one, the stream rebuilt with either value
    against the unedited model.
    """
    effects = [abs(row["effect"]) for row in rows]
    naive = [row[side] for row in rows for side in ("reconstruct_a", "reconstruct_b")]
    reach, top = max(0.01, *effects) * 1.08, max(0.01, *map(abs, naive)) * 1.08
    width, height = LEFT + WIDTH + RIGHT, HEIGHT + 62

    def y(value: float) -> float:
        return 8 + float((HEIGHT + 10) * (1 - (value / top + 1) / 2))

    dots = "".join(
        f'<circle cx="{_x(row["effect"], reach):.1f}" cy="{y(row[side]):.1f}" r="4" '
        f'fill="{"none" if side == "reconstruct_b" else tones.get(row["verdict"], "var(--fg)")}" '
        f'stroke="{tones.get(row["verdict"], "var(--fg)")}" opacity="0.7">'
        f"<title>{html.escape(row['name'])}: {html.escape(row['verdict'])}</title></circle>"
        for row in rows
        for side in ("reconstruct_a", "reconstruct_b")
    )
    sides = "".join(
        f'<text x="{LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end" fill="var(--faint)">'
        f"{value:+.2g}</text>"
        for value in (top, -top)
    )
    zero = f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(0):.1f}" y2="{y(0):.1f}" '
    group_a, group_b = rows[0]["group_a"], rows[0]["group_b"]
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="12">'
        f'{_axis(reach, height)}{sides}{zero}stroke="var(--line)"/>{dots}</svg>'
        f'<p class="faint">Across: specific effect, error kept. Upwards: what the rebuilt stream '
        f"does against the unedited model, filled with the mean of {html.escape(group_a)}, hollow "
        f"with that of {html.escape(group_b)}. Both on one side of zero: the value does not "
        "matter, the reconstruction does.</p>"
    )
