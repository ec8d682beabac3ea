"""Statistics of features as lines for people: ranked, each with the results of all stages."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from toolkit._query.ranking import EFFECT_STATS, RANKED, TESTED
from toolkit._query.run import Run, only
from toolkit._query.text import Row, shown

IN_ORDER = (
    *(RANKED, "score_sound", "pearson_confirm", "passes_sound"),
    *(f"{stat}{end}" for stat in EFFECT_STATS for end in ("", "_low", "_high")),
    *("t", "df", "p", "q", "significant", "mean", "density", "fired"),
)
"""The statistics whose columns come first."""
IN_TABLES = {*IN_ORDER, "verdict", "label"} - {"t", "df", "p", "density", "fired"}
"""The statistics of a test in the text table, without `--stat`; `--json` and files have all."""
PLACE = (("layer", True), ("space", True), ("feature", True), ("stage", True))
"""The order of rows that are otherwise equal."""
_LOOKED_UP = 500
"""The most features whose rows are read by number; for more, all rows of their spaces are read."""


def pivoted(
    run: Run, compared: Collection[str], lines: Sequence[Row], stage: str | None
) -> list[Row]:
    """Each line with its stage's statistics of the feature, and the verdicts and labels of all
    stages.
    """
    if not lines:
        return []
    features = sorted({row["feature"] for row in lines})
    near = {"space": sorted({row["space"] for row in lines})} | (
        {"feature": features} if len(features) <= _LOOKED_UP else {}
    )
    entries = only(run.read_stages("features", stage, near), "feature", features).to_pylist()
    return lines_of(run, compared, lines, entries)


def lines_of(
    run: Run, compared: Collection[str], lines: Sequence[Row], entries: Sequence[Row]
) -> list[Row]:
    """Each line with what these entries say about its feature."""
    written: dict[tuple[str, int], list[Row]] = {}
    for entry in entries:
        written.setdefault((entry["space"], entry["feature"]), []).append(entry)
    return [
        _line_of(run, line, written[line["space"], line["feature"]], compared) for line in lines
    ]


def _line_of(run: Run, line: Row, written: Sequence[Row], compared: Collection[str]) -> Row:
    cells: Row = {
        "address": run.label(line["space"], line["feature"]),
        "stage": line["stage"],
        "contrast": line["group"] or None,
    }
    of_stage = [
        entry
        for entry in written
        if entry["stage"] == line["stage"] and entry["stat"] not in ("verdict", "label")
    ]
    comparisons = {
        entry.get("comparison")
        for entry in of_stage
        if entry["group"] == line["group"] and entry["stat"] in TESTED
    }
    for entry in of_stage:
        stat, group, comparison = entry["stat"], entry["group"], entry.get("comparison")
        if comparison is None:
            other = group in compared and group != line["group"]
        else:
            other = comparison not in comparisons
        if other:
            continue  # another comparison of the same stage: it has its own line
        name = stat if group in ("", line["group"]) else f"{stat}[{group}]"
        cells[name] = entry["text"] if entry["number"] is None else entry["number"]
    if labels := [entry["text"] for entry in written if entry["stat"] == "label" and entry["text"]]:
        cells["label"] = "; ".join(dict.fromkeys(labels))
    verdicts = [entry for entry in written if entry["stat"] == "verdict"]
    texts = [entry["text"] or shown(entry["number"]) for entry in verdicts]
    if len(set(texts)) > 1:
        texts = [
            f"{entry['group'] or entry['stage']}: {text}"
            for entry, text in zip(verdicts, texts, strict=True)
        ]
    return {**cells, "verdict": "; ".join(dict.fromkeys(texts))} if texts else cells


def stat_heads(
    rows: Sequence[Row], stats: Sequence[str], form: str, by: str | None = None
) -> list[str]:
    """The columns: the rank and the test first, then what each group has, then the rest, the
    verdict and the label last. The statistic `by` which rows are sorted is always among them,
    unless `stats` names others.
    """
    fixed = ("address", "stage", "contrast")
    first = {name: rank for rank, name in enumerate(IN_ORDER)}
    names = {name: name.partition("[")[0] for row in rows for name in row if name not in fixed}
    few = form == "text" and not set(TESTED).isdisjoint(names.values())
    shown = [
        name
        for name, stat in names.items()
        if (stat in stats if stats else not few or stat in IN_TABLES or stat == by)
    ]
    return [
        *fixed,
        *sorted(
            shown,
            key=lambda name: (
                name == "label",
                name == "verdict",
                first.get(names[name], len(first)),
                name,
            ),
        ),
    ]
