"""The report section on games under patches: each arm against the same games without the patch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]


def sentence_of(row: Row) -> str:
    """One arm and outcome in a sentence."""
    null_part = ""
    if row["null_arms"]:
        null_part = f"; {row['beyond']} of {row['null_arms']} random arms change it as much"
    return (
        f"Under {row['arm']}, {row['patched']:.1%} of {row['pairs']} games end in "
        f"{row['outcome']}, {row['unpatched']:.1%} of the same games without "
        f"({row['changed']} pairs differ, q {row['q']:.2g}){null_part}"
    )


def _strongest(rows: Sequence[Row]) -> Row:
    """The row with the strongest evidence, outside the null arms if there are others."""
    tested = [row for row in rows if row["p_null"] is not None] or list(rows)
    return min(tested, key=lambda row: (row["q"], -abs(row["difference"])))


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A sentence and a table of all arms, for each stage."""
    stages = rows_by_stage(inputs, "paired_games")
    for stage, rows in stages.items():
        sentence = sentence_of(_strongest(rows))
        title = headed(stage, stages, "Pair by pair")
        yield Figure(title, f"<p>{draw.escaped(sentence)}.</p>{_table(rows)}", sentence)


def _table(rows: Sequence[Row]) -> str:
    cells = [
        (
            draw.escaped(row["arm"]),
            draw.escaped(row["outcome"]),
            draw.percent(row["unpatched"]),
            draw.percent(row["patched"]),
            f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            f"{row['changed']} of {row['pairs']}",
            f"{row['q']:.2g}",
        )
        for row in rows
    ]
    heads = ("arm", "outcome", "without", "with", "difference", "pairs that differ", "q")
    return draw.table("The same games without and with the patch", heads, cells, left=(1,))


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """The sentence of the arm that changes most, for each stage."""
    stages = rows_by_stage(inputs, "paired_games")
    for stage, rows in stages.items():
        best = _strongest(rows)
        yield Finding(
            sentence=headed(stage, stages, sentence_of(best)),
            number=best["difference"],
            interval=(best["low"], best["high"]),
            n=best["pairs"],
            rank=12,
        )
