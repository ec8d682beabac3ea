"""Pieces of figures: SVG in the report's colours. User text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

STYLE = (
    "<style>.played{display:block;width:100%}.played text{font-size:12px;fill:var(--faint)}"
    ".played text.strong{fill:var(--fg)}.played .grid{stroke:var(--line)}"
    ".played .axis{stroke:var(--faint)}.played .mark{fill:var(--computed);stroke:var(--computed)}"
    ".played .range{stroke:var(--computed);stroke-width:1.5}"
    ".played .band{fill:var(--computed);fill-opacity:.15}"
    ".played .path{fill:none;stroke:var(--computed);stroke-width:2}</style>"
)


def svg(width: float, height: float, body: Iterable[str]) -> str:
    """A drawing that keeps its text readable: on a narrow screen it scrolls."""
    limits = f"min-width:min(36rem,{0.8 * width:g}px);max-width:{1.3 * width:g}px"
    return (
        f'{STYLE}<svg class="played" style="{limits}" '
        f'viewBox="0 0 {width:g} {height:g}" aria-hidden="true" focusable="false">'
        f"{''.join(body)}</svg>"
    )


def text(x: float, y: float, label: object, *, anchor: str = "start", kind: str = "") -> str:
    """A label at a point; `anchor` says which end of it."""
    css_class = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css_class}>{escaped(label)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dot(x: float, y: float, label: str) -> str:
    """A mark with a label that shows on hover."""
    return (
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
        f"<title>{escaped(label)}</title></circle>"
    )


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points, or an area around them."""
    coordinates = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    tag = "polygon" if kind == "band" else "polyline"
    return f'<{tag} class="{kind}" points="{coordinates}"/>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first column holds the row headers."""
    top = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in columns)
    body = ""
    for header, *values in rows:
        cells = "".join(f'<td class="number">{escaped(cell)}</td>' for cell in values)
        body += f'<tr><th scope="row">{escaped(header)}</th>{cells}</tr>'
    head = f"<thead><tr>{top}</tr></thead>"
    return f"<table>{head}<tbody>{body}</tbody></table>"


def escaped(value: object) -> str:
    """Text that is safe inside HTML."""
    return html.escape(str(value))


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def signed(value: float | None) -> str:
    """A number with its sign."""
    return "-" if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def plain(value: float | None, digits: int = 2) -> str:
    """A number with a real minus sign."""
    return "-" if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
