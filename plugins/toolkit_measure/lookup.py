"""Looks up rows of `measures`, for reports and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.work import Inputs

from .scopes import ALL, Scope

Row = Mapping[str, Any]
REPLY_RATES: Mapping[str, str] = {
    "truncated": "truncated replies",
    "unreadable": "unreadable replies",
    "asked_again": "asked again",
}
"""What is shown beside every rate of an event: the subject of a row of `replies`, and its name."""


@dataclass(frozen=True)
class Measures:
    """All rows of `measures`, in the order in which they were written."""

    rows: Sequence[Row]

    @classmethod
    def read(cls, inputs: Inputs) -> Measures:
        """The rows of a run."""
        return cls(inputs.read("measures").to_pylist())

    def get(self, measure: str, subject: str, scope: Scope = ALL) -> Row | None:
        """One row, or None."""
        for row in self.rows:
            if (row["measure"], row["subject"], Scope.of(row)) == (measure, subject, scope):
                return row
        return None

    def of(self, measure: str, scope: Scope | None = None) -> list[Row]:
        """The rows of a measure, in one scope or in all."""
        return [
            row for row in self.rows if row["measure"] == measure and scope in (None, Scope.of(row))
        ]

    def reply_rates(self, scope: Scope) -> dict[str, float]:
        """The shares of truncated and unreadable replies and of re-asked decisions, where known."""
        rows = [self.get("replies", name, scope) for name in REPLY_RATES]
        return {
            str(row["subject"]): float(row["value"])
            for row in rows
            if row is not None and row["value"] is not None
        }

    @property
    def event(self) -> str:
        """The outcome that the measures are about, such as `bankruptcy`."""
        events = [row["subject"] for row in self.of("outcome", ALL) if row["event"]]
        return str(events[0]) if events else ""

    @property
    def outcomes(self) -> list[str]:
        """All outcomes, the event first."""
        return [str(row["subject"]) for row in self.of("outcome", ALL)]

    @property
    def headline(self) -> list[Scope]:
        """The rows of the outcome table: the groups of games, or all games where there are none. A
        group is a combination of levels, or a level of games that have no other.
        """
        games: dict[Scope, int] = {Scope.of(row): row["n"] for row in self.of("outcome")}
        combinations = [scope for scope in games if scope.kind == "combination"]

        def is_group(scope: Scope) -> bool:
            if scope.kind != "level":
                return scope.kind == "combination"
            inside = [other for other in combinations if f", {scope.name}, " in f", {other.name}, "]
            return games[scope] > sum(games[other] for other in inside)

        return [scope for scope in games if is_group(scope)] or [ALL]

    @property
    def conditions(self) -> list[Scope]:
        """The single conditions."""
        scopes = dict.fromkeys(Scope.of(row) for row in self.of("outcome"))
        return [scope for scope in scopes if scope.kind == "condition"]
