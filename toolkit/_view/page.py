"""A page: a template, what it shows, and the tables that can be taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from toolkit._query.text import shown
from toolkit._view.grid import Grid

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Page:
    """What a page's function gives. `run` is the run that it is about."""

    template: str
    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    grids: Sequence[Grid] = ()
    run: str | None = None

    def html(self, **common: Any) -> str:
        """The page as HTML."""
        grids = {grid.name: grid for grid in self.grids}
        template = environment().get_template(self.template)
        facts = {**common, **self.facts}
        return template.render(title=self.title, run=self.run, grids=grids, **facts)


def plain(value: Any) -> Any:
    """A text without signs that steer a terminal or turn the direction of writing."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    if value.isprintable():
        return value
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{MIDDLE DOT}" for letter in value
    )


def token(piece: str) -> str:
    """A token as it is shown: line ends as a mark."""
    return plain(piece.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")) or " "


def shade(value: float | None, largest: float) -> str:
    """The class of a token that a feature fires on: `h1` to `h9`; `off` where it does not fire, and
    nothing where no value was measured.
    """
    if value is None:
        return ""
    if value <= 0 or largest <= 0:
        return "off"
    return f"h{max(1, min(9, round(9 * value / largest)))}"


@cache
def environment() -> Environment:
    """The templates. Everything that they write is escaped but what this package has drawn."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain,
        loader=FunctionLoader(resource),
    )
    made.filters.update(shown=shown, token=token)
    return made


@cache
def resource(name: str) -> str:
    """A file of this package's folder `template`."""
    return (files("toolkit") / "_view" / "template" / name).read_text(encoding="utf-8")
