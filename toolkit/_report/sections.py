"""The sections of a report as it shows them, and the figure at its top: of the section behind the
first finding, the one that says so of itself, else its first chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.work import Figure


@dataclass(frozen=True)
class SectionError:
    """Why a section is missing."""

    plugin: str
    """The name of the plugin, as `toolkit plugins` prints it."""
    kind: str
    message: str


@dataclass(frozen=True)
class Section:
    """A plugin's report section, ready to show."""

    name: str
    title: str
    help: str
    figures: Sequence[Figure]
    error: SectionError | None = None


@dataclass(frozen=True)
class Lead:
    """The picture, and the section that it belongs to."""

    section: Section
    figure: Figure


def lead_of(sections: Sequence[Section], stating: Iterable[str]) -> Lead | None:
    """The figure for the findings that the sections of these names state, in their order."""
    by_name = {section.name: section for section in sections}
    for name in stating:
        figures = by_name[name].figures if name in by_name else ()
        charts = [figure for figure in figures if "<svg" in figure.html]
        for figure in [*(figure for figure in figures if figure.leads), *charts]:
            return Lead(by_name[name], figure)
    return None
