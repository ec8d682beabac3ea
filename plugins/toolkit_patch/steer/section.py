"""The report section on steering: an outcome over doses, compared with random directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]

WIDTH, HEIGHT, MARGIN, TOP = 560.0, 260.0, 76.0, 12.0


def summary(row: Row) -> str:
    """One test in one sentence."""
    shape = "monotone" if row["monotone"] else "not monotone"
    z_part = "" if row["z"] is None else f", z {row['z']:+.2f}"
    return (
        f"Moving the stream behind layers {row['layers']} along {row['axis']} changes "
        f"P({row['outcome']}) by {row['slope']:+.3f} per standard deviation ({shape} over the "
        f"doses); {row['beyond']} of {row['directions']} random directions moved as far do as much"
        f"{z_part} (p {row['p_directions']:.2g})"
    )


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A chart and a sentence for each stage, axis and outcome."""
    tests, curves = rows_by_stage(inputs, "dose_tests"), rows_by_stage(inputs, "doses")
    for stage, row in ((stage, row) for stage, rows in tests.items() for row in rows):
        names = ("axis", "layers", "outcome")
        curve = [
            point for point in curves[stage] if all(point[name] == row[name] for name in names)
        ]
        sentence = summary(row)
        title = f"P({row['outcome']}) by dose, {row['axis']}, layers {row['layers']}"
        yield Figure(
            headed(stage, tests, title),
            f"<p>{draw.escaped(sentence)}.</p>{_chart(curve)}",
            sentence,
            curve,
        )


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """The sentence of the outcome that moves most, for each stage."""
    stages = rows_by_stage(inputs, "dose_tests")
    for stage, rows in stages.items():
        best = max(rows, key=lambda row: abs(row["slope"]))
        yield Finding(
            sentence=headed(stage, stages, summary(best)),
            number=best["slope"],
            interval=(best["low"], best["high"]),
            n=best["clusters"],
            rank=20,
        )


def _chart(rows: Sequence[Row]) -> str:
    """The outcome along the axis, over grey lines for random directions."""
    doses = sorted({row["dose"] for row in rows})
    probabilities = [row["probability"] for row in rows]
    low = min(probabilities)
    x = draw.ChartAxis(doses[0], doses[-1], MARGIN, MARGIN + WIDTH)
    y = draw.ChartAxis(low, max(*probabilities, low + 0.02), TOP + HEIGHT, TOP)
    body = [
        *draw.x_ticks(x, TOP, TOP + HEIGHT, doses, "{:+g}".format),
        *draw.y_ticks(y, MARGIN, MARGIN + WIDTH, y.ticks(5), draw.number),
        draw.x_title(x, TOP + HEIGHT + 38, "dose, in standard deviations along the axis"),
        draw.y_title(y, 14, f"P({rows[0]['outcome']})"),
    ]
    curves: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["dose"]):
        curves.setdefault(row["direction"], []).append(row)
    for direction in sorted(curves, key=lambda direction: direction == "axis"):
        points = [(x.at(row["dose"]), y.at(row["probability"])) for row in curves[direction]]
        body.append(draw.path(points, "path" if direction == "axis" else "others"))
    return draw.svg(WIDTH + MARGIN + 24, TOP + HEIGHT + 46, body) + draw.note(
        "Blue: the axis. Grey: random directions moved as far."
    )
