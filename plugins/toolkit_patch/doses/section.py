"""What the report shows of doses: a sentence, a curve for each feature, and a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.addresses import prefixes
from toolkit.work import Figure, Finding
from toolkit_patch.verdicts.stage import signed

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]

ALPHA = 0.05
WIDE, TALL, EDGE = 200, 110, 34
COLUMNS = 3


def joined(inputs: Inputs) -> list[dict[str, Any]]:
    """Tests with names and curves, the largest effect first."""
    spaces = list(inputs.read("spaces").to_pylist())
    names = prefixes(spaces)
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in inputs.read("feature_doses").to_pylist():
        curves.setdefault((row["space"], row["feature"], row["outcome"]), []).append(row)
    rows = []
    for row in inputs.read("feature_dose_tests").to_pylist():
        curve = sorted(
            curves[row["space"], row["feature"], row["outcome"]], key=lambda one: one["dose"]
        )
        rows.append({**row, "name": f"{names[row['space']]}{row['feature']}", "curve": curve})
    return sorted(rows, key=lambda row: -abs(row["effect"]))


def summary(rows: Sequence[Row]) -> str:
    """All features in a sentence."""
    rising = [row for row in rows if row["monotone"] and row["q_tau"] <= ALPHA]
    again = [row for row in rows if row["q"] <= ALPHA]
    doses, outcome = len(rows[0]["curve"]), rows[0]["outcome"]
    return (
        f"Over {doses} doses, P({outcome}) rises or falls all the way with {len(rising)} of "
        f"{len(rows)} features (Kendall's tau, q at most {ALPHA:g}); at {rows[0]['points']} "
        f"decisions that the screen did not look at, {len(again)} of them move it again"
    )


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence with the curves, and a table."""
    rows = joined(inputs)
    if not rows:
        return
    sentence = summary(rows)
    drawn = f"<p>{html.escape(sentence)}.</p>{_curves(rows)}"
    points = [{"feature": row["name"], **point} for row in rows for point in row["curve"]]
    yield Figure("Dose curves", drawn, sentence, points)
    yield Figure("Doses, tested", _table(rows), "Each feature's tau and its effect, measured again")


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The same sentence."""
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
    panels = []
    for number, row in enumerate(rows):
        x, y = (number % COLUMNS) * (WIDE + 20), (number // COLUMNS) * (TALL + 56)
        panels.append(f'<g transform="translate({x} {y})">{_panel(row)}</g>')
    wide = min(len(rows), COLUMNS) * (WIDE + 20)
    height = -(-len(rows) // COLUMNS) * (TALL + 56)
    outcome = html.escape(rows[0]["outcome"])
    return (
        f'<svg viewBox="0 0 {wide} {height}" width="{wide}" role="img" font-size="11">'
        f"{''.join(panels)}</svg><p class='faint'>Across: dose in multiples of the larger group "
        f"mean. Upwards: P({outcome}) with its 95 % interval over units.</p>"
    )


def _panel(row: Row) -> str:
    curve = row["curve"]
    base = curve[0]["probability"] - curve[0]["effect"]
    ends = [base + one[end] for one in curve for end in ("low", "high")]
    low, high = min(ends), max(ends)
    room, reach = max(high - low, 0.02), curve[-1]["dose"] - curve[0]["dose"]

    def x(dose: float) -> float:
        return EDGE + float((WIDE - EDGE) * (dose - curve[0]["dose"]) / reach)

    def y(chance: float) -> float:
        return 20 + float(TALL * (1 - (chance - low) / room))

    line = " ".join(f"{x(one['dose']):.1f},{y(one['probability']):.1f}" for one in curve)
    bars = "".join(
        f'<line x1="{x(one["dose"]):.1f}" x2="{x(one["dose"]):.1f}" '
        f'y1="{y(base + one["low"]):.1f}" y2="{y(base + one["high"]):.1f}" '
        'stroke="var(--computed)" opacity="0.5"/>'
        for one in curve
    )
    marks = "".join(
        f'<text x="{x(one["dose"]):.1f}" y="{TALL + 36}" text-anchor="middle" '
        f'fill="var(--faint)">{one["dose"]:g}</text>'
        for one in (curve[0], curve[-1])
    )
    sides = "".join(
        f'<text x="{EDGE - 4}" y="{y(value) + 4:.1f}" text-anchor="end" fill="var(--faint)">'
        f"{value:.2f}</text>"
        for value in (low, low + room)
    )
    name = html.escape(row["name"])
    return (
        f'<text x="{EDGE}" y="12" fill="var(--fg)">{name}</text>{marks}{sides}{bars}'
        f'<polyline points="{line}" fill="none" stroke="var(--computed)" stroke-width="2"/>'
    )


def _table(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        largest = max(one["value"] for one in row["curve"])
        seen = "" if row["observed"] is None else f"{row['observed']:.3g}"
        body.append(
            f'<tr><th scope="row">{html.escape(row["name"])}</th>'
            f'<td class="number">{row["tau"]:+.2f}</td><td class="number">{row["q_tau"]:.2g}</td>'
            f"<td>{'yes' if row['monotone'] else 'no'}</td>"
            f'<td class="number">{signed(row["effect"])} [{signed(row["low"])}, '
            f'{signed(row["high"])}]</td><td class="number">{row["q"]:.2g}</td>'
            f'<td class="number">{largest:.3g}</td><td class="number">{seen}</td></tr>'
        )
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
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
