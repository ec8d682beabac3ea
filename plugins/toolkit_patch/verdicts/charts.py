"""Charts of a screen as SVG: a forest of effects, effect against evidence, effects with and without
the error, and effects by layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw

Row = Mapping[str, Any]
Tones = Mapping[str, str]

ROW_HEIGHT, LEFT, WIDTH, RIGHT, VERDICT_WIDTH = 30, 110, 520, 24, 150
TOP, HEIGHT, BELOW = 8, 270, 46
"""Room above a plot, its height, and the room for ticks and the axis title below."""
SMALLEST_P = 1e-30
HALF_REACH = 4
"""The most ticks on each side of zero."""


def forest(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Dot and bar: a feature's effect with its interval. Band: 95 % of random directions."""
    limits = [
        abs(row[end])
        for row in rows
        for end in ("low", "high", "null_low", "null_high")
        if row[end] is not None
    ]
    reach = max(0.01, *limits) * 1.08
    bottom = TOP + ROW_HEIGHT * len(rows)
    body = [*_effect_axis(reach, bottom, f"change of P({outcome})")]
    for number, row in enumerate(rows):
        body += _forest_row(row, TOP + ROW_HEIGHT * (number + 0.5), reach, tones)
    width = LEFT + WIDTH + RIGHT + VERDICT_WIDTH
    return draw.svg(width, bottom + BELOW, body) + (
        '<p class="faint">Dot and bar: the feature\'s effect with its 95 % interval over units. '
        "Band: where 95 % of random directions of equal length lie.</p>"
    )


def _forest_row(row: Row, y: float, reach: float, tones: Tones) -> Iterator[str]:
    tone = tones.get(row["verdict"], "var(--fg)")
    about = draw.escaped(f"{row['name']}: {row['verdict']}: {row['reason']}")
    yield f"<g><title>{about}</title>"
    yield draw.text(LEFT - 10, y + 4, row["name"], anchor="end", kind="strong")
    if row["null_low"] is not None:
        left, right = _x(row["null_low"], reach), _x(row["null_high"], reach)
        size = f'width="{max(right - left, 1.5):.1f}" height="18"'
        yield f'<rect class="rest" x="{left:.1f}" y="{y - 9:.1f}" {size}/>'
    low, high = _x(row["low"], reach), _x(row["high"], reach)
    ends = f'x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
    yield f'<line {ends} stroke="{tone}" stroke-width="3"/>'
    yield f'<circle cx="{_x(row["effect"], reach):.1f}" cy="{y:.1f}" r="5" fill="{tone}"/>'
    verdict = draw.escaped(row["verdict"])
    yield (
        f'<text x="{LEFT + WIDTH + RIGHT}" y="{y + 4:.1f}" style="fill:{tone}">{verdict}</text></g>'
    )


def scatter(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Across: the effect. Upwards: the evidence over units. Each dot is a feature."""
    reach = _reach(rows)
    heights = [-math.log10(max(row["p_units"], SMALLEST_P)) for row in rows]
    top, bottom = max(2.0, *heights) * 1.04, TOP + HEIGHT

    def y(evidence: float) -> float:
        return float(bottom - HEIGHT * evidence / top)

    body = [*_effect_axis(reach, bottom, f"change of P({outcome})")]
    body += _upward_axis(draw.ticks(0, top, 5), y, "\N{MINUS SIGN}log10 p over units")
    for row, evidence in zip(rows, heights, strict=True):
        body.append(_dot(row, tones, _x(row["effect"], reach), y(evidence)))
    cut = f" p below {draw.small(SMALLEST_P)} is drawn there." if max(heights) >= 30 else ""
    return draw.svg(LEFT + WIDTH + RIGHT, bottom + BELOW, body) + (
        '<p class="faint">p over units, before random directions are asked and before '
        f"correction.{cut}</p>"
    )


def layer_map(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """One line per layer; each dot is a feature at its effect."""
    layers = sorted({row["layer"] for row in rows})
    reach, bottom = _reach(rows), TOP + ROW_HEIGHT * len(layers)
    middles = {layer: TOP + ROW_HEIGHT * (n + 0.5) for n, layer in enumerate(layers)}
    body = [*_effect_axis(reach, bottom, f"change of P({outcome})")]
    for layer, y in middles.items():
        body.append(draw.text(LEFT - 10, y + 4, f"layer {layer}", anchor="end", kind="strong"))
    for row in rows:
        body.append(_dot(row, tones, _x(row["effect"], reach), middles[row["layer"]]))
    return draw.svg(LEFT + WIDTH + RIGHT, bottom + BELOW, body)


def naive_map(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Across: the specific effect. Upwards: the naive one, the stream rebuilt with either value
    against the unedited model.
    """
    sides = ("reconstruct_a", "reconstruct_b")
    reach, bottom = _reach(rows), TOP + HEIGHT
    top = max(0.01, *(abs(row[side]) for row in rows for side in sides)) * 1.08

    def y(value: float) -> float:
        return float(bottom - HEIGHT * (value / top + 1) / 2)

    body = [*_effect_axis(reach, bottom, f"change of P({outcome}), error kept")]
    body += _upward_axis(draw.ticks(-top, top, 6), y, "change by the rebuilt stream")
    body.append(draw.line(LEFT, y(0), LEFT + WIDTH, y(0), "axis"))
    for row in rows:
        for side in sides:
            x = _x(row["effect"], reach)
            body.append(_dot(row, tones, x, y(row[side]), hollow=side == "reconstruct_b"))
    group_a, group_b = draw.escaped(rows[0]["group_a"]), draw.escaped(rows[0]["group_b"])
    return draw.svg(LEFT + WIDTH + RIGHT, bottom + BELOW, body) + (
        f'<p class="faint">Upwards: what the stream rebuilt by the SAE does against the unedited '
        f"model, filled with the mean of {group_a}, hollow with that of {group_b}. Both on one "
        "side of zero: the value does not matter, the reconstruction does.</p>"
    )


def _reach(rows: Sequence[Row]) -> float:
    return float(max(0.01, *(abs(row["effect"]) for row in rows)) * 1.08)


def _x(value: float, reach: float) -> float:
    return float(LEFT + WIDTH * (value / reach + 1) / 2)


def _dot(row: Row, tones: Tones, x: float, y: float, hollow: bool = False) -> str:
    tone = tones.get(row["verdict"], "var(--fg)")
    about = draw.escaped(f"{row['name']}: {row['verdict']}, {row['effect']:+.3g}")
    style = f'fill="{"none" if hollow else tone}" stroke="{tone}" opacity="0.7"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {style}><title>{about}</title></circle>'


def _effect_axis(reach: float, bottom: float, title: str) -> Iterator[str]:
    """The horizontal axis, with ticks on both sides of zero."""
    for tick in draw.ticks(-reach, reach, 2 * HALF_REACH):
        x, kind = _x(tick, reach), "grid" if tick else "axis"
        yield draw.line(x, TOP, x, bottom, kind)
        words = draw.number(tick) if tick <= 0 else f"+{draw.number(tick)}"
        yield draw.text(x, bottom + 16, words, anchor="middle")
    yield draw.text(LEFT + WIDTH / 2, bottom + 36, title, anchor="middle", kind="strong")


def _upward_axis(values: Sequence[float], y: Callable[[float], float], title: str) -> Iterator[str]:
    """The vertical axis: its ticks and its title, written upwards."""
    for tick in values:
        yield draw.line(LEFT, y(tick), LEFT + WIDTH, y(tick), "grid")
        yield draw.text(LEFT - 8, y(tick) + 4, draw.number(tick), anchor="end")
    yield draw.text(LEFT - 62, TOP + HEIGHT / 2, title, anchor="middle", kind="strong", turn=-90)
