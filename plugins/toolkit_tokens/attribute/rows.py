"""Rows of `attributions` and `attribution_checks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOLD_APART = 1e-9
"""An exact change below this has no sign to agree with."""
CHECKED = ("token", "feature", "head", "attn_out", "mlp_out")
"""Parts that exact patching is compared on."""


@dataclass(frozen=True)
class About:
    """What an attribution is of."""

    sample: str
    against: str
    outcome: str


@dataclass
class TokenAttribution:
    """The parts of one method at one place, and what they should add up to."""

    about: About
    method: str
    kind: str
    """What its parts are: token, feature, head, or what attention or MLP of each block writes."""
    layer: int | None
    space: str | None = None
    measured: float | None = None
    """The change that all parts together make; None where parts overlap and do not add up."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: str, value: float, exact: float | None = None, **place: Any) -> None:
        """One part."""
        row = {
            "sample": self.about.sample,
            "against": self.about.against,
            "outcome": self.about.outcome,
            "method": self.method,
            "part": part,
            "layer": place.get("layer", self.layer),
            "position": place.get("position"),
            "head": place.get("head"),
            "space": self.space,
            "feature": place.get("feature"),
            "value": float(value),
            "exact": exact,
        }
        self.rows.append(row)

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(sum(row["value"] for row in self.rows))

    def check(self) -> dict[str, Any]:
        """Completeness, and agreement with exact patching."""
        compared = [row for row in self.rows if row["exact"] is not None and row["part"] in CHECKED]
        values = np.array([row["value"] for row in compared])
        exact = np.array([row["exact"] for row in compared])
        return {
            "sample": self.about.sample,
            "against": self.about.against,
            "outcome": self.about.outcome,
            "method": self.method,
            "part": self.kind,
            "layer": self.layer,
            "space": self.space,
            "total": self.total,
            "measured": self.measured,
            "compared": len(compared),
            "r": pearson(values, exact),
            "rank_r": pearson(_ranks(values), _ranks(exact)),
            "same_sign": _same_sign(values, exact),
        }


def pearson(first: Any, second: Any) -> float | None:
    """The correlation; None of fewer than three, or where one side does not vary."""
    if len(first) < 3 or first.std() == 0 or second.std() == 0:
        return None
    centred = (first - first.mean()) * (second - second.mean())
    return float(centred.mean() / (first.std() * second.std()))


def _ranks(values: Any) -> Any:
    """Ranks, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _same_sign(values: Any, exact: Any) -> float | None:
    told = np.abs(exact) > TOLD_APART
    return float((np.sign(values[told]) == np.sign(exact[told])).mean()) if told.any() else None


def all_rows(
    found: Iterable[TokenAttribution],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of both tables."""
    held: Sequence[TokenAttribution] = list(found)
    return [row for one in held for row in one.rows], [one.check() for one in held]
