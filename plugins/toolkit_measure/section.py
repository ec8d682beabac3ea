"""The report on played games: the outcome table, then the event's rate by condition, the effects of
components, and balances by round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toolkit import figures as draw
from toolkit.work import Figure, Finding, Inputs

from .charts import balances, by_condition, component_effects
from .lookup import Measures, Row
from .report_tables import failure_table, index_table, outcome_table
from .scopes import ALL, Scope

SENTENCES = 2
"""Groups that get a sentence each; of more only two are named."""


def figures(inputs: Inputs) -> Iterable[Figure]:
    """Everything about the games of a run."""
    measures = Measures.read(inputs)
    if not measures.rows or not measures.event:
        return
    yield outcome_table(measures)
    yield failure_table(measures)
    yield by_condition(measures)
    yield from component_effects(measures)
    yield from balances(measures)
    yield index_table(measures)
    yield from _notes(measures)


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The event's rate in each group, or in the two groups where it is highest and lowest, so that
    the report's first screen has the table; and the component with the largest significant effect.
    """
    measures = Measures.read(inputs)
    if not measures.rows or not measures.event:
        return
    scopes = [
        scope
        for scope in measures.headline
        if measures.get("outcome", measures.event, scope) is not None
    ]
    if len(scopes) <= SENTENCES:
        for scope in scopes:
            yield _rate_finding(measures, scope)
    else:
        scopes.sort(key=lambda scope: _rate(measures, scope)["value"])
        rest = f" The least of {len(scopes)} groups: {_rate_text(measures, scopes[0])}."
        yield _rate_finding(measures, scopes[-1], rest)
    yield from _strongest(measures)


def _rate(measures: Measures, scope: Scope) -> Row:
    row = measures.get("outcome", measures.event, scope)
    assert row is not None
    return row


def _rate_text(measures: Measures, scope: Scope) -> str:
    row = _rate(measures, scope)
    share = f"{draw.percent(row['value'])} of {row['n']} games"
    return f"{share}, {scope.title}{_failure_note(measures, scope)}"


def _rate_finding(measures: Measures, scope: Scope, rest: str = "") -> Finding:
    row = _rate(measures, scope)
    return Finding(
        sentence=f"{_sentence_case(measures.event)} in {_rate_text(measures, scope)}.{rest}",
        number=row["value"],
        interval=(row["low"], row["high"]),
        n=row["n"],
        rank=5,
    )


def _sentence_case(words: str) -> str:
    return words[:1].upper() + words[1:]


def _failure_note(measures: Measures, scope: Scope) -> str:
    """The share of games that no decision ended, stated with every rate."""
    failed = sum(
        row["value"] or 0.0
        for row in measures.of("outcome", scope)
        if row["subject"] in ("invalid_reply", "truncated")
    )
    return f"; {draw.percent(failed)} ended in a reply that could not be read" if failed else ""


def _strongest(measures: Measures) -> Iterator[Finding]:
    effects = [row for row in _effects(measures) if row["q"] is not None and row["q"] <= 0.05]
    if effects:
        row = max(effects, key=lambda effect: abs(effect["value"]))
        tested = len(_effects(measures))
        direction = "more" if row["value"] > 0 else "less"
        yield Finding(
            sentence=(
                f"Of the components, {row['subject']} makes {measures.event} {direction} likely: "
                f"log odds {draw.signed(row['value'])} (q {row['q']:.2g}; {row['text']}). It is "
                f"named as the largest of {tested}, so probably overstated."
            ),
            number=row["value"],
            interval=None if row["low"] is None else (row["low"], row["high"]),
            n=row["n"],
            rank=6,
        )


def _effects(measures: Measures) -> list[Row]:
    effects = measures.of(f"odds:{measures.event}", ALL)
    return [row for row in effects if row["value"] is not None]


def _paired_sentence(measures: Measures, row: Row) -> str:
    """The effect of an intervention, over pairs of games."""
    points = f"{100 * row['value']:+.1f}".replace("-", "\N{MINUS SIGN}")
    low, high = 100 * (row["low"] or 0.0), 100 * (row["high"] or 0.0)
    return (
        f"Under {row['subject']}, {measures.event} changes by {points} points against the same "
        f"{row['n']} games without it ({low:.1f} to {high:.1f}; {row['text']}; p {row['p']:.2g})."
    )


def _notes(measures: Measures) -> Iterator[Figure]:
    """Complexity, agreement of index and event, shared states, close draws."""
    lines = [_paired_sentence(measures, row) for row in measures.of(f"paired:{measures.event}")]
    trend = measures.get("complexity_trend", "log odds a switch")
    if trend is not None and trend["value"] is not None:
        lines.append(
            f"Each additional component changes the log odds of {measures.event} by "
            f"{draw.signed(trend['value'])} ({draw.signed(trend['low'])} to "
            f"{draw.signed(trend['high'])}; {trend['text']})."
        )
    r = measures.get("complexity_trend", "r over levels")
    if r is not None:
        lines.append(
            f"Over the {r['n']} numbers of components, the number and the rate of "
            f"{measures.event} correlate with r {draw.signed(r['value'])}."
        )
    index = measures.get("index_correlation", "I with the event")
    if index is not None:
        lines.append(
            f"Over {index['n']} conditions the composite index and the rate of {measures.event} "
            f"correlate with r {draw.signed(index['value'])}."
        )
    shared, distinct = measures.get("states", "shared"), measures.get("states", "distinct")
    if shared is not None and distinct is not None:
        lines.append(
            f"{draw.percent(shared['value'])} of {shared['n']:,} decisions are at a state that "
            f"another game reached too, bit for bit; {distinct['value']:,.0f} states are "
            "distinct. Later stages make them one cluster with cluster: state."
        )
    close = measures.get("tokens", "close_draws")
    if close is not None:
        lines.append(
            f"{close['value']:,.0f} of {close['n']:,} tokens were drawn so close to another token "
            "that a different order of computation could have chosen it."
        )
    items = "".join(f"<li>{draw.escaped(line)}</li>" for line in lines)
    if items:
        yield Figure("Also measured", f"<ul>{items}</ul>", alt="")
