"""The report on played games: the outcome table, then the event's rate by condition, the effects of
components, and balances by round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from toolkit.work import Figure, Finding, Inputs

from . import draw
from .lookup import Measures, Row
from .scopes import ALL, Scope

SHOWN_CONDITIONS = 64


def figures(inputs: Inputs) -> Iterable[Figure]:
    """Everything about the games of a run."""
    measures = Measures.read(inputs)
    if not measures.rows or not measures.event:
        return
    yield _outcome_table(measures)
    yield _failure_table(measures)
    yield _by_condition(measures)
    yield from _components(measures)
    yield from _balances(measures)
    yield _index_table(measures)
    yield from _notes(measures)


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The event's rate in each group, and the component with the largest significant effect."""
    measures = Measures.read(inputs)
    if not measures.rows or not measures.event:
        return
    for scope in measures.headline:
        row = measures.get("outcome", measures.event, scope)
        if row is not None:
            yield Finding(
                sentence=(
                    f"{_sentence_case(measures.event)} in {draw.percent(row['value'])} of "
                    f"{row['n']} games, "
                    f"{scope.title}{_failure_note(measures, scope)}."
                ),
                number=row["value"],
                interval=(row["low"], row["high"]),
                n=row["n"],
                rank=5,
            )
    yield from _strongest(measures)


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
                f"log odds {draw.signed(row['value'])} (q {row['q']:.2g}), counted over "
                f"{row['n']} games; named as the largest of {tested}, so probably overstated."
            ),
            number=row["value"],
            interval=None if row["low"] is None else (row["low"], row["high"]),
            n=row["n"],
            rank=6,
        )


def _effects(measures: Measures) -> list[Row]:
    effects = measures.of(f"odds:{measures.event}", ALL)
    return [row for row in effects if row["value"] is not None]


# --- tables ---------------------------------------------------------------------------------------


def _outcome_table(measures: Measures) -> Figure:
    head = ["", "games", f"{measures.event} (95 %)"]
    head += ["I", "rounds", "total bet", "net"]
    other_outcomes = [name for name in measures.outcomes if name != measures.event]
    head += [*(name.replace("_", " ") for name in other_outcomes), "asked again"]
    rows = [_outcome_row(measures, scope, other_outcomes) for scope in _table_scopes(measures)]
    summary = "; ".join(f"{row[0]}: {row[2]} of {row[1]} games" for row in rows)
    note = (
        '<p class="faint">Means over games. Intervals of rates are Wilson\'s. I is the composite '
        "of betting aggressiveness, loss chasing and extreme bets. What no decision ended "
        "(invalid_reply, truncated) is an outcome of its own.</p>"
    )
    return Figure("Outcomes", draw.table(head, rows) + note, alt=f"{measures.event}: {summary}.")


def _table_scopes(measures: Measures) -> list[Scope]:
    headline = measures.headline
    return [*headline, ALL] if headline != [ALL] else headline


def _outcome_row(measures: Measures, scope: Scope, other_outcomes: Sequence[str]) -> list[str]:
    event = measures.get("outcome", measures.event, scope)
    assert event is not None
    low, high = 100 * event["low"], 100 * event["high"]
    rate = f"{draw.percent(event['value'])} ({low:.1f} to {high:.1f})"
    means = {row["subject"]: row["value"] for row in measures.of("mean", scope)}
    cells = [scope.title, f"{event['n']:,}", rate, draw.plain(means.get("I"), 3)]
    cells += [draw.plain(means.get(name)) for name in ("rounds", "total_bet", "net")]
    for name in other_outcomes:
        row = measures.get("outcome", name, scope)
        cells.append(draw.percent(row["value"]) if row else "-")
    reasked = measures.get("replies", "asked_again", scope)
    return [*cells, draw.percent(reasked["value"]) if reasked else "-"]


def _failure_table(measures: Measures) -> Figure:
    """Replies that were cut off or unreadable, by group and for the worst conditions."""
    head = ["", "replies", "truncated", "unreadable", "decisions asked again", "never begun"]
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
        draw.table(head, rows),
        alt="A table of how many replies were cut off or unreadable, by group.",
    )


def _failure_rate(measures: Measures, scope: Scope) -> float:
    replies = measures.of("replies", scope)
    failed = sum(row["value"] or 0.0 for row in replies if row["subject"] != "asked_again")
    not_played = measures.get("not_played", "not_played", scope)
    return failed + (1.0 if not_played else 0.0)


def _index_table(measures: Measures) -> Figure:
    from .indices import LABELS

    scopes = _table_scopes(measures)
    rows = []
    for name, label in LABELS.items():
        cells = []
        for scope in scopes:
            row = measures.get("mean", name, scope)
            cells.append(_with_interval(row))
        if any(cell != "-" for cell in cells):
            rows.append([label, *cells])
    head = ["mean (95 %, bootstrap by game)", *(scope.title for scope in scopes)]
    return Figure("How they played", draw.table(head, rows), alt="A table of means of games.")


def _with_interval(row: Row | None) -> str:
    if row is None:
        return "-"
    value = draw.plain(row["value"], 3)
    if row["low"] is None:
        return f"{value} (n {row['n']})"
    return f"{value} ({draw.plain(row['low'], 3)} to {draw.plain(row['high'], 3)})"


# --- drawings -------------------------------------------------------------------------------------


def _by_condition(measures: Measures) -> Figure:
    """The event's rate under each condition, the highest first."""
    rows = [measures.get("outcome", measures.event, name) for name in measures.conditions]
    ranked = sorted((row for row in rows if row is not None), key=lambda row: -row["value"])
    shown = ranked[:SHOWN_CONDITIONS]
    width, margin, right, step, top = 760.0, 220.0, 30.0, 15.0, 46.0
    height = top + step * len(shown) + 12
    scale = width - margin - right
    axis = f"share of games that end in {measures.event}"
    body = [draw.text(margin + scale / 2, 10, axis, anchor="middle", kind="strong")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = margin + share * scale
        body.append(draw.line(x, top - 6, x, height - 8, "grid"))
        body.append(draw.text(x, top - 12, f"{share:.0%}", anchor="middle"))
    for index, row in enumerate(shown):
        y = top + step * index + step / 2
        label = f"{row['condition']}: {draw.percent(row['value'])} of {row['n']}"
        body.append(draw.text(margin - 8, y + 4, row["condition"], anchor="end"))
        body.append(
            draw.line(margin + row["low"] * scale, y, margin + row["high"] * scale, y, "range")
        )
        body.append(draw.dot(margin + row["value"] * scale, y, label))
    omitted = len(ranked) - len(shown)
    note = f'<p class="faint">The {omitted} conditions with the lowest rates are left out.</p>'
    highest = shown[0]
    return Figure(
        f"{measures.event} by condition",
        draw.svg(width, height, body) + (note if omitted else ""),
        alt=f"The rate of {measures.event} under each condition, with its interval; highest: "
        f"{highest['condition']}, {draw.percent(highest['value'])} of {highest['n']}.",
        data=ranked,
    )


def _components(measures: Measures) -> Iterator[Figure]:
    """A forest plot of log odds: each component, on the event and on leaving at a decision."""
    for measure, target in (
        (f"odds:{measures.event}", f"the odds of {measures.event}"),
        ("odds:leaving", "the odds of leaving, at each decision"),
    ):
        rows = measures.of(measure, ALL)
        estimated = [row for row in rows if row["value"] is not None and row["low"] is not None]
        if estimated:
            pairs = [
                row
                for row in measures.of(f"odds_pair:{measures.event}", ALL)
                if row["q"] is not None and row["q"] <= 0.05
            ]
            leaving = measure == "odds:leaving"
            title = f"What the components do to {target}"
            yield _forest(title, estimated, [] if leaving else pairs)
        elif rows:
            sentence = f"<p>No effect of the components on {draw.escaped(target)} can be said: "
            sentence += f"{draw.escaped(rows[0]['text'])}.</p>"
            yield Figure(f"What the components do to {target}", sentence)


def _forest(title: str, rows: Sequence[Row], pairs: Sequence[Row]) -> Figure:
    shown = [*rows, *pairs]
    extent = max(max(abs(row["low"]), abs(row["high"])) for row in shown) * 1.05
    width, margin, right, step, top = 640.0, 130.0, 170.0, 24.0, 12.0
    height = top + step * len(shown) + 26
    middle = margin + (width - margin - right) / 2
    scale = (width - margin - right) / 2 / extent
    body = [draw.line(middle, top - 6, middle, height - 24, "axis")]
    for index, row in enumerate(shown):
        y = top + step * index + step / 2
        label = f"{row['subject']}: {draw.signed(row['value'])}"
        body.append(draw.text(margin - 10, y + 4, row["subject"], anchor="end", kind="strong"))
        body.append(
            draw.line(middle + row["low"] * scale, y, middle + row["high"] * scale, y, "range")
        )
        body.append(draw.dot(middle + row["value"] * scale, y, label))
        q = "" if row["q"] is None else f"  q {row['q']:.2g}"
        value_text = f"{draw.signed(row['value'])}{q}"
        body.append(draw.text(width - right + 12, y + 4, value_text))
    body.append(draw.text(middle, height - 6, "log odds (95 %)", anchor="middle"))
    note = f'<p class="faint">Logistic regression, {draw.escaped(rows[0]["text"])}. q: corrected '
    note += "over the components (Benjamini-Hochberg).</p>"
    summary = "; ".join(f"{row['subject']} {draw.signed(row['value'])}" for row in shown)
    drawing = draw.svg(width, height, body) + note
    return Figure(title, drawing, alt=f"Log odds: {summary}.", data=shown)


def _balances(measures: Measures) -> Iterator[Figure]:
    """The mean balance after each round with its quartiles, one panel per group."""
    groups = {scope: measures.of("balance", scope) for scope in measures.headline}
    highest = max((row["high"] for rows in groups.values() for row in rows), default=0.0)
    if highest <= 0:
        return
    body, width, panel_height, gap = [], 760.0, 166.0, 34.0
    columns = 2
    panel_width = (width - 60 * columns) / columns
    for index, (scope, rows) in enumerate(groups.items()):
        x0 = 48 + (index % columns) * (panel_width + 60)
        y0 = 24 + (index // columns) * (panel_height + gap)
        body.append(draw.text(x0, y0 - 8, f"balance: {scope.title}", kind="strong"))
        body += _panel(rows, x0, y0, panel_width, panel_height - 46, highest)
    height = 24 + -(-len(groups) // columns) * (panel_height + gap)
    last_means = {scope: rows[-1]["value"] for scope, rows in groups.items() if rows}
    summary = "; ".join(f"{scope.title} ${value:.0f}" for scope, value in last_means.items())
    yield Figure(
        "Balances, round by round",
        draw.svg(width, height, body)
        + '<p class="faint">Mean and quartiles; a game that has ended keeps its last balance.</p>',
        alt=f"Mean balance after the last round that is shown: {summary}.",
        data=[row for rows in groups.values() for row in rows],
    )


def _panel(
    rows: Sequence[Row], x0: float, y0: float, width: float, height: float, highest: float
) -> list[str]:
    def to_page(number: int, value: float) -> tuple[float, float]:
        return x0 + width * number / max(len(rows) - 1, 1), y0 + height * (1 - value / highest)

    above = [to_page(number, row["high"]) for number, row in enumerate(rows)]
    below = [to_page(number, row["low"]) for number, row in enumerate(rows)]
    return [
        draw.line(x0, y0 + height, x0 + width, y0 + height, "axis"),
        draw.line(x0, y0, x0, y0 + height, "axis"),
        draw.text(x0 - 6, y0 + 8, f"${highest:.0f}", anchor="end"),
        draw.text(x0 - 6, y0 + height, "0", anchor="end"),
        draw.text(x0, y0 + height + 15, "0", anchor="middle"),
        draw.text(x0 + width, y0 + height + 15, f"{len(rows) - 1}", anchor="end"),
        draw.text(x0 + width / 2, y0 + height + 28, "round", anchor="middle", kind="strong"),
        draw.path([*above, *reversed(below)], "band"),
        draw.path([to_page(number, row["value"]) for number, row in enumerate(rows)], "path"),
    ]


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
            f"Each component more changes the log odds of {measures.event} by "
            f"{draw.signed(trend['value'])} ({draw.signed(trend['low'])} to "
            f"{draw.signed(trend['high'])}; {trend['text']})."
        )
    r = measures.get("complexity_trend", "r over levels")
    if r is not None:
        lines.append(
            f"Over the {r['n']} numbers of components, that number and the rate of "
            f"{measures.event} go together with r {draw.signed(r['value'])}."
        )
    index = measures.get("index_correlation", "I with the event")
    if index is not None:
        lines.append(
            f"Over {index['n']} conditions the composite index and the rate of {measures.event} "
            f"go together with r {draw.signed(index['value'])}."
        )
    shared, distinct = measures.get("states", "shared"), measures.get("states", "distinct")
    if shared is not None and distinct is not None:
        lines.append(
            f"{draw.percent(shared['value'])} of {shared['n']:,} decisions are at a state that "
            f"another game met as well, to the bit; {distinct['value']:,.0f} states differ. "
            "Later stages join them with cluster: state."
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
