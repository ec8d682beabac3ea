"""A page: a template, its contents, and the tables that can be downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from toolkit._query.text import plain, shown
from toolkit._view.grid import Grid
from toolkit.work import Figure

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Page:
    """What a page's function returns. `run` is the id of the run that it shows."""

    template: str
    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    grids: Sequence[Grid] = ()
    run: str | None = None

    @property
    def charts(self) -> dict[str, Figure]:
        """Its charts, each of which can be downloaded as a file."""
        return {name: fact for name, fact in self.facts.items() if isinstance(fact, Figure)}

    def html(self, **common: Any) -> str:
        """The page as HTML."""
        grids = {grid.name: grid for grid in self.grids}
        template = environment().get_template(self.template)
        facts = {**common, **self.facts}
        return template.render(title=self.title, run=self.run, grids=grids, **facts)


def token(piece: str) -> str:
    """A token as pages show it, with line ends as visible marks."""
    return plain(piece.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")) or " "


def shade(value: float | None, largest: float) -> str:
    """The CSS class of a token by a feature's value: `h1` to `h9`, `off` if the feature does not
    fire, and empty if no value was measured.
    """
    if value is None:
        return ""
    if value <= 0 or largest <= 0:
        return "off"
    return f"h{max(1, min(9, round(9 * value / largest)))}"


@cache
def environment() -> Environment:
    """The templates. They escape everything except the charts that this package draws."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    from toolkit._report.page import notes

    jinja = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain,
        loader=FunctionLoader(resource),
    )
    jinja.filters.update(shown=shown, token=token, notes=notes)
    jinja.globals["static"] = static_folder()
    return jinja


@cache
def static_files() -> Mapping[str, tuple[str, str]]:
    """The text and the media type of the style sheet and the script, by name."""
    from toolkit._report.page import report_resource

    return {
        "view.css": (report_resource("report.css") + resource("view.css"), "text/css"),
        "view.js": (report_resource("report.js") + resource("view.js"), "text/javascript"),
    }


@cache
def static_folder() -> str:
    """The folder of these files in addresses. Its name changes with them, so that a browser can
    keep them for good.
    """
    texts = "".join(text for text, _ in static_files().values())
    return f"/static/{hashlib.sha256(texts.encode()).hexdigest()[:16]}"


@cache
def resource(name: str) -> str:
    """A file of this package's folder `template`."""
    return (files("toolkit") / "_view" / "template" / name).read_text(encoding="utf-8")
