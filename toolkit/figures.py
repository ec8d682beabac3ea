"""Building blocks of figures: SVG in the report's colours, legends, ticks, tables and numbers. User
text is escaped here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

STYLE = (
    "<style>.stats{display:block;width:100%}.stats "
    "text{font-size:12px;fill:var(--faint);paint-order:stroke;stroke:var(--bg);stroke-width:3px;"
    "stroke-linejoin:round}.stats .mark{fill:var(--computed)}.stats "
    ".interval{stroke-width:2.5}.stats .dot{fill-opacity:.7}.stats .hollow{fill:none;"
    "stroke-opacity:.7}.stats "
    ".band{fill:var(--computed);fill-opacity:.15}.stats "
    ".path{fill:none;stroke:var(--computed);stroke-width:2}.stats "
    ".others{fill:none;stroke:var(--faint);stroke-opacity:.4}.stats "
    "text.strong{fill:var(--fg);font-weight:600}.stats .grid{stroke:var(--line)}.stats "
    ".axis{stroke:var(--faint)}.stats .dash{stroke:var(--faint);stroke-dasharray:4 4}.stats "
    ".lead{stroke:var(--faint);stroke-width:.75}.stats .more{fill:var(--computed)}.stats "
    ".less{fill:var(--failed)}.stats "
    ".rest{fill:var(--faint);fill-opacity:.35}.stats-key{display:flex;flex-wrap:wrap;gap:.25rem "
    "1.25rem;margin:.25rem 0 .75rem;font-size:.875rem}.stats-key "
    "span{white-space:nowrap}.stats-key "
    "i{display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin-right:.45rem;"
    "print-color-adjust:exact}</style>"
)


def svg(width: float, height: float, body: Iterable[str]) -> str:
    """A drawing that scrolls on a narrow screen, so that its text stays readable. Screen readers
    get the figure's `alt` text.
    """
    drawn, limits = (
        "".join(body),
        f"min-width:min(40rem,{0.77 * width:g}px);max-width:{1.4 * width:g}px",
    )
    box = f'viewBox="0 0 {width:g} {height:g}" aria-hidden="true" focusable="false"'
    return f'{STYLE}<svg class="stats" style="{limits}" {box}>{drawn}</svg>'


def text(
    x: float,
    y: float,
    words: object,
    *,
    anchor: str = "start",
    kind: str = "",
    turn: float = 0,
    colour: str = "",
) -> str:
    """Text at a point; `anchor` says which part of the text is at that point."""
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    named = f' class="{kind}"' if kind else ""
    point = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {point}{named}{turned}{_style('fill', colour)}>{escaped(words)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str, *, colour: str = "") -> str:
    """A straight line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends}{_style("stroke", colour)}/>'


def circle(
    x: float, y: float, radius: float, kind: str, title: object = "", *, colour: str = ""
) -> str:
    """A dot, with a title that shows on hover; of the kind `hollow`, a ring."""
    painted = _style("stroke" if kind == "hollow" else "fill", colour)
    box = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"{painted}'
    return f'<circle class="{kind}" {box}>{_title(title)}</circle>'


def rect(x: float, y: float, width: float, height: float, kind: str, title: object = "") -> str:
    """A bar, with a title that shows on hover."""
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {box}>{_title(title)}</rect>'


def path(
    points: Iterable[tuple[float, float]], kind: str, *, colour: str = "", dash: str = ""
) -> str:
    """A line through points; `dash` has the lengths of dashes and gaps."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    painted = f"{dashed}{_style('stroke', colour)}"
    return f'<polyline class="{kind}" points="{_coordinates(points)}"{painted}/>'


def area(points: Iterable[tuple[float, float]], kind: str) -> str:
    """The area inside points."""
    return f'<polygon class="{kind}" points="{_coordinates(points)}"/>'


def _coordinates(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _style(name: str, colour: str) -> str:
    return f' style="{name}:{colour}"' if colour else ""


def _title(words: object) -> str:
    return f"<title>{escaped(words)}</title>" if words else ""


@dataclass(frozen=True)
class ChartAxis:
    """Maps the numbers from `low` to `high` to the coordinates from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The coordinate of a number."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int, *, whole: bool = False) -> list[float]:
        """About `count` round numbers on the axis."""
        return ticks(self.low, self.high, count, whole=whole)


def interval(
    axis: ChartAxis,
    y: float,
    value: float,
    ends: tuple[float | None, float | None],
    title: object = "",
    *,
    colour: str = "var(--computed)",
) -> Iterator[str]:
    """An estimate on a horizontal line: a bar between the ends of its interval, if it has one, and
    a dot.
    """
    low, high = ends
    if low is not None and high is not None:
        yield line(axis.at(low), y, axis.at(high), y, "interval", colour=colour)
    yield circle(axis.at(value), y, 4.5, "mark", title, colour=colour)


def x_ticks(
    axis: ChartAxis,
    top: float,
    bottom: float,
    values: Iterable[float],
    label: Callable[[float], str],
) -> Iterator[str]:
    """Vertical lines at these values, from `top` to `bottom`, with their labels below."""
    for value in values:
        x = axis.at(value)
        yield line(x, top, x, bottom, "grid" if value else "axis")
        yield text(x, bottom + 16, label(value), anchor="middle")


def y_ticks(
    axis: ChartAxis,
    left: float,
    right: float,
    values: Iterable[float],
    label: Callable[[float], str],
) -> Iterator[str]:
    """Horizontal lines at these values, from `left` to `right`, with their labels on the left."""
    for value in values:
        y = axis.at(value)
        yield line(left, y, right, y, "grid" if value else "axis")
        yield text(left - 8, y + 4, label(value), anchor="end")


def x_title(axis: ChartAxis, y: float, words: object) -> str:
    """The title of a horizontal axis, below its labels."""
    return text((axis.start + axis.end) / 2, y, words, anchor="middle", kind="strong")


def y_title(axis: ChartAxis, x: float, words: object) -> str:
    """The title of a vertical axis, written upwards."""
    middle = (axis.start + axis.end) / 2
    return text(x, middle, words, anchor="middle", kind="strong", turn=-90)


def key(entries: Iterable[tuple[str, str]]) -> str:
    """A legend: (CSS colour, words)."""
    items = (
        f'<span><i style="background:{colour}"></i>{escaped(words)}</span>'
        for colour, words in entries
    )
    return f'<div class="stats-key">{"".join(items)}</div>'


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers from `low` to `high`; with `whole`, integers."""
    rough = max(high - low, 1e-12) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """A tick or count as text: a real minus sign, no trailing zeros."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None) -> str:
    """An effect with its sign."""
    if value is None:
        return "-"
    return "undefined" if math.isnan(value) else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def note(words: object) -> str:
    """A remark below a figure."""
    return f'<p class="faint">{escaped(words)}</p>'


def small(value: float) -> str:
    """A probability: three digits, or a power of ten."""
    if math.isnan(value):
        return "undefined"
    if value == 0:
        return "under 1e\N{MINUS SIGN}300"
    return (
        (f"{value:.3f}" if value >= 0.001 else f"{value:.1e}")
        .replace("e-0", "e-")
        .replace("-", "\N{MINUS SIGN}")
    )


def decimals(*values: float) -> int:
    """The number of decimals with which the largest value has three digits."""
    largest = max(map(abs, values))
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 0


def fixed(value: float | None, places: int) -> str:
    """A number with `places` decimals; past six it is written as a power of ten."""
    if value is None:
        return "-"
    rounded = round(value, places) or 0.0  # no minus before a zero
    written = f"{rounded:,.{places}f}" if places <= 6 else f"{rounded:.2e}".replace("e-0", "e-")
    return written.replace("-", "\N{MINUS SIGN}")


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (),
    words: bool = False,
) -> str:
    """A table of trusted HTML cells; the first cell of a row is its heading, the others are
    numbers, except the columns in `left`; with `words` the last one is a wide column of text.
    """
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heads)
    kinds = ["" if index in left else "number" for index in range(len(heads))]
    kinds[-1] = "words" if words else kinds[-1]
    body = "".join(_row(cells, kinds) for cells in rows)
    named = escaped(caption)
    return (
        f'<p class="caption">{named}</p>'
        f'<div class="scroll" role="group" tabindex="0" aria-label="{named}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    inner = "".join(
        f'<td class="{kind}">{cell}</td>' if kind else f"<td>{cell}</td>"
        for cell, kind in zip(cells[1:], kinds[1:], strict=True)
    )
    return f'<tr><th scope="row">{cells[0]}</th>{inner}</tr>'


def escaped(words: object) -> str:
    """Text as HTML."""
    return html.escape(str(words).replace("\0", "\N{REPLACEMENT CHARACTER}"))
