"""What random decoder rows give in a screen, beside the trained ones."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from .stage import CAUSAL, ORDER

Row = Mapping[str, Any]


def control_sentence(control: Sequence[Row]) -> str:
    """How many features are causal with random decoder rows."""
    causal, family = Counter(row["verdict"] for row in control)[CAUSAL], control[0]["family"]
    verb = "is" if causal == 1 else "are"
    return (
        "With decoder rows replaced by random directions of equal length (same encoders), "
        f"{causal} of {family} {verb} causal"
    )


def control_table(rows: Sequence[Row], control: Sequence[Row]) -> str:
    """A row per verdict with both numbers of features, then the median sizes of effects."""
    trained, drawn = (Counter(row["verdict"] for row in group) for group in (rows, control))
    family = rows[0]["family"]
    lines = [
        _line(name, f"{trained[name]} of {family}", f"{drawn[name]} of {family}")
        for name in ORDER
        if trained[name] or drawn[name]
    ]
    sizes = (median(abs(row["effect"]) for row in group) for group in (rows, control))
    lines.append(_line("median size of the effect", *(f"{size:.4f}" for size in sizes)))
    headings = ("verdict", "trained decoder", "random decoder")
    head = "".join(f'<th scope="col">{name}</th>' for name in headings)
    sentence = html.escape(control_sentence(control))
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<p>{sentence}.</p>{body}"


def _line(name: str, *cells: str) -> str:
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{html.escape(name)}</th>{numbers}</tr>'
