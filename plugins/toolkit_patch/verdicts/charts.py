"""Charts of a screen as SVG: a forest of effects, effect against evidence, and effects by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw

from .stage import null_name

Row = Mapping[str, Any]
Tones = Mapping[str, str]

ROW_HEIGHT, LEFT, WIDTH, RIGHT, VERDICT_WIDTH = 30.0, 110.0, 520.0, 24.0, 150.0
TOP, HEIGHT, BOTTOM = 8.0, 270.0, 46.0
UP_TITLE = 46.0
"""The position of the vertical axis's title."""
SMALLEST_P = 1e-30


def forest(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Dot and bar: a feature's effect with its interval. Band: 95 % of what it is compared with."""
    ends = ("low", "high", "null_low", "null_high")
    effects = _effect_axis([row[end] for row in rows for end in ends if row[end] is not None])
    bottom = TOP + ROW_HEIGHT * len(rows)
    body = list(_effect_ticks(effects, bottom, f"change of P({outcome})"))
    for index, row in enumerate(rows):
        body += _forest_row(row, effects, TOP + ROW_HEIGHT * (index + 0.5), tones)
    return draw.svg(LEFT + WIDTH + RIGHT + VERDICT_WIDTH, bottom + BOTTOM, body) + draw.note(
        "Dot and bar: the effect of a feature with its 95 % interval over units. Band: where 95 % "
        f"of {null_name(rows)} lie when they are moved as far."
    )


def _forest_row(row: Row, effects: draw.ChartAxis, y: float, tones: Tones) -> Iterator[str]:
    yield draw.text(LEFT - 10, y + 4, row["name"], anchor="end", kind="strong")
    if row["null_low"] is not None:
        left, right = effects.at(row["null_low"]), effects.at(row["null_high"])
        yield draw.rect(left, y - 9, max(right - left, 1.5), 18, "rest")
    tone, title = _tone(row, tones), f"{_title(row)}: {row['reason']}"
    yield from draw.interval(
        effects, y, row["effect"], (row["low"], row["high"]), title, colour=tone
    )
    yield draw.text(LEFT + WIDTH + RIGHT, y + 4, row["verdict"], colour=tone)


def scatter(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Draw each feature as a dot: its effect (horizontal) and its evidence (vertical)."""
    effects = _effect_axis([row["effect"] for row in rows])
    evidence = [-math.log10(max(row["p_units"], SMALLEST_P)) for row in rows]
    heights = draw.ChartAxis(0, max(2.0, *evidence), TOP + HEIGHT, TOP)
    body = [
        *_effect_ticks(effects, TOP + HEIGHT, f"change of P({outcome})"),
        *draw.y_ticks(heights, LEFT, LEFT + WIDTH, heights.ticks(5), draw.number),
        draw.y_title(heights, UP_TITLE, "\N{MINUS SIGN}log10 p over units"),
    ]
    for row, height in zip(rows, evidence, strict=True):
        body.append(_dot(row, effects.at(row["effect"]), heights.at(height), tones))
    return draw.svg(LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM, body) + draw.note(
        f"p over units, before the comparison with {null_name(rows)} and before correction; below "
        "1e-30 it is drawn there."
    )


def layer_map(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """One line per layer; each dot is a feature at its effect."""
    layers = sorted({row["layer"] for row in rows})
    middles = {layer: TOP + ROW_HEIGHT * (index + 0.5) for index, layer in enumerate(layers)}
    effects = _effect_axis([row["effect"] for row in rows])
    bottom = TOP + ROW_HEIGHT * len(layers)
    body = list(_effect_ticks(effects, bottom, f"change of P({outcome})"))
    for layer, y in middles.items():
        body.append(draw.text(LEFT - 10, y + 4, f"layer {layer}", anchor="end", kind="strong"))
    body += [_dot(row, effects.at(row["effect"]), middles[row["layer"]], tones) for row in rows]
    return draw.svg(LEFT + WIDTH + RIGHT, bottom + BOTTOM, body)


def naive_map(rows: Sequence[Row], tones: Tones, outcome: str) -> str:
    """Across: the specific effect. Upwards: the naive one, the stream rebuilt with either value
    against the unedited model.
    """
    sides = ("reconstruct_a", "reconstruct_b")
    effects = _effect_axis([row["effect"] for row in rows])
    reach = _reach([row[side] for row in rows for side in sides])
    naive = draw.ChartAxis(-reach, reach, TOP + HEIGHT, TOP)
    body = [
        *_effect_ticks(effects, TOP + HEIGHT, f"change of P({outcome}), error kept"),
        *draw.y_ticks(naive, LEFT, LEFT + WIDTH, naive.ticks(6), _change),
        draw.y_title(naive, UP_TITLE, "change by the rebuilt stream"),
    ]
    for row in rows:
        for side in sides:
            x, y = effects.at(row["effect"]), naive.at(row[side])
            body.append(_dot(row, x, y, tones, hollow=side == "reconstruct_b"))
    group_a, group_b = rows[0]["group_a"], rows[0]["group_b"]
    return draw.svg(LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM, body) + draw.note(
        "Vertical: the change when the SAE rebuilds the stream, compared with the unedited "
        f"model; filled: with the mean of {group_a}, hollow: with that of {group_b}. Where "
        "both lie on one side of zero, the reconstruction matters and not the value."
    )


def _reach(values: Sequence[float]) -> float:
    """The end of an axis that has zero in its middle."""
    return 1.08 * max(0.01, *map(abs, values))


def _effect_axis(values: Sequence[float]) -> draw.ChartAxis:
    reach = _reach(values)
    return draw.ChartAxis(-reach, reach, LEFT, LEFT + WIDTH)


def _effect_ticks(effects: draw.ChartAxis, bottom: float, title: str) -> Iterator[str]:
    yield from draw.x_ticks(effects, TOP, bottom, effects.ticks(8), _change)
    yield draw.x_title(effects, bottom + 36, title)


def _change(value: float) -> str:
    """A change of a probability on an axis."""
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _dot(row: Row, x: float, y: float, tones: Tones, *, hollow: bool = False) -> str:
    return draw.circle(
        x, y, 4, "hollow" if hollow else "dot", _title(row), colour=_tone(row, tones)
    )


def _title(row: Row) -> str:
    return f"{row['name']}: {row['verdict']}"


def _tone(row: Row, tones: Tones) -> str:
    return tones.get(row["verdict"], "var(--fg)")
