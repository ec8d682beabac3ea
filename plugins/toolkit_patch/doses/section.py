"""The report section on doses of features: a sentence, a curve for each feature, and a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.addresses import prefixes
from toolkit.work import Figure, Finding
from toolkit_patch.verdicts.stage import signed

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]

ALPHA = 0.05
WIDTH, HEIGHT, MARGIN = 220, 110, 46
COLUMNS = 3


def joined(inputs: Inputs) -> list[dict[str, Any]]:
    """Rows of `feature_dose_tests` with their names and curves, the largest effect first."""
    spaces = list(inputs.read("spaces").to_pylist())
    names = prefixes(spaces)
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in inputs.read("feature_doses").to_pylist():
        curves.setdefault((row["space"], row["feature"], row["outcome"]), []).append(row)
    rows = []
    for row in inputs.read("feature_dose_tests").to_pylist():
        curve = sorted(
            curves[row["space"], row["feature"], row["outcome"]], key=lambda point: point["dose"]
        )
        rows.append({**row, "name": f"{names[row['space']]}{row['feature']}", "curve": curve})
    return sorted(rows, key=lambda row: -abs(row["effect"]))


def summary(rows: Sequence[Row]) -> str:
    """All features in one sentence."""
    rising = [row for row in rows if row["monotone"] and row["q_tau"] <= ALPHA]
    replicated = [row for row in rows if row["q"] <= ALPHA]
    doses, outcome = len(rows[0]["curve"]), rows[0]["outcome"]
    return (
        f"Over {doses} doses, P({outcome}) rises or falls all the way with {len(rising)} of "
        f"{len(rows)} features (Kendall's tau, q at most {ALPHA:g}); at {rows[0]['points']} "
        f"decisions that the screen did not look at, {len(replicated)} of them move it again"
    )


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence with the curves, and a table."""
    rows = joined(inputs)
    if not rows:
        return
    sentence = summary(rows)
    chart = f"<p>{html.escape(sentence)}.</p>{_curves(rows)}"
    points = [{"feature": row["name"], **point} for row in rows for point in row["curve"]]
    yield Figure("Dose curves", chart, sentence, points)
    yield Figure("Doses, tested", _table(rows), "Each feature's tau and its effect, measured again")


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The sentence of the figure."""
    rows = joined(inputs)
    if rows:
        yield Finding(
            sentence=summary(rows),
            number=rows[0]["effect"],
            interval=(rows[0]["low"], rows[0]["high"]),
            n=rows[0]["clusters"],
            rank=27,
        )


def _curves(rows: Sequence[Row]) -> str:
    """A small chart for each feature, three beside each other."""
    columns, lines = min(len(rows), COLUMNS), -(-len(rows) // COLUMNS)
    width, high = columns * (WIDTH + 24) + 24, lines * (HEIGHT + 62)
    panels = []
    for number, row in enumerate(rows):
        x, y = 24 + (number % COLUMNS) * (WIDTH + 24), (number // COLUMNS) * (HEIGHT + 62)
        panels.append(f'<g transform="translate({x} {y})">{"".join(_panel(row))}</g>')
    across = "dose, in multiples of the larger group mean"
    upwards = f"P({rows[0]['outcome']})"
    titles = [
        draw.text(width / 2, high + 14, across, anchor="middle", kind="strong"),
        draw.text(14, high / 2, upwards, anchor="middle", kind="strong", turn=-90),
    ]
    return draw.svg(width, high + 24, [*panels, *titles]) + (
        '<p class="faint">Bars: 95 % intervals over units.</p>'
    )


def _panel(row: Row) -> Iterator[str]:
    curve = row["curve"]
    base = curve[0]["probability"] - curve[0]["effect"]
    limits = [base + point[end] for point in curve for end in ("low", "high")]
    low, high = min(limits), max(limits)
    probability_range, dose_range = max(high - low, 0.02), curve[-1]["dose"] - curve[0]["dose"]
    bottom = 20 + HEIGHT

    def x(dose: float) -> float:
        return MARGIN + float((WIDTH - MARGIN) * (dose - curve[0]["dose"]) / dose_range)

    def y(probability: float) -> float:
        return bottom - float(HEIGHT * (probability - low) / probability_range)

    yield draw.text(MARGIN, 12, row["name"], kind="strong")
    yield draw.line(MARGIN, bottom, WIDTH, bottom, "axis")
    for tick in draw.ticks(low, low + probability_range, 5):
        yield draw.line(MARGIN, y(tick), WIDTH, y(tick), "grid")
        yield draw.text(MARGIN - 4, y(tick) + 4, draw.number(tick), anchor="end")
    for tick in draw.ticks(curve[0]["dose"], curve[-1]["dose"], 4):
        yield draw.text(x(tick), bottom + 16, draw.number(tick), anchor="middle")
    for point in curve:
        ends = f'y1="{y(base + point["low"]):.1f}" y2="{y(base + point["high"]):.1f}"'
        across = f'x1="{x(point["dose"]):.1f}" x2="{x(point["dose"]):.1f}"'
        yield f'<line {across} {ends} stroke="var(--computed)" opacity="0.5"/>'
    line = " ".join(f"{x(point['dose']):.1f},{y(point['probability']):.1f}" for point in curve)
    yield f'<polyline points="{line}" fill="none" stroke="var(--computed)" stroke-width="2"/>'


def _table(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        largest = max(point["value"] for point in row["curve"])
        observed = "" if row["observed"] is None else f"{row['observed']:.3g}"
        body.append(
            f'<tr><th scope="row">{html.escape(row["name"])}</th>'
            f'<td class="number">{row["tau"]:+.2f}</td><td class="number">{row["q_tau"]:.2g}</td>'
            f"<td>{'yes' if row['monotone'] else 'no'}</td>"
            f'<td class="number">{signed(row["effect"])} [{signed(row["low"])}, '
            f'{signed(row["high"])}]</td><td class="number">{row["q"]:.2g}</td>'
            f'<td class="number">{largest:.3g}</td><td class="number">{observed}</td></tr>'
        )
    headings = (
        "feature",
        "tau",
        "q of tau",
        "monotone",
        "specific effect, other half",
        "q",
        "largest value",
        "largest seen",
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
