"""The charts of the pages, as SVG without styles: the style sheet colours them, and a downloaded
file has those of a report's figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit._query.text import plain
from toolkit.figures import ChartAxis, circle, escaped, line, number, rect, small, text
from toolkit.statistics.arrays import Floats
from toolkit.work import Figure

WIDTH, HEIGHT = 640.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 16.0, 12.0, 44.0
BINS = 30
LOWEST_Q = 1e-300
MAX_POINTS = 4_000
"""The most points of a volcano; if there are more, those with the lowest q are drawn."""
LETTERS, LETTER = 44, 6.6
"""The most letters of a name beside a chart, and the width of one."""
RADIUS = 3.2
_DOT = f"a{RADIUS} {RADIUS} 0 1 0 {2 * RADIUS} 0a{RADIUS} {RADIUS} 0 1 0-{2 * RADIUS} 0"
"""A dot of this radius as a part of a path, from its left end."""
NAMED_POINTS = 400
"""The most points of a volcano that show a name on hover. The others are one shape of each colour,
since thousands of shapes take a browser long.
"""


@dataclass(frozen=True)
class VolcanoPoint:
    """A feature in a volcano."""

    label: str
    effect: float
    q: float
    significant: bool


def chart(name: str, body: Iterable[str], **data: float) -> Figure:
    """An SVG chart, whose name screen readers announce."""
    facts = "".join(f' data-{key}="{value:g}"' for key, value in data.items())
    drawn = plain(
        f'<svg class="chart stats" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{escaped(name)}"{facts}>{"".join(body)}</svg>'
    )
    return Figure(name, drawn, name)


def histogram(values: Sequence[float] | Floats, title: str) -> Figure:
    """A histogram of a feature's values."""
    import numpy as np

    numbers = np.asarray(values, dtype=float)
    low, high = min(0.0, float(numbers.min())), float(numbers.max())
    width = (high - low) / BINS or 1.0
    bins = np.minimum(((numbers - low) / width).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS).tolist()
    x = ChartAxis(low, low + width * BINS, LEFT, WIDTH - RIGHT)
    y = ChartAxis(0, max(counts), HEIGHT - BOTTOM, TOP)
    bars = []
    for index, count in enumerate(counts):
        start, end = low + index * width, low + (index + 1) * width
        left, top = x.at(start), y.at(count)
        tooltip = f"{start:.3g} to {end:.3g}: {count:,} tokens"
        bars.append(rect(left, top, x.at(end) - left - 1, y.start - top, "more", tooltip))
    return chart(title, [*_axes(x, y, "value where it fires", "tokens", whole=True), *bars])


def volcano(points: Sequence[VolcanoPoint], alpha: float, effect: str) -> Figure:
    """Each feature by its effect and its corrected p-value. A reader can select a part of it."""
    drawn = sorted(points, key=lambda point: point.q)[:MAX_POINTS]
    widest = max((abs(point.effect) for point in drawn), default=1.0) * 1.05 or 1.0
    high = max((_height(point.q) for point in drawn), default=1.0)
    high = max(high, _height(alpha)) * 1.05 or 1.0
    x = ChartAxis(-widest, widest, LEFT, WIDTH - RIGHT)
    y = ChartAxis(0, high, HEIGHT - BOTTOM, TOP)
    together: dict[str, dict[str, None]] = {"rest": {}, "more": {}, "less": {}}
    for point in drawn[NAMED_POINTS:]:
        left = x.at(point.effect) - RADIUS
        place = f"M{left:.1f} {y.at(_height(point.q)):.1f}{_DOT}"
        together[_kind(point)][place] = None
    dots = [
        f'<path class="{kind}" d="{"".join(places)}"/>'
        for kind, places in together.items()
        if places
    ]
    for point in reversed(drawn[:NAMED_POINTS]):
        tooltip = f"{point.label}: {effect} {point.effect:.3g}, q {small(point.q)}"
        dots.append(
            circle(x.at(point.effect), y.at(_height(point.q)), RADIUS, _kind(point), tooltip)
        )
    level = line(LEFT, y.at(_height(alpha)), WIDTH - RIGHT, y.at(_height(alpha)), "dash")
    name = f"Volcano of {len(points):,} features: {effect} against the corrected p-value"
    body = [*_axes(x, y, effect, "\N{MINUS SIGN}log10 q"), level, *dots]
    return chart(name, body, low=-widest, high=widest, top=high, left=LEFT, right=WIDTH - RIGHT)


def _kind(point: VolcanoPoint) -> str:
    if not point.significant:
        return "rest"
    return "more" if point.effect > 0 else "less"


def forest(rows: Sequence[tuple[str, float, float, float]], title: str) -> Figure:
    """Effects with their intervals, one line each: (name, effect, low, high)."""
    ends = [0.0, *(value for row in rows for value in row[1:])]
    pad = (max(ends) - min(ends)) * 0.05 or 1.0
    names = [_clipped(name) for name, *_ in rows]
    plot_left = 16 + LETTER * max(map(len, names))
    x = ChartAxis(min(ends) - pad, max(ends) + pad, plot_left, WIDTH - RIGHT)
    step = (HEIGHT - TOP - BOTTOM) / len(rows)
    shapes = [line(x.at(0), TOP, x.at(0), HEIGHT - BOTTOM, "dash")]
    for tick in x.ticks(5):
        shapes.append(text(x.at(tick), HEIGHT - BOTTOM + 16, number(tick), anchor="middle"))
    for index, (shown, (name, effect, low, high)) in enumerate(zip(names, rows, strict=True)):
        y = TOP + step * (index + 0.5)
        shapes.append(text(plot_left - 8, y + 4, shown, anchor="end"))
        shapes.append(line(x.at(low), y, x.at(high), y, "axis"))
        kind = "more" if low > 0 else "less" if high < 0 else "rest"
        tooltip = f"{name}: {effect:.3g}, interval {low:.3g} to {high:.3g}"
        shapes.append(circle(x.at(effect), y, 4, kind, tooltip))
    middle = (plot_left + WIDTH - RIGHT) / 2
    shapes.append(text(middle, HEIGHT - 8, "change of the probability", anchor="middle"))
    return chart(title, shapes)


def _clipped(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _height(q: float) -> float:
    return -math.log10(max(q, LOWEST_Q))


def _axes(x: ChartAxis, y: ChartAxis, across: str, up: str, *, whole: bool = False) -> list[str]:
    shapes = [
        line(x.start, y.start, x.end, y.start, "axis"),
        line(x.start, y.start, x.start, y.end, "axis"),
        text((x.start + x.end) / 2, HEIGHT - 8, across, anchor="middle"),
        text(14, (y.start + y.end) / 2, up, anchor="middle", turn=-90),
    ]
    for tick in x.ticks(6):
        shapes.append(text(x.at(tick), y.start + 16, number(tick), anchor="middle"))
    for tick in y.ticks(4, whole=whole):
        shapes.append(line(x.start, y.at(tick), x.end, y.at(tick), "grid"))
        shapes.append(text(x.start - 6, y.at(tick) + 4, number(tick), anchor="end"))
    return shapes
