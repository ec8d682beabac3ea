"""Building blocks of figures: SVG in the report's colours, legends, ticks, tables and numbers. User
text is escaped here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

STYLE = (
    "<style>.stats{display:block;width:100%}.stats "
    "text{font-size:12px;fill:var(--faint);paint-order:stroke;stroke:var(--bg);stroke-width:3px;"
    "stroke-linejoin:round}.stats "
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
    """A drawing that keeps its text readable: on a narrow screen it scrolls. Screen readers get the
    figure's `alt` text.
    """
    drawn, limits = (
        "".join(body),
        f"min-width:min(40rem,{0.77 * width:g}px);max-width:{1.4 * width:g}px",
    )
    box = f'viewBox="0 0 {width:g} {height:g}" aria-hidden="true" focusable="false"'
    return f'{STYLE}<svg class="stats" style="{limits}" {box}>{drawn}</svg>'


def text(
    x: float, y: float, words: object, *, anchor: str = "start", kind: str = "", turn: float = 0
) -> str:
    """Text at a point; `anchor` says which part of the text is at that point."""
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    named = f' class="{kind}"' if kind else ""
    index = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {index}{named}{turned}>{escaped(words)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


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


def signed(value: float) -> str:
    """An effect with its sign."""
    return "undefined" if math.isnan(value) else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


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


def fixed(value: float, places: int) -> str:
    """A number with `places` decimals; past six it is written as a power of ten."""
    rounded = round(value, places) or 0.0  # no minus before a zero
    written = f"{rounded:,.{places}f}" if places <= 6 else f"{rounded:.2e}".replace("e-0", "e-")
    return written.replace("-", "\N{MINUS SIGN}")


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: bool = False
) -> str:
    """A table of trusted HTML cells; the first cell of a row is its heading, the others are
    numbers; with `words` the last one is text.
    """
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heads)
    body = "".join(_row(cells, len(cells) - words) for cells in rows)
    named = escaped(caption)
    return (
        f'<p class="caption">{named}</p>'
        f'<div class="scroll" role="group" tabindex="0" aria-label="{named}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], numbers: int) -> str:
    inner = "".join(
        f'<td class="{"number" if index < numbers else "words"}">{cell}</td>'
        for index, cell in enumerate(cells[1:], 1)
    )
    return f'<tr><th scope="row">{cells[0]}</th>{inner}</tr>'


def escaped(words: object) -> str:
    """Text as HTML."""
    return html.escape(str(words).replace("\0", "\N{REPLACEMENT CHARACTER}"))
