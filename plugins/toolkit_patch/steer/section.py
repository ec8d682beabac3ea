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
    """A chart and a sentence for each stage, axis and outcome, the largest slope first."""
    tests, curves = rows_by_stage(inputs, "dose_tests"), rows_by_stage(inputs, "doses")
    for stage, row in ((stage, row) for stage, rows in tests.items() for row in _ordered(rows)):
        curve = _curve(curves[stage], row)
        sentence = summary(row)
        title = f"P({row['outcome']}) by dose, {row['axis']}, layers {row['layers']}"
        yield Figure(
            headed(stage, tests, title),
            f"<p>{draw.escaped(sentence)}.</p>{_chart(curve)}",
            sentence,
            curve,
        )


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """For each stage, the sentence of the outcome that moves most, and one on its course over the
    doses beside random directions.
    """
    tests, curves = rows_by_stage(inputs, "dose_tests"), rows_by_stage(inputs, "doses")
    for stage, rows in tests.items():
        best = _ordered(rows)[0]
        yield Finding(
            sentence=headed(stage, tests, f"{summary(best)}."),
            number=best["slope"],
            interval=(best["low"], best["high"]),
            n=best["clusters"],
            rank=20,
        )
        if stage in curves:
            yield Finding(
                sentence=headed(stage, tests, _course(_curve(curves[stage], best), best)),
                number=best["tau"],
                n=best["clusters"],
                rank=21,
            )


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """The largest slope first, so that the report opens with the chart of its first sentence."""
    return sorted(rows, key=lambda row: -abs(row["slope"]))


def _curve(points: Sequence[Row], test: Row) -> list[Row]:
    """The points of an outcome along an axis and along random directions."""
    names = ("axis", "layers", "outcome")
    return [point for point in points if all(point[name] == test[name] for name in names)]


def _course(curve: Sequence[Row], test: Row) -> str:
    """The outcome at both ends of the axis, what random directions do there, and monotony."""
    axis = {row["dose"]: row["probability"] for row in curve if row["direction"] == "axis"}
    first, last = min(axis), max(axis)
    ends: dict[str, dict[float, float]] = {}
    for row in curve:
        if row["direction"] != "axis":
            ends.setdefault(row["direction"], {})[row["dose"]] = row["probability"]
    changes = [points[last] - points[first] for points in ends.values()]
    null = ""
    if changes:
        null = f"; along random directions it changes by {min(changes):+.3f} to {max(changes):+.3f}"
    return (
        f"From dose {first:+g} to {last:+g}, P({test['outcome']}) goes from {axis[first]:.3f} to "
        f"{axis[last]:.3f}, a change of {axis[last] - axis[first]:+.3f}{null} (Kendall's tau over "
        f"the doses {test['tau']:+.2f}, p {test['p_tau']:.2g})."
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
