"""The report section on steering: an outcome over doses, beside random directions."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]

WIDTH, HEIGHT, MARGIN, TOP = 560, 260, 76, 10


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


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A chart and a sentence for each axis and outcome."""
    curves = inputs.read("doses").to_pylist()
    for row in inputs.read("dose_tests").to_pylist():
        names = ("axis", "layers", "outcome")
        curve = [point for point in curves if all(point[name] == row[name] for name in names)]
        sentence = summary(row)
        yield Figure(
            f"P({row['outcome']}) by dose, {row['axis']}, layers {row['layers']}",
            f"<p>{html.escape(sentence)}.</p>{_chart(curve)}",
            sentence,
            curve,
        )


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The sentence of the outcome that moves most."""
    rows = inputs.read("dose_tests").to_pylist()
    if rows:
        best = max(rows, key=lambda row: abs(row["slope"]))
        yield Finding(
            sentence=summary(best),
            number=best["slope"],
            interval=(best["low"], best["high"]),
            n=best["clusters"],
            rank=20,
        )


def _chart(rows: Sequence[Row]) -> str:
    """Grey lines for random directions, a thick one for the axis."""
    doses = sorted({row["dose"] for row in rows})
    low = min(row["probability"] for row in rows)
    high = max(row["probability"] for row in rows)
    probability_range = max(high - low, 0.02)
    bottom = TOP + HEIGHT

    def x(dose: float) -> float:
        return MARGIN + float(WIDTH * (dose - doses[0]) / (doses[-1] - doses[0]))

    def y(probability: float) -> float:
        return bottom - float(HEIGHT * (probability - low) / probability_range)

    body = [draw.line(MARGIN, bottom, MARGIN + WIDTH, bottom, "axis")]
    for tick in draw.ticks(low, low + probability_range, 5):
        body.append(draw.line(MARGIN, y(tick), MARGIN + WIDTH, y(tick), "grid"))
        body.append(draw.text(MARGIN - 8, y(tick) + 4, draw.number(tick), anchor="end"))
    for dose in doses:
        words = draw.number(dose) if dose <= 0 else f"+{draw.number(dose)}"
        body.append(draw.text(x(dose), bottom + 16, words, anchor="middle"))
    for name in sorted({row["direction"] for row in rows}, key=lambda name: name == "axis"):
        curve = sorted(
            (row for row in rows if row["direction"] == name), key=lambda row: row["dose"]
        )
        path = " ".join(f"{x(row['dose']):.1f},{y(row['probability']):.1f}" for row in curve)
        style = (
            'stroke="var(--computed)" stroke-width="3"'
            if name == "axis"
            else 'stroke="var(--faint)" opacity="0.4"'
        )
        body.append(f'<polyline points="{path}" fill="none" {style}/>')
    middle, side = MARGIN + WIDTH / 2, TOP + HEIGHT / 2
    across = "dose, in standard deviations along the axis"
    body.append(draw.text(middle, bottom + 38, across, anchor="middle", kind="strong"))
    upwards = f"P({rows[0]['outcome']})"
    body.append(draw.text(14, side, upwards, anchor="middle", kind="strong", turn=-90))
    legend = [
        ("var(--computed)", "the axis"),
        (
            "color-mix(in srgb,var(--faint) 40%,transparent)",
            "random directions, moved as far",
        ),
    ]
    return draw.key(legend) + draw.svg(WIDTH + MARGIN + 20, bottom + 48, body)
