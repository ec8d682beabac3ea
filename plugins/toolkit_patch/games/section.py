"""The report section on games under patches: each arm against the same games without the patch."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    body = "".join(
        f'<tr><th scope="row">{html.escape(row["arm"])}</th><td>{html.escape(row["outcome"])}</td>'
        f'<td class="number">{row["unpatched"]:.1%}</td>'
        f'<td class="number">{row["patched"]:.1%}</td><td class="number">{row["difference"]:+.3f} '
        f"[{row['low']:+.3f}, {row['high']:+.3f}]</td>"
        f'<td class="number">{row["changed"]} of {row["pairs"]}</td>'
        f'<td class="number">{row["q"]:.2g}</td></tr>'
        for row in rows
    )
    headings = ("arm", "outcome", "without", "with", "difference", "pairs that differ", "q")
    head = "".join(f'<th scope="col">{name}</th>' for name in headings)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    yield Figure("Pair by pair", f"<p>{html.escape(sentence)}.</p>{table}", sentence)


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
            rank=12,
        )
