"""The picture at the top of a report: the first chart of the section behind the first finding that
has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.work import Figure

if TYPE_CHECKING:
    from toolkit._report.page import Section


@dataclass(frozen=True)
class Lead:
    """The picture, and the section that it belongs to."""

    section: Section
    figure: Figure


def lead_of(sections: Sequence[Section], stating: Iterable[str]) -> Lead | None:
    """The picture for the findings that the sections of these names state, in their order."""
    by_name = {section.name: section for section in sections}
    for name in stating:
        for figure in by_name[name].figures if name in by_name else ():
            if "<svg" in figure.html:
                return Lead(by_name[name], figure)
    return None
