"""`measures`: the measures of played games as CSV, and the outcome table as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from toolkit.parts import SinkParams
from toolkit.work import SinkWork

from .lookup import REPLY_RATES, Measures
from .scopes import ALL, Scope

COLUMNS = (
    "measure",
    "subject",
    "scope",
    "condition",
    "value",
    "low",
    "high",
    "p",
    "q",
    "n",
    "text",
)
_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"}


class MeasuresSink(SinkParams):
    """Where the files go."""


def export(work: SinkWork) -> Iterable[tuple[str, bytes]]:
    """`measures.csv` with every row, `outcomes.csv` and `outcomes.tex` with the outcome table."""
    measures = Measures.read(work.inputs)
    yield "measures.csv", _csv(COLUMNS, ([row[name] for name in COLUMNS] for row in measures.rows))
    head, rows = outcome_table(measures)
    yield "outcomes.csv", _csv(head, rows)
    yield "outcomes.tex", _latex(head, rows).encode()


def outcome_table(measures: Measures) -> tuple[list[str], list[list[object]]]:
    """The outcome table as numbers: one row per group, and one for all games."""
    means = ("I", "rounds", "total_bet", "net")
    head = ["group", "games"]
    for name in measures.outcomes:
        head += [name]
    head += [f"{measures.event}_low", f"{measures.event}_high", *means]
    head += [name.replace(" ", "_") for name in REPLY_RATES.values()]
    rows: list[list[object]] = []
    for scope in dict.fromkeys([*measures.headline, ALL]):
        event = measures.get("outcome", measures.event, scope)
        if event is None:
            continue
        cells: list[object] = [scope.title, event["n"]]
        cells += [_value(measures, "outcome", name, scope) for name in measures.outcomes]
        cells += [event["low"], event["high"]]
        cells += [_value(measures, "mean", name, scope) for name in means]
        cells += [_value(measures, "replies", name, scope) for name in REPLY_RATES]
        rows.append(cells)
    return head, rows


def _value(measures: Measures, measure: str, subject: str, scope: Scope) -> float | None:
    row = measures.get(measure, subject, scope)
    return None if row is None else row["value"]


def _csv(head: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if cell is None else cell for cell in row])
    return out.getvalue().encode()


def _latex(head: list[str], rows: list[list[object]]) -> str:
    """A booktabs table; numbers have three decimals."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule"]
    lines.append(" & ".join(_escaped(name.replace("_", " ")) for name in head) + r" \\")
    lines.append(r"\midrule")
    for row in rows:
        lines.append(" & ".join(_cell(cell) for cell in row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(cell: object) -> str:
    if cell is None:
        return "--"
    if isinstance(cell, float):
        return f"{cell:.3f}" if cell >= 0 else f"$-${-cell:.3f}"
    return _escaped(str(cell))


def _escaped(text: str) -> str:
    plain = text.replace("\N{MIDDLE DOT}", ",")
    return "".join(_SPECIAL.get(character, character) for character in plain)
