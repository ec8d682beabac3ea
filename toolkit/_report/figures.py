"""The figures of a report as files: each chart as an SVG that stands alone (and as PNG and PDF, if
vl-convert is installed), its data and each table as CSV, and `index.csv`, which says what each file
is.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._report.images import converters
from toolkit._report.page import report_resource, sections_of
from toolkit._report.sections import Section
from toolkit._run.atomic import write_bytes
from toolkit.errors import PluginError
from toolkit.figures import STYLE
from toolkit.work import Figure

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts
    from toolkit_store import Store

INDEX = ("file", "section", "title", "alt")
_SVG = re.compile(r"<svg\b([^>]*)>(.*?)</svg>", re.DOTALL)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_CLASS = re.compile(r'class="([^"]*)"')
_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_KEY = re.compile(r'<i style="background:([^"]*)"></i>([^<]*)</span>')
_VARIABLE = re.compile(r"--([a-z-]+):([^;]+);")
_USED = re.compile(r"var\(--([a-z-]+)\)")
_MIX = re.compile(r"color-mix\(in srgb, ?([^ ]+) ?(\d+)%, ?transparent\)")
LEGEND = 22
"""The height of a line of a legend."""
Converters = Mapping[str, Callable[[str], bytes]]
"""The function that makes the bytes of a file from an SVG, by the file's ending."""
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif"


@dataclass(frozen=True)
class FigureFile:
    """One file: its name, its bytes, and the figure that it belongs to."""

    name: str
    content: bytes
    section: Section
    figure: Figure


def export_figures(store: Store, run: str, parts: Parts, folder: Path) -> list[Path]:
    """Write the charts and tables of a run's report to a folder; return the written files."""
    files = list(figure_files(sections_of(store, run, parts), converters()))
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        write_bytes(folder / file.name, file.content)
    rows = [
        {
            "file": file.name,
            "section": file.section.title,
            "title": file.figure.title,
            "alt": file.figure.alt,
        }
        for file in files
    ]
    write_bytes(folder / "index.csv", _csv(INDEX, rows))
    return [folder / file.name for file in files] + [folder / "index.csv"]


def figure_files(
    sections: Iterable[Section], formats: Converters | None = None
) -> Iterator[FigureFile]:
    """The files of the figures, numbered in the order of the report. Charts are SVG, and `formats`
    besides.
    """
    number = 0
    for section in sections:
        for figure in section.figures:
            number += 1
            stem = f"{number:02d}-{_slug(section.name)}-{_slug(figure.title)}"[:80].rstrip("-")
            for name, content in _contents(stem, figure, formats or {}):
                yield FigureFile(name, content, section, figure)


def _contents(stem: str, figure: Figure, formats: Converters) -> Iterator[tuple[str, bytes]]:
    charts = list(_SVG.finditer(figure.html))
    for index, chart in enumerate(charts):
        end = "" if len(charts) == 1 else f"-{index + 1}"
        drawn = standalone(chart, figure)
        yield f"{stem}{end}.svg", drawn.encode()
        for ending, convert in formats.items():
            yield f"{stem}{end}.{ending}", _converted(drawn, ending, convert, figure)
    if figure.data:
        heads = list(dict.fromkeys(head for row in figure.data for head in row))
        yield f"{stem}.csv", _csv(heads, figure.data)
    tables = Tables()
    tables.feed(figure.html)
    for index, rows in enumerate(tables.tables):
        end = "-table" if len(tables.tables) == 1 else f"-table-{index + 1}"
        yield f"{stem}{end}.csv", _lines(rows)


def _converted(drawn: str, ending: str, convert: Callable[[str], bytes], figure: Figure) -> bytes:
    try:
        return convert(drawn)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise PluginError(
            f"The chart '{figure.title}' cannot be written as {ending.upper()} ({reason}): its "
            "plugin drew something that is no SVG. Without vl-convert the SVG alone is written."
        ) from error


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"


# --- charts ---------------------------------------------------------------------------------------


def chart_file(figure: Figure) -> str:
    """The only chart of a figure as a separate file."""
    (chart,) = _SVG.finditer(figure.html)
    return standalone(chart, figure)


def standalone(chart: re.Match[str], figure: Figure) -> str:
    """A chart as a separate file, in the report's light colours, with its title and legend."""
    attributes, drawn = chart[1], chart[2]
    box = _BOX.search(attributes)
    wide, high = (float(box[1]), float(box[2])) if box else (640.0, 400.0)
    legend = [(colour, html.unescape(words)) for colour, words in _KEY.findall(figure.html)]
    styles = "".join(_STYLE.findall(STYLE) + _STYLE.findall(figure.html))
    marks, below = _legend(legend, wide, high)
    body = (
        f"<title>{html.escape(figure.title)}</title><desc>{html.escape(figure.alt)}</desc>"
        f"<style>text{{font-family:{FONT}}}{styles}</style>"
        f'<rect width="{wide:g}" height="{below:g}" fill="var(--bg)"/>{drawn}{marks}'
    )
    size = f'width="{wide:g}" height="{below:g}" viewBox="0 0 {wide:g} {below:g}"'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    named = _CLASS.search(attributes)
    kind = named[1] if named else "stats"
    return _coloured(f'<svg {space} class="{kind}" {size} role="img">{body}</svg>\n')


def _legend(entries: Sequence[tuple[str, str]], wide: float, high: float) -> tuple[str, float]:
    """The legend under a chart, and the height of both."""
    out, x, y = [], 16.0, high + LEGEND / 2
    for colour, words in entries:
        width = 26 + 7.0 * len(words)
        if x > 16 and x + width > wide:
            x, y = 16.0, y + LEGEND
        position = f'x="{x + 14:.1f}" y="{y + 4:.1f}"'
        out.append(f'<circle cx="{x + 5:.1f}" cy="{y:.1f}" r="5" style="fill:{colour}"/>')
        out.append(f"<text {position}>{html.escape(words)}</text>")
        x += width + 14
    return "".join(out), y + LEGEND / 2 if entries else high


def _coloured(text: str) -> str:
    """The text with colours instead of the report's CSS variables: few programs read those."""
    palette = report_resource("report.css").partition("}")[0]
    colours = dict(_VARIABLE.findall(palette))
    named = _USED.sub(lambda used: colours.get(used[1], "#5b6575").strip(), text)
    return _MIX.sub(lambda mix: _faded(mix[1], int(mix[2])), named)


def _faded(colour: str, percent: int) -> str:
    """A colour mixed with white, of which `percent` remains."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = (int(digits[start : start + 2], 16) for start in (0, 2, 4))
    return "#" + "".join(f"{round(255 - (255 - part) * percent / 100):02x}" for part in parts)


# --- tables ---------------------------------------------------------------------------------------


class Tables(HTMLParser):
    """The tables of a figure as rows of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A table, row or cell begins."""
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.tables and self.tables[-1]:
            self._cell = []
        elif tag == "br" and self._cell is not None:
            self._cell.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """A cell ends."""
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        """Text of a cell."""
        if self._cell is not None:
            self._cell.append(data)


def _csv(heads: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    return _lines([list(heads), *([row.get(head) for head in heads] for row in rows)])


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()
