"""The report section `baselines`: AUROCs of metadata and of linear classifiers on the stream, on
one axis with the best SAE feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding, Inputs
from toolkit_stats.compare.findings import area_of, baseline_of

ROW, LEFT, WIDE, RIGHT, TOP = 22, 250, 420, 150, 26
AUROC = draw.ChartAxis(0, 1, LEFT, LEFT + WIDE)
COLOURS = {
    "metadata": "var(--failed)",
    "together": "var(--failed)",
    "difference of means": "var(--part)",
    "linear probe": "var(--part)",
    "best feature": "var(--computed)",
}
SHORT = {"difference of means": "means", "linear probe": "probe", "best feature": "feature"}
RANK = 45
SHOWN = 12
"""At most this many rows per kind are drawn; the others are in the table."""


def figures(inputs: Inputs) -> Iterator[Figure]:
    """For each comparison a figure of AUROCs with intervals, what separates the groups by itself,
    and a table.
    """
    if "baselines" not in inputs.tables():
        return
    rows = [row for row in inputs.read("baselines").to_pylist() if row["value"] is not None]
    for contrast in sorted({row["contrast"] for row in rows}):
        contrast_rows = [row for row in rows if row["contrast"] == contrast]
        areas = [row for row in contrast_rows if row["metric"] == "auroc"]
        yield Figure(
            f"{contrast}: how well metadata, probes and features predict the group",
            _warning(areas) + _dots(areas),
            _spoken(areas),
            areas,
        )
        yield Figure(
            f"{contrast}: every number",
            _table(contrast_rows),
            "Table of all baselines with their 95 % intervals.",
        )


def findings(inputs: Inputs) -> Iterator[Finding]:
    """For each comparison, how well the best feature tells the groups apart, beside what needs no
    feature; without a feature, the best of the others.
    """
    rows = [
        row
        for row in inputs.read("baselines").to_pylist()
        if row["value"] is not None and row["metric"] == "auroc"
    ]
    for contrast in sorted({row["contrast"] for row in rows}):
        of_contrast = [row for row in rows if row["contrast"] == contrast]
        features = [row for row in of_contrast if row["kind"] == "best feature"]
        best = max(features or of_contrast, key=area_of)
        low, high = best["low"], best["high"]
        if best["value"] < 0.5:
            low, high = 1 - high, 1 - low
        what = "the best single feature" if features else f"{best['kind']} {best['name']}"
        yield Finding(
            sentence=f"{contrast}, on held-out folds: {what} reaches AUROC {area_of(best):.3f} "
            f"[{low:.3f}, {high:.3f}] ({best['groups']}).",
            number=area_of(best),
            interval=(low, high),
            baseline=baseline_of(inputs, contrast),
            rank=RANK,
        )


def _warning(rows: Sequence[Mapping[str, Any]]) -> str:
    """A warning, above all figures, that metadata separate the groups."""
    separating = [
        row["name"] if row["kind"] == "metadata" else "metadata" for row in rows if row["separates"]
    ]
    if not separating:
        return ""
    items = "".join(
        f"<li>{draw.escaped(name)} alone separates the groups</li>" for name in separating
    )
    return (
        '<div class="box bad"><p><strong>The label can be read off the metadata.</strong> '
        "A feature that tells these groups apart may read nothing but this:</p>"
        f"<ul>{items}</ul></div>"
    )


def _ordered(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    results = []
    for kind in COLOURS:
        ordered = sorted(
            (row for row in rows if row["kind"] == kind),
            key=lambda row: (-abs(row["value"] - 0.5), row["name"]),
        )
        results += ordered[:SHOWN]
    return results


def _dots(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = _ordered(rows)
    height = TOP + ROW * len(shown) + 34
    middle = AUROC.at(0.5)
    body = [
        *draw.x_ticks(AUROC, TOP - 8, height - 34, AUROC.ticks(5), draw.number),
        draw.line(middle, TOP - 8, middle, height - 34, "dash"),
        draw.text(middle, TOP - 12, "chance", anchor="middle"),
    ]
    for index, row in enumerate(shown):
        body += _forest_row(row, TOP + ROW * index + ROW / 2)
    legend = draw.key(
        (colour, kind)
        for kind, colour in COLOURS.items()
        if any(row["kind"] == kind for row in shown)
    )
    return legend + draw.svg(LEFT + WIDE + RIGHT, height, body)


def _forest_row(row: Mapping[str, Any], y: float) -> Iterator[str]:
    colour, name = COLOURS[row["kind"]], str(row["name"])
    name = f"\N{HORIZONTAL ELLIPSIS}{name[-24:]}" if len(name) > 25 else name
    label = f"{name}, {SHORT[row['kind']]}" if row["kind"] in SHORT else name
    yield draw.text(LEFT - 12, y + 4, label, anchor="end")
    yield from draw.interval(AUROC, y, row["value"], (row["low"], row["high"]), colour=colour)
    numbers = f"{row['value']:.3f} [{row['low']:.2f}, {row['high']:.2f}]"
    yield draw.text(AUROC.end + 14, y + 4, numbers)


def _spoken(rows: Sequence[Mapping[str, Any]]) -> str:
    best = [
        max(
            (row for row in rows if row["kind"] == kind), key=lambda row: row["value"], default=None
        )
        for kind in COLOURS
    ]
    listed = "; ".join(f"{row['kind']}: {row['name']} {row['value']:.2f}" for row in best if row)
    return f"AUROC of the best of each kind, chance 0.5. {listed}."


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of every number; folds and group sizes are stated once, above it."""
    designs = dict.fromkeys(
        f"{row['folds']} folds by unit and prompt; {row['groups']}" for row in rows if row["folds"]
    )
    remarks = any(row["text"] for row in rows)
    cells = []
    for kind in COLOURS:
        for row in sorted(
            (row for row in rows if row["kind"] == kind),
            key=lambda row: (row["name"], row["metric"]),
        ):
            named = (
                f'{draw.escaped(row["name"])}<br><span class="faint">{draw.escaped(kind)}</span>'
            )
            numbers = (
                f"{row['value']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{row['chance']:.3f}",
            )
            remark = f'<span class="faint">{draw.escaped(row["text"] or "")}</span>'
            cells.append(
                (
                    named,
                    row["metric"],
                    *numbers,
                    *([remark] if remarks else []),
                )
            )
    heads = (
        "what predicts",
        "metric",
        "value",
        "95\N{NO-BREAK SPACE}% interval",
        "chance",
        *(["how"] if remarks else []),
    )
    caption = (
        "Held-out folds only; intervals take clusters (units and equal prompts) as independent"
    )
    note = "".join(f'<p class="faint">{draw.escaped(design)}.</p>' for design in designs)
    return note + draw.table(caption, heads, cells, words=remarks)
