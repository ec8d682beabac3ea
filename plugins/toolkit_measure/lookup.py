"""Rows of `measures` by what they are about, for reports and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.work import Inputs

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measures:
    """All rows of `measures`, in the order in which they were written."""

    rows: Sequence[Row]

    @classmethod
    def read(cls, inputs: Inputs) -> Measures:
        """The rows of a run."""
        return cls(inputs.read("measures").to_pylist())

    def get(self, measure: str, subject: str, condition: str = "all") -> Row | None:
        """One row, if it is there."""
        for row in self.rows:
            if (row["measure"], row["subject"], row["condition"]) == (measure, subject, condition):
                return row
        return None

    def of(self, measure: str, condition: str | None = None) -> list[Row]:
        """The rows of a measure, of one condition or of all."""
        return [
            row
            for row in self.rows
            if row["measure"] == measure and condition in (None, row["condition"])
        ]

    @property
    def event(self) -> str:
        """The outcome that the measures are about, such as `bankruptcy`."""
        events = [row["subject"] for row in self.of("outcome", "all") if row["text"] == "event"]
        return str(events[0]) if events else ""

    @property
    def outcomes(self) -> list[str]:
        """All outcomes, the event first."""
        return [str(row["subject"]) for row in self.of("outcome", "all")]

    @property
    def headline(self) -> list[str]:
        """The rows of the outcome table: every combination of groups; all games where there is
        one.
        """
        scopes = list(dict.fromkeys(str(row["condition"]) for row in self.of("balance")))
        groups = [scope for scope in scopes if scope != "all"]
        if groups:
            return groups
        return ["all"]

    @property
    def conditions(self) -> list[str]:
        """The single conditions."""
        scopes = dict.fromkeys(str(row["condition"]) for row in self.of("outcome"))
        return [scope for scope in scopes if scope != "all" and "=" not in scope]


def title_of(scope: str) -> str:
    """`layout=restart, mode=fixed` as people read it; `all` for all games."""
    if scope == "all":
        return "all games"
    if "=" not in scope:
        return scope
    return " · ".join(part.partition("=")[2] for part in scope.split(", "))
