"""Charts of the report: the event's rate by condition, effects of components, balances by round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit import figures as draw
from toolkit.work import Figure

from .lookup import REPLY_RATES, Measures, Row
from .scopes import ALL, Scope

SHOWN_CONDITIONS = 64


def by_condition(measures: Measures) -> Figure:
    """The event's rate under each condition, the highest first."""
    rows = [measures.get("outcome", measures.event, name) for name in measures.conditions]
    ranked = sorted((row for row in rows if row is not None), key=lambda row: -row["value"])
    shown = ranked[:SHOWN_CONDITIONS]
    omitted = len(ranked) - len(shown)
    remark = f"The {omitted} conditions with the lowest rates are left out." if omitted else ""
    highest = shown[0]
    return Figure(
        f"{measures.event} by condition",
        _rates(measures, shown) + (draw.note(remark) if remark else ""),
        alt=f"The rate of {measures.event} under each condition, with its interval; highest: "
        f"{highest['condition']}, {draw.percent(highest['value'])} of {highest['n']}.",
        data=ranked,
    )


def _rates(measures: Measures, rows: Sequence[Row]) -> str:
    """A row for each condition: its rate, and beside it what became of its replies."""
    width, margin, right, step, top = 860.0, 220.0, 180.0, 15.0, 26.0
    columns = {name: width - right + 60 * (number + 1) for number, name in enumerate(REPLY_RATES)}
    bottom = top + step * len(rows)
    x = draw.ChartAxis(0, 1, margin, width - right)
    body = list(draw.x_ticks(x, top, bottom, (0.0, 0.25, 0.5, 0.75, 1.0), "{:.0%}".format))
    for name, right_edge in columns.items():
        head = REPLY_RATES[name].removesuffix(" replies")
        body.append(draw.text(right_edge, top - 12, head, anchor="end", kind="strong"))
    for index, row in enumerate(rows):
        y = top + step * (index + 0.5)
        title = f"{row['condition']}: {draw.percent(row['value'])} of {row['n']}"
        rates = measures.reply_rates(Scope.of(row))
        title += "".join(f"; {REPLY_RATES[name]} {draw.percent(rates[name])}" for name in rates)
        for name, rate in rates.items():
            body.append(draw.text(columns[name], y + 4, draw.percent(rate), anchor="end"))
        body.append(draw.text(margin - 8, y + 4, row["condition"], anchor="end"))
        body += draw.interval(x, y, row["value"], (row["low"], row["high"]), title)
    body.append(draw.x_title(x, bottom + 36, f"share of games that end in {measures.event}"))
    return draw.svg(width, bottom + 44, body)


def component_effects(measures: Measures) -> Iterator[Figure]:
    """Log odds of each component, on the event and on leaving at a decision."""
    pairs = [
        row
        for row in measures.of(f"odds_pair:{measures.event}", ALL)
        if row["q"] is not None and row["q"] <= 0.05
    ]
    for measure, target, significant_pairs in (
        (f"odds:{measures.event}", f"the odds of {measures.event}", pairs),
        ("odds:leaving", "the odds of leaving, at each decision", []),
    ):
        rows = measures.of(measure, ALL)
        estimated = [row for row in rows if row["value"] is not None and row["low"] is not None]
        title = f"What the components do to {target}"
        if estimated:
            yield _forest(title, [*estimated, *significant_pairs])
        elif rows:
            reason = draw.escaped(f"No effect of the components on {target} can be estimated: ")
            yield Figure(title, f"<p>{reason}{draw.escaped(rows[0]['text'])}.</p>")


def _forest(title: str, rows: Sequence[Row]) -> Figure:
    """A row for each component: its log odds with their interval, drawn and in numbers."""
    reach = max(max(abs(row["low"]), abs(row["high"])) for row in rows) * 1.05
    width, margin, right, step, top = 640.0, 130.0, 170.0, 24.0, 12.0
    bottom = top + step * len(rows)
    x = draw.ChartAxis(-reach, reach, margin, width - right)
    body = list(draw.x_ticks(x, top - 6, bottom, x.ticks(6), draw.number))
    for index, row in enumerate(rows):
        y = top + step * (index + 0.5)
        q = "" if row["q"] is None else f"  q {row['q']:.2g}"
        log_odds = draw.signed(row["value"])
        body.append(draw.text(margin - 10, y + 4, row["subject"], anchor="end", kind="strong"))
        body += draw.interval(
            x, y, row["value"], (row["low"], row["high"]), f"{row['subject']}: {log_odds}"
        )
        body.append(draw.text(width - right + 12, y + 4, f"{log_odds}{q}"))
    body.append(draw.x_title(x, bottom + 34, "log odds (95 %)"))
    remark = draw.note(
        f"Logistic regression, {rows[0]['text']}. q: corrected over the components "
        "(Benjamini-Hochberg)."
    )
    summary = "; ".join(f"{row['subject']} {draw.signed(row['value'])}" for row in rows)
    chart = draw.svg(width, bottom + 40, body)
    return Figure(title, chart + remark, alt=f"Log odds: {summary}.", data=rows)


def balances(measures: Measures) -> Iterator[Figure]:
    """The mean balance after each round with its quartiles, one panel per group."""
    groups = {scope: measures.of("balance", scope) for scope in measures.headline}
    highest = max((row["high"] for rows in groups.values() for row in rows), default=0.0)
    if highest <= 0:
        return
    body: list[str] = []
    width, panel_height, gap, columns = 760.0, 166.0, 34.0, 2
    panel_width = (width - 60 * columns) / columns
    for index, (scope, rows) in enumerate(groups.items()):
        left = 48 + (index % columns) * (panel_width + 60)
        top = 24 + (index // columns) * (panel_height + gap)
        body.append(draw.text(left, top - 8, f"balance: {scope.title}", kind="strong"))
        x = draw.ChartAxis(0, max(len(rows) - 1, 1), left, left + panel_width)
        y = draw.ChartAxis(0, highest, top + panel_height - 46, top)
        body += _panel(rows, x, y)
    height = 24 + -(-len(groups) // columns) * (panel_height + gap)
    last_means = {scope: rows[-1]["value"] for scope, rows in groups.items() if rows}
    summary = "; ".join(f"{scope.title} ${value:.0f}" for scope, value in last_means.items())
    yield Figure(
        "Balances, round by round",
        draw.svg(width, height, body)
        + draw.note("Mean and quartiles; a game that has ended keeps its last balance."),
        alt=f"Mean balance after the last round that is shown: {summary}.",
        data=[row for rows in groups.values() for row in rows],
    )


def _panel(rows: Sequence[Row], x: draw.ChartAxis, y: draw.ChartAxis) -> list[str]:
    upper = [(x.at(number), y.at(row["high"])) for number, row in enumerate(rows)]
    lower = [(x.at(number), y.at(row["low"])) for number, row in enumerate(rows)]
    means = [(x.at(number), y.at(row["value"])) for number, row in enumerate(rows)]
    return [
        draw.line(x.start, y.start, x.end, y.start, "axis"),
        draw.line(x.start, y.start, x.start, y.end, "axis"),
        draw.text(x.start - 6, y.end + 8, f"${y.high:.0f}", anchor="end"),
        draw.text(x.start - 6, y.start, "0", anchor="end"),
        draw.text(x.start, y.start + 15, "0", anchor="middle"),
        draw.text(x.end, y.start + 15, len(rows) - 1, anchor="end"),
        draw.x_title(x, y.start + 28, "round"),
        draw.area([*upper, *reversed(lower)], "band"),
        draw.path(means, "path"),
    ]
