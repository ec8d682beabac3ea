"""Tables of the report: how games ended, replies that could not be read, and the indices."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit import figures as draw
from toolkit.work import Figure

from .indices import LABELS
from .lookup import REPLY_RATES, Measures, Row
from .scopes import ALL, Scope


def outcome_table(measures: Measures) -> Figure:
    head = ["", "games", f"{measures.event} (95 %)"]
    head += ["I", "rounds", "total bet", "net"]
    other_outcomes = [name for name in measures.outcomes if name != measures.event]
    head += [*(name.replace("_", " ") for name in other_outcomes), *REPLY_RATES.values()]
    rows = [_outcome_row(measures, scope, other_outcomes) for scope in _table_scopes(measures)]
    summary = "; ".join(f"{row[0]}: {row[2]} of {row[1]} games" for row in rows)
    note = (
        '<p class="faint">Means over games. Intervals of rates are Wilson\'s. I is the composite '
        "of betting aggressiveness, loss chasing and extreme bets. What no decision ended "
        "(invalid_reply, truncated) is an outcome of its own. The last three columns are shares of "
        "replies, and of decisions that were asked for again.</p>"
    )
    table = draw.table("Games by how they ended", head, _escaped(rows))
    return Figure("Outcomes", table + note, alt=f"{measures.event}: {summary}.", leads=True)


def _table_scopes(measures: Measures) -> list[Scope]:
    headline = measures.headline
    return [*headline, ALL] if headline != [ALL] else headline


def _outcome_row(measures: Measures, scope: Scope, other_outcomes: Sequence[str]) -> list[str]:
    event = measures.get("outcome", measures.event, scope)
    assert event is not None
    low, high = 100 * event["low"], 100 * event["high"]
    rate = f"{draw.percent(event['value'])} ({low:.1f} to {high:.1f})"
    means = {row["subject"]: row["value"] for row in measures.of("mean", scope)}
    cells = [scope.title, f"{event['n']:,}", rate, draw.fixed(means.get("I"), 3)]
    cells += [draw.fixed(means.get(name), 2) for name in ("rounds", "total_bet", "net")]
    for name in other_outcomes:
        row = measures.get("outcome", name, scope)
        cells.append(draw.percent(row["value"]) if row else "-")
    rates = measures.reply_rates(scope)
    return [*cells, *(draw.percent(rates[name]) if name in rates else "-" for name in REPLY_RATES)]


def failure_table(measures: Measures) -> Figure:
    """Replies that were cut off or unreadable, by group and for the worst conditions."""
    head = ["", "replies", "truncated", "unreadable", "decisions requested again", "never begun"]
    worst = sorted(measures.conditions, key=lambda scope: -_failure_rate(measures, scope))[:5]
    scopes = [
        *_table_scopes(measures),
        *(scope for scope in worst if _failure_rate(measures, scope) > 0),
    ]
    rows = []
    for scope in scopes:
        replies = {row["subject"]: row for row in measures.of("replies", scope)}
        not_played = measures.get("not_played", "not_played", scope)
        rows.append(
            [
                scope.title,
                f"{replies['unreadable']['n']:,}" if replies else "-",
                *(
                    draw.percent(replies[name]["value"]) if name in replies else "-"
                    for name in ("truncated", "unreadable", "asked_again")
                ),
                f"{not_played['value']:.0f}" if not_played else "0",
            ]
        )
    return Figure(
        "Replies that could not be read",
        draw.table("Replies and decisions, by group", head, _escaped(rows)),
        alt="A table of how many replies were cut off or unreadable, by group.",
    )


def _failure_rate(measures: Measures, scope: Scope) -> float:
    replies = measures.of("replies", scope)
    failed = sum(row["value"] or 0.0 for row in replies if row["subject"] != "asked_again")
    not_played = measures.get("not_played", "not_played", scope)
    return failed + (1.0 if not_played else 0.0)


def index_table(measures: Measures) -> Figure:
    scopes = _table_scopes(measures)
    rows = []
    for name, label in LABELS.items():
        cells = []
        for scope in scopes:
            row = measures.get("mean", name, scope)
            cells.append(_mean(row))
        if any(cell != "-" for cell in cells):
            rows.append([label, *cells])
    head = ["index", *(scope.title for scope in scopes)]
    table = draw.table("Means over games (95 %, bootstrap by game)", head, _escaped(rows))
    return Figure("How they played", table, alt="A table of means of games.")


def _mean(row: Row | None) -> str:
    if row is None:
        return "-"
    value = draw.fixed(row["value"], 3)
    if row["low"] is None:
        return f"{value} (n {row['n']})"
    return f"{value} ({draw.fixed(row['low'], 3)} to {draw.fixed(row['high'], 3)})"


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[draw.escaped(cell) for cell in row] for row in rows]
