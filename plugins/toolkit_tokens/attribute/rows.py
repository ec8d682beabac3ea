"""Rows of `attributions` and `attribution_checks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

MIN_EXACT = 1e-9
"""An exact change below this has no sign to agree with."""
BLOCK_SITES = ("attn_out", "mlp_out")
"""What a block writes."""


@dataclass(frozen=True)
class AttributedPair:
    """The sample of an attribution, the sample whose parts exact patching puts in (empty: there is
    none), and the outcome.
    """

    sample: str
    against: str
    outcome: str


@dataclass
class TokenAttribution:
    """The parts of one method at one site, and the change that they should add up to."""

    about: AttributedPair
    method: str
    kind: str
    """The kind of its parts: token, feature, head, or the output of each block's attention or MLP.
    """
    layer: int | None
    space: str | None = None
    measured: float | None = None
    """The change that all parts together make; None where parts overlap and do not add up."""
    by_size: bool = False
    """Whether only the sizes of its parts are compared with exact patching: they explain one
    prompt, and exact patching the change to another one.
    """
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: str, value: float, **location: Any) -> None:
        """Add one part; `location` says where it is, and what a token gets and has there."""
        row = {
            "sample": self.about.sample,
            "against": self.about.against,
            "outcome": self.about.outcome,
            "method": self.method,
            "part": part,
            "layer": location.get("layer", self.layer),
            "position": location.get("position"),
            "head": location.get("head"),
            "space": self.space,
            "feature": location.get("feature"),
            "value": float(value),
            "exact": None,
            "attention": location.get("attention"),
            "norm": location.get("norm"),
        }
        self.rows.append(row)

    def with_exact(self, about: AttributedPair) -> TokenAttribution:
        """The same parts, to be compared with exact patching of a pair."""
        rows = [{**row, "against": about.against} for row in self.rows]
        return replace(self, about=about, rows=rows)

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(sum(row["value"] for row in self.rows))

    def check(self) -> dict[str, Any]:
        """Completeness, and agreement with exact patching."""
        import numpy as np

        compared = [row for row in self.rows if row["exact"] is not None]
        values = np.array([row["value"] for row in compared])
        exact = np.array([row["exact"] for row in compared])
        if self.by_size:
            values, exact = np.abs(values), np.abs(exact)
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
            "same_sign": None if self.by_size else _same_sign(values, exact),
        }


def pearson(x: Any, y: Any) -> float | None:
    """The correlation; None for fewer than three values, or where one side does not vary."""
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return None
    centred = (x - x.mean()) * (y - y.mean())
    return float(centred.mean() / (x.std() * y.std()))


def _ranks(values: Any) -> Any:
    """Ranks; equal values share their mean rank."""
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _same_sign(values: Any, exact: Any) -> float | None:
    import numpy as np

    has_sign = np.abs(exact) > MIN_EXACT
    return (
        float((np.sign(values[has_sign]) == np.sign(exact[has_sign])).mean())
        if has_sign.any()
        else None
    )


def all_rows(
    attributions: Iterable[TokenAttribution],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `attributions`, and of `attribution_checks`."""
    listed: Sequence[TokenAttribution] = list(attributions)
    return [row for attribution in listed for row in attribution.rows], [
        attribution.check() for attribution in listed
    ]
