"""The report section on feature sets: the joint effect against the sum of its parts, and pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
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
        yield Figure(title, f"<p>{draw.escaped(summary(rows))}.</p>{_table(rows)}", summary(rows))


def _table(rows: Sequence[Row]) -> str:
    cells = [
        (
            draw.escaped(row["name"]),
            WORDS[row["arm"]],
            signed(row["effect"]),
            f"[{signed(row['low'])}, {signed(row['high'])}]",
            f"{row['p']:.2g}",
            "" if row["q"] is None else f"{row['q']:.2g}",
        )
        for row in rows
    ]
    heads = ("features", "what", "change", "95 % interval", "p", "q over pairs")
    caption = f"Changes of P({rows[0]['outcome']})"
    return draw.table(caption, heads, cells, left=(1,))


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
