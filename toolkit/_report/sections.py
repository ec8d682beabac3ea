"""The sections of a report as it shows them, and the figure at its top: from the section that
states the first finding, the figure that sets `leads`, else the first chart.
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
    """The figure at the top of a report, and its section."""

    section: Section
    figure: Figure


def lead_of(sections: Sequence[Section], stating: Iterable[str]) -> Lead | None:
    """The figure at the top, from the first of the sections `stating` findings that has one."""
    by_name = {section.name: section for section in sections}
    for name in stating:
        figures = by_name[name].figures if name in by_name else ()
        charts = [figure for figure in figures if "<svg" in figure.html]
        for figure in [*(figure for figure in figures if figure.leads), *charts]:
            return Lead(by_name[name], figure)
    return None
