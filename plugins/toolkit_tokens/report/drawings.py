"""Drawings of tokens, as SVG or shaded text. Only cells with a value are drawn, so that a text of
many tokens stays light.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw

LEFT, RIGHT, TOP = 150.0, 12.0, 16.0
WIDTH, ROW = 760.0, 16.0
NARROW, LABEL, CHARACTER = 480.0, 30, 6.8
"""The width of a drawing that fits a narrow screen, the most characters of a label, and the width
of a character.
"""
COLOURS = ("var(--computed)", "var(--failed)", "var(--part)", "var(--faint)", "var(--fg)")
CELLS = 6000
"""The most cells of a drawing: the weakest of a long text are left out, so that its page scrolls
smoothly.
"""
LABELLED = 60
"""A text of at most this many tokens has them written under their columns."""


def heatmap(
    names: Sequence[str], grid: Sequence[Mapping[int, float]], pieces: Sequence[str]
) -> str:
    """Rows of values by position; each row is shaded relative to its largest value."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(pieces))
    height = TOP + ROW * len(names)
    body: list[str] = []
    peaks = [max(cells.values(), default=1.0) or 1.0 for cells in grid]
    shares = [
        {position: value / peak for position, value in cells.items()}
        for cells, peak in zip(grid, peaks, strict=True)
    ]
    min_drawn = _min_drawn(shares)
    for number, (name, cells, peak) in enumerate(zip(names, grid, peaks, strict=True)):
        y = TOP + ROW * number
        body.append(draw.text(LEFT - 8, y + 12, name, anchor="end"))
        for position, value in cells.items():
            if value / peak < min_drawn:
                continue
            body.append(
                _cell(
                    LEFT + step * position, y, step, value / peak, _title(pieces, position, value)
                )
            )
    body += _token_axis(pieces, step, height)
    body.append(draw.y_title(draw.ChartAxis(0, 1, height, TOP), 14, "feature"))
    return draw.svg(WIDTH, height + _axis_height(pieces), body)


def bands(
    layers: Mapping[int, Mapping[int, float]], pieces: Sequence[str], spans: Iterable[Any]
) -> str:
    """One band per layer, shaded by the square root of the weight over the largest one; spans are
    named above.
    """
    step = (WIDTH - LEFT - RIGHT) / max(1, len(pieces))
    top = TOP + 30
    height = top + ROW * len(layers)
    body: list[str] = []
    for number, span in enumerate(spans):
        x1, x2 = LEFT + step * span["start"], LEFT + step * span["end"]
        body.append(draw.line(x1, top - 4, max(x2, x1 + 1), top - 4, "axis"))
        y = top - 8 - 12 * (number % 3)
        middle = (x1 + x2) / 2
        anchor = "end" if middle > WIDTH - 60 else "middle"
        body.append(
            draw.text(
                max(x2, middle) if anchor == "end" else middle, y, span["name"], anchor=anchor
            )
        )
    min_drawn = max(0.001, _min_drawn(list(layers.values())))
    peak = max((value for cells in layers.values() for value in cells.values()), default=1.0) or 1.0
    for number, (layer, cells) in enumerate(layers.items()):
        y = top + ROW * number
        body.append(draw.text(LEFT - 8, y + 12, f"layer {layer}", anchor="end"))
        for position, value in cells.items():
            if value >= min_drawn:
                title = _title(pieces, position, value)
                share = (value / peak) ** 0.5
                body.append(_cell(LEFT + step * position, y, step, share, title))
    body += _token_axis(pieces, step, height)
    return draw.svg(WIDTH, height + _axis_height(pieces), body)


def _min_drawn(rows: Sequence[Mapping[int, float]]) -> float:
    """The weakest value that is drawn."""
    values = sorted((value for cells in rows for value in cells.values()), reverse=True)
    if len(values) <= CELLS:
        return 0.0
    return math.nextafter(values[CELLS], math.inf)


def highlighted(text: str, pieces: Sequence[str], values: Mapping[int, float]) -> str:
    """The text itself, each token shaded; tokens that share a character are shaded as the strongest
    of them.
    """
    peak = max(values.values(), default=1.0) or 1.0
    parts = []
    for piece, positions in _written(text, pieces):
        strongest = max(values.get(position, 0.0) for position in positions)
        share = max(0.0, min(1.0, strongest / peak))
        shade = f"background:color-mix(in srgb,var(--computed) {60 * share:.0f}%,transparent)"
        shown = ", ".join(f"{position}: {values.get(position, 0.0):.3g}" for position in positions)
        title = draw.escaped(shown)
        parts.append(f'<span style="{shade}" title="{title}">{draw.escaped(piece)}</span>')
    return f'<p style="white-space:pre-wrap;line-height:1.7">{"".join(parts)}</p>'


def _written(text: str, pieces: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The pieces of a text with their positions. A character of several tokens is the piece of each
    of them; it is written once.
    """
    end, written = 0, list[tuple[str, list[int]]]()
    for position, piece in enumerate(pieces):
        continues = text.startswith(piece, end)
        if not continues and written and written[-1][0] == piece:
            written[-1][1].append(position)
        else:
            written.append((piece, [position]))
            end += len(piece) if continues else 0
    return written


def lines(series: Mapping[str, Sequence[tuple[float, float]]], x_name: str, y_name: str) -> str:
    """One line per series."""
    points = [point for curve in series.values() for point in curve]
    if not points:
        return ""
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) or 1.0
    height, margin = 220.0, 56.0

    across = draw.ChartAxis(low, high, margin, NARROW - RIGHT)
    upwards = draw.ChartAxis(0, top, height - 30, TOP)
    body = list(draw.y_ticks(upwards, margin, NARROW - RIGHT, upwards.ticks(4), draw.number))
    for tick in across.ticks(8, whole=True):
        body.append(draw.text(across.at(tick), height - 14, draw.number(tick), anchor="middle"))
    named = [
        (_stroke(number), f"{name} (dashed)" if number >= len(COLOURS) else name)
        for number, name in enumerate(series)
    ]
    for number, curve in enumerate(series.values()):
        dash = f"{2 + 3 * (number // len(COLOURS))} 3" if number >= len(COLOURS) else ""
        curve_points = [(across.at(x), upwards.at(y)) for x, y in curve]
        body.append(draw.path(curve_points, "path", colour=_stroke(number), dash=dash))
        if len(curve_points) == 1:
            body.append(draw.circle(*curve_points[0], 3, "dot", colour=_stroke(number)))
    body += [draw.x_title(across, height + 4, x_name), draw.y_title(upwards, 14, y_name)]
    return draw.key(named) + draw.svg(NARROW, height + 10, body)


def waterfall(steps: Sequence[tuple[str, float]], total: float, measured: float) -> str:
    """Bars that each begin where the previous one ends, the sum, and the measured change."""
    ends = [0.0]
    for _, value in steps:
        ends.append(ends[-1] + value)
    extent = [*ends, total, measured, 0.0]
    low, high = min(extent), max(extent)
    longest = max((len(name[:LABEL]) for name, _ in steps), default=0)
    margin = 16 + CHARACTER * max(longest, len("sum of parts"))
    places = draw.decimals(total, measured)
    axis = draw.ChartAxis(low, high, margin, NARROW - 64)
    height = TOP + ROW * (len(steps) + 2)
    body = [draw.line(axis.at(0), TOP - 4, axis.at(0), height, "axis")]
    for number, (name, value) in enumerate(steps):
        y = TOP + ROW * number
        kind = "more" if value >= 0 else "less"
        body += _bar(axis.at(ends[number]), axis.at(ends[number + 1]), y, kind)
        body.append(draw.text(margin - 8, y + 11, name[:LABEL], anchor="end"))
        x = max(axis.at(ends[number]), axis.at(ends[number + 1])) + 6
        body.append(draw.text(x, y + 11, _signed(value, places)))
    for number, (name, value) in enumerate((("sum of parts", total), ("measured", measured))):
        y = TOP + ROW * (len(steps) + number)
        body += _bar(axis.at(0), axis.at(value), y, "rest")
        body.append(draw.text(margin - 8, y + 11, name, anchor="end", kind="strong"))
        x = max(axis.at(0), axis.at(value)) + 6
        body.append(draw.text(x, y + 11, _signed(value, places), kind="strong"))
    for tick in axis.ticks(4):
        body.append(draw.text(axis.at(tick), height + 16, draw.number(tick), anchor="middle"))
    body.append(draw.x_title(axis, height + 34, "change of the outcome, added up"))
    return draw.svg(NARROW, height + 42, body)


def _signed(value: float, places: int) -> str:
    return ("+" if value >= 0 else "") + draw.fixed(value, places)


def _bar(start: float, end: float, y: float, kind: str) -> Iterator[str]:
    x, width = min(start, end), max(1.0, abs(end - start))
    yield draw.rect(x, y, width, ROW - 3, kind)


def _cell(x: float, y: float, width: float, share: float, title: str) -> str:
    opacity = max(0.04, min(1.0, share))
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.8):.2f}" height="{ROW - 2}" '
        f'fill="var(--computed)" fill-opacity="{opacity:.2f}"><title>{title}</title></rect>'
    )


def _title(pieces: Sequence[str], position: int, value: float) -> str:
    token = pieces[position] if position < len(pieces) else ""
    return draw.escaped(f"{position} {token.strip()}: {value:.3g}")


def _token_axis(pieces: Sequence[str], step: float, height: float) -> Iterator[str]:
    """The tokens under their columns if there is room, otherwise their positions."""
    if len(pieces) <= LABELLED:
        for position, piece in enumerate(pieces):
            x = LEFT + step * (position + 0.7)
            yield draw.text(x, height + 8, piece.strip()[:10], anchor="end", turn=-60)
        return
    for tick in draw.ticks(0, len(pieces) - 1, 10, whole=True):
        yield draw.text(LEFT + step * (tick + 0.5), height + 14, draw.number(tick), anchor="middle")
    yield draw.x_title(draw.ChartAxis(0, 1, LEFT, WIDTH - RIGHT), height + 32, "token")


def _axis_height(pieces: Sequence[str]) -> float:
    return 62.0 if len(pieces) <= LABELLED else 38.0


def _stroke(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def shown_number(value: float | None) -> str:
    """A number of a table; a dash for none."""
    return "-" if value is None else draw.fixed(value, max(2, draw.decimals(value)))
