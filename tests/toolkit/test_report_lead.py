"""What stands at the top of a report: the figure of the section that states the first finding."""

from __future__ import annotations

from toolkit._report.sections import Section, lead_of
from toolkit.work import Figure

TABLE, CHART = Figure("Table", "<table></table>"), Figure("Chart", "<svg></svg>")
LEADING = Figure("Outcomes", "<table></table>", leads=True)


def led(figures: list[Figure], stating: list[str]) -> str | None:
    sections = [Section("other", "Other", "", [TABLE]), Section("games", "Games", "", figures)]
    lead = lead_of(sections, stating)
    return lead.figure.title if lead else None


def test_the_first_chart_leads_unless_a_figure_says_that_it_does() -> None:
    assert led([TABLE, CHART], ["other", "games"]) == "Chart"
    assert led([CHART, LEADING], ["games"]) == "Outcomes"
    assert led([TABLE], ["games", "missing"]) is None
    assert led([LEADING], []) is None
