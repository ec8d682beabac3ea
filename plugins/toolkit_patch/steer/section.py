"""The report section on steering: an outcome over doses, beside random directions."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]

WIDTH, HEIGHT, MARGIN = 560, 260, 60


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
            f"<p>{html.escape(sentence)}.</p>{_chart(curve)}",
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
    """Grey lines for random directions; the axis with its interval."""
    doses = sorted({row["dose"] for row in rows})
    low = min(row["probability"] for row in rows)
    high = max(row["probability"] for row in rows)
    probability_range = max(high - low, 0.02)

    def x(dose: float) -> float:
        return MARGIN + float(WIDTH * (dose - doses[0]) / (doses[-1] - doses[0]))

    def y(probability: float) -> float:
        return 10 + float(HEIGHT * (1 - (probability - low) / probability_range))

    parts = []
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
        parts.append(f'<polyline points="{path}" fill="none" {style}/>')
    marks = "".join(
        f'<text x="{x(dose):.1f}" y="{HEIGHT + 30}" text-anchor="middle" fill="var(--faint)">'
        f"{dose:+g}</text>"
        for dose in doses
    )
    limits = "".join(
        f'<text x="{MARGIN - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="var(--faint)">'
        f"{value:.3f}</text>"
        for value in (low, high)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH + 2 * MARGIN} {HEIGHT + 44}" width="{WIDTH + 2 * MARGIN}" '
        f'role="img" font-size="12">{marks}{limits}{"".join(parts)}</svg>'
        '<p class="faint">Across: dose in standard deviations along the axis. Grey: random '
        "directions moved as far.</p>"
    )
