"""The report section on doses of features: a sentence, a curve for each feature, and a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.addresses import prefixes
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage
from toolkit_patch.verdicts.stage import signed

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]

ALPHA = 0.05
WIDTH, HEIGHT, MARGIN = 200, 110, 34
COLUMNS = 3


def joined(inputs: RunInputs) -> dict[str, list[dict[str, Any]]]:
    """By stage, rows of `feature_dose_tests` with their names and curves, the largest effect
    first.
    """
    tests = rows_by_stage(inputs, "feature_dose_tests")
    names = prefixes(inputs.read("spaces").to_pylist()) if tests else {}
    doses = rows_by_stage(inputs, "feature_doses")
    return {stage: _joined(rows, doses[stage], names) for stage, rows in tests.items()}


def _joined(
    tests: Sequence[Row], doses: Sequence[Row], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in doses:
        curves.setdefault((row["space"], row["feature"], row["outcome"]), []).append(row)
    rows = []
    for row in tests:
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


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A sentence with the curves, and a table, for each stage."""
    stages = joined(inputs)
    for stage, rows in stages.items():
        sentence = summary(rows)
        chart = f"<p>{html.escape(sentence)}.</p>{_curves(rows)}"
        points = [{"feature": row["name"], **point} for row in rows for point in row["curve"]]
        yield Figure(headed(stage, stages, "Dose curves"), chart, sentence, points)
        alt = "Each feature's tau and its effect, measured again"
        yield Figure(headed(stage, stages, "Doses, tested"), _table(rows), alt)


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """The sentence of each chart."""
    stages = joined(inputs)
    for stage, rows in stages.items():
        yield Finding(
            sentence=headed(stage, stages, summary(rows)),
            number=rows[0]["effect"],
            interval=(rows[0]["low"], rows[0]["high"]),
            n=rows[0]["clusters"],
            rank=27,
        )


def _curves(rows: Sequence[Row]) -> str:
    panels = []
    for number, row in enumerate(rows):
        x, y = (number % COLUMNS) * (WIDTH + 20), (number // COLUMNS) * (HEIGHT + 56)
        panels.append(f'<g transform="translate({x} {y})">{_panel(row)}</g>')
    width = min(len(rows), COLUMNS) * (WIDTH + 20)
    height = -(-len(rows) // COLUMNS) * (HEIGHT + 56)
    outcome = html.escape(rows[0]["outcome"])
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="11">'
        f"{''.join(panels)}</svg><p class='faint'>Across: dose in multiples of the larger group "
        f"mean. Upwards: P({outcome}) with its 95 % interval over units.</p>"
    )


def _panel(row: Row) -> str:
    curve = row["curve"]
    base = curve[0]["probability"] - curve[0]["effect"]
    limits = [base + point[end] for point in curve for end in ("low", "high")]
    low, high = min(limits), max(limits)
    probability_range, dose_range = max(high - low, 0.02), curve[-1]["dose"] - curve[0]["dose"]

    def x(dose: float) -> float:
        return MARGIN + float((WIDTH - MARGIN) * (dose - curve[0]["dose"]) / dose_range)

    def y(probability: float) -> float:
        return 20 + float(HEIGHT * (1 - (probability - low) / probability_range))

    line = " ".join(f"{x(point['dose']):.1f},{y(point['probability']):.1f}" for point in curve)
    bars = "".join(
        f'<line x1="{x(point["dose"]):.1f}" x2="{x(point["dose"]):.1f}" '
        f'y1="{y(base + point["low"]):.1f}" y2="{y(base + point["high"]):.1f}" '
        'stroke="var(--computed)" opacity="0.5"/>'
        for point in curve
    )
    marks = "".join(
        f'<text x="{x(point["dose"]):.1f}" y="{HEIGHT + 36}" text-anchor="middle" '
        f'fill="var(--faint)">{point["dose"]:g}</text>'
        for point in (curve[0], curve[-1])
    )
    sides = "".join(
        f'<text x="{MARGIN - 4}" y="{y(value) + 4:.1f}" text-anchor="end" fill="var(--faint)">'
        f"{value:.2f}</text>"
        for value in (low, low + probability_range)
    )
    name = html.escape(row["name"])
    return (
        f'<text x="{MARGIN}" y="12" fill="var(--fg)">{name}</text>{marks}{sides}{bars}'
        f'<polyline points="{line}" fill="none" stroke="var(--computed)" stroke-width="2"/>'
    )


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
