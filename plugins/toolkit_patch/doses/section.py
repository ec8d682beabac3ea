"""The report section on doses of features: a sentence, a curve for each feature, and a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.features.addresses import prefixes
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage
from toolkit_patch.verdicts.stage import signed

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]

ALPHA = 0.05
WIDTH, HEIGHT, MARGIN = 220.0, 110.0, 46.0
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
        f"decisions that the screen did not use, {len(replicated)} of them move it again"
    )


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A sentence with the curves, and a table, for each stage."""
    stages = joined(inputs)
    for stage, rows in stages.items():
        sentence = summary(rows)
        chart = f"<p>{draw.escaped(sentence)}.</p>{_curves(rows)}"
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
    """A panel for each feature."""
    body: list[str] = []
    for index, row in enumerate(rows):
        left, top = (index % COLUMNS) * (WIDTH + 24), (index // COLUMNS) * (HEIGHT + 56)
        body += _panel(row, 20 + left + MARGIN, top + 20)
    width = 20 + min(len(rows), COLUMNS) * (WIDTH + 24)
    height = -(-len(rows) // COLUMNS) * (HEIGHT + 56)
    across, up = draw.ChartAxis(0, 1, 0, width), draw.ChartAxis(0, 1, height, 0)
    body.append(draw.x_title(across, height + 14, "dose, in multiples of the larger group mean"))
    body.append(draw.y_title(up, 14, f"P({rows[0]['outcome']})"))
    return draw.svg(width, height + 24, body) + draw.note("Bars: 95 % intervals over units.")


def _panel(row: Row, left: float, top: float) -> Iterator[str]:
    curve = row["curve"]
    base = curve[0]["probability"] - curve[0]["effect"]
    limits = [base + point[end] for point in curve for end in ("low", "high")]
    low, high = min(limits), max(*limits, min(limits) + 0.02)
    x = draw.ChartAxis(curve[0]["dose"], curve[-1]["dose"], left, left + WIDTH - MARGIN)
    y = draw.ChartAxis(low, high, top + HEIGHT, top)
    yield draw.text(left, top - 8, row["name"], kind="strong")
    for dose in x.ticks(4):
        yield draw.text(x.at(dose), top + HEIGHT + 16, draw.number(dose), anchor="middle")
    yield draw.line(x.start, top + HEIGHT, x.end, top + HEIGHT, "axis")
    yield from draw.y_ticks(y, x.start, x.end, y.ticks(4), draw.number)
    for point in curve:
        middle = x.at(point["dose"])
        ends = (y.at(base + point["low"]), y.at(base + point["high"]))
        yield draw.line(middle, ends[0], middle, ends[1], "path")
    points = [(x.at(point["dose"]), y.at(point["probability"])) for point in curve]
    yield draw.path(points, "path")


def _table(rows: Sequence[Row]) -> str:
    cells = [
        (
            draw.escaped(row["name"]),
            f"{row['tau']:+.2f}",
            f"{row['q_tau']:.2g}",
            "yes" if row["monotone"] else "no",
            f"{signed(row['effect'])} [{signed(row['low'])}, {signed(row['high'])}]",
            f"{row['q']:.2g}",
            f"{max(point['value'] for point in row['curve']):.3g}",
            "" if row["observed"] is None else f"{row['observed']:.3g}",
        )
        for row in rows
    ]
    heads = (
        "feature",
        "tau",
        "q of tau",
        "monotone",
        "specific effect, other half",
        "q",
        "largest value",
        "largest seen",
    )
    caption = "Kendall's tau over the doses, and the specific effect on the other half"
    return draw.table(caption, heads, cells, left=(3,))
