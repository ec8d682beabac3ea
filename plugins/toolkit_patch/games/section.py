"""The report section on games under patches: each arm against the same games without the patch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding

if TYPE_CHECKING:
    from toolkit.work import Inputs

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


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence and a table of all arms."""
    rows = inputs.read("paired_games").to_pylist()
    if not rows:
        return
    sentence = sentence_of(_strongest(rows))
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
    table = draw.table("The same games without and with the patch", heads, cells, left=(1,))
    yield Figure("Pair by pair", f"<p>{draw.escaped(sentence)}.</p>{table}", sentence)


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The sentence of the arm that changes most."""
    rows = inputs.read("paired_games").to_pylist()
    if rows:
        best = _strongest(rows)
        yield Finding(
            sentence=sentence_of(best),
            number=best["difference"],
            interval=(best["low"], best["high"]),
            n=best["pairs"],
            rank=18,
        )
