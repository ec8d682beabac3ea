"""The results of a screen with random decoder rows, compared with those of the trained ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from toolkit import figures as draw

from .stage import CAUSAL, ORDER, UNSPECIFIC

Row = Mapping[str, Any]


def control_sentence(control: Sequence[Row]) -> str:
    """How many features are causal, and how many unspecific, with random decoder rows."""
    counts, family = Counter(row["verdict"] for row in control), control[0]["family"]
    verb = "is" if counts[CAUSAL] == 1 else "are"
    return (
        "With decoder rows replaced by random directions of equal length (same encoders), "
        f"{counts[CAUSAL]} of {family} {verb} causal and {counts[UNSPECIFIC]} unspecific"
    )


def control_table(rows: Sequence[Row], control: Sequence[Row]) -> str:
    """A row per verdict with both numbers of features, then the median sizes of effects."""
    trained, drawn = (Counter(row["verdict"] for row in group) for group in (rows, control))
    family = rows[0]["family"]
    cells = [
        (name, f"{trained[name]} of {family}", f"{drawn[name]} of {family}")
        for name in ORDER
        if trained[name] or drawn[name]
    ]
    cells.append(("median size of the effect", _median(rows), _median(control)))
    heads = ("verdict", "trained decoder", "random decoder")
    caption = "Verdicts by decoder; reconstructions are tried with the trained one only"
    table = draw.table(caption, heads, cells)
    return f"<p>{draw.escaped(control_sentence(control))}.</p>{table}"


def _median(rows: Sequence[Row]) -> str:
    return f"{median(abs(row['effect']) for row in rows):.4f}"
