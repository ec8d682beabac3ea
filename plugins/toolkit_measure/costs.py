"""The cost of measuring games: small, and without a model."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.costs import Cost, Workload

from .stage import MeasureGames

SCOPE_ROWS, OVERALL_ROWS = 30, 1200
"""Rows of one condition, and rows over all of them: balances, effects, pairs."""
ROW = 120
MEMORY = 400 * 2**20
"""Bytes of a row of `measures` in the store, and of games, rounds and resamples in memory."""


def max_rows(params: MeasureGames, available: Mapping[str, int]) -> Mapping[str, int] | None:
    """An upper bound: as if every game had its own condition."""
    games = available.get("games")
    return None if games is None else {"measures": games * SCOPE_ROWS + OVERALL_ROWS}


def measuring(params: MeasureGames, load: Workload) -> Cost:
    """A few hundred rows and the resamples of the games."""
    rows = 300 * SCOPE_ROWS + OVERALL_ROWS
    return Cost(memory=MEMORY, disk=rows * ROW, table_rows=rows, exact=False)
