"""Looks up rows of `measures`, for reports and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.work import Inputs

from .scopes import ALL, Scope

Row = Mapping[str, Any]


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
        """The rows of the outcome table: the groups of games, or all games where there are none."""
        scopes = dict.fromkeys(Scope.of(row) for row in self.of("balance"))
        return [scope for scope in scopes if scope != ALL] or [ALL]

    @property
    def conditions(self) -> list[Scope]:
        """The single conditions."""
        scopes = dict.fromkeys(Scope.of(row) for row in self.of("outcome"))
        return [scope for scope in scopes if scope.kind == "condition"]
