"""Measures of played games: outcomes, indices and effects of components, with intervals."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, ReportSection, SinkPart, StagePart

from . import costs, section, sink, stage


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield StagePart(
        name="measure.games",
        version="2",
        help="Outcomes, indices and effects of components of played games, with intervals.",
        params=stage.MeasureGames,
        run=stage.measure,
        reads=("games", "rounds"),
        writes=("measures",),
        estimates=Estimates(max_rows=costs.max_rows, cost=costs.measuring),
    )
    yield SinkPart(
        name="measures",
        help="Measures of played games as CSV, and the outcome table as LaTeX.",
        params=sink.MeasuresSink,
        run=sink.export,
        reads=("measures",),
    )
    yield ReportSection(
        name="played_games",
        title="Outcomes of the games",
        help="The outcome table, ruin by condition, what components do, balances.",
        reads=("measures",),
        run=section.figures,
        findings=section.findings,
        order=5,
    )
