"""The report section on feature sets: the joint effect against the sum of its parts, and pairs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage
from toolkit_patch.verdicts.stage import signed

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]

WORDS = {
    "joint": "together",
    "sum": "sum of each alone",
    "interaction": "together beyond the sum",
    "ablated": "all set to zero",
}


def summary(rows: Sequence[Row]) -> str:
    """The whole set in one sentence."""
    arms = {row["arm"]: row for row in rows if row["name"] == "all"}
    joint, total = arms["joint"], arms["sum"]
    return (
        f"{len(joint['members'])} features changed together move P({joint['outcome']}) by "
        f"{signed(joint['effect'])} [{signed(joint['low'])}, {signed(joint['high'])}]; each alone, "
        f"their effects sum to {signed(total['effect'])}; {joint['beyond']} of {joint['sets']} "
        "random sets of as many changes do as much"
    )


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A sentence and a table for each stage."""
    stages = rows_by_stage(inputs, "joint_effects")
    for stage, rows in stages.items():
        title = headed(stage, stages, "Together against the sum")
        yield Figure(title, f"<p>{html.escape(summary(rows))}.</p>{_table(rows)}", summary(rows))


def _table(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        q = "" if row["q"] is None else f"{row['q']:.2g}"
        body.append(
            f'<tr><th scope="row">{html.escape(row["name"])}</th><td>{WORDS[row["arm"]]}</td>'
            f'<td class="number">{signed(row["effect"])}</td><td class="number">'
            f"[{signed(row['low'])}, {signed(row['high'])}]</td>"
            f'<td class="number">{row["p"]:.2g}</td><td class="number">{q}</td></tr>'
        )
    headings = ("features", "what", "change", "95 % interval", "p", "q over pairs")
    head = "".join(f'<th scope="col">{name}</th>' for name in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """The sentence of each figure."""
    stages = rows_by_stage(inputs, "joint_effects")
    for stage, rows in stages.items():
        whole_set = next(row for row in rows if row["name"] == "all" and row["arm"] == "joint")
        yield Finding(
            sentence=headed(stage, stages, summary(rows)),
            number=whole_set["effect"],
            interval=(whole_set["low"], whole_set["high"]),
            n=whole_set["clusters"],
            rank=26,
        )
