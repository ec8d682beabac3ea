"""Statistics of features as lines for people: ranked, each with the results of all stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query.run import Run, only, sorted_by
from toolkit._query.text import Row, shown

if TYPE_CHECKING:
    import pyarrow as pa

EFFECT_STATS = ("d", "r", "eta2")
TEST_STATS = (*EFFECT_STATS, "t", "df", "p", "q", "significant")
"""Statistics of a comparison, whose `group` names both groups."""
TESTED = ("d", "q")
"""Statistics that only tests write."""
RANKED = "rank_sound"
"""The statistic of rankings, which decides the order if it exists."""
SMALLEST_FIRST = ("p", "q", RANKED)
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


def ranking_entries(
    run: Run,
    stage: str | None,
    where: Mapping[str, Sequence[Any]],
    stats: Sequence[str],
    by: str | None,
) -> pa.Table:
    """The rows by which lines are ranked. Refuses a statistic that no feature here has."""
    from toolkit.errors import BadInput, choices, nearest

    known = run.rows.values("features", "stat", where, stage)
    columns = ("space", "feature", "stat", "group", "number")
    if known and (unknown := next((stat for stat in stats if stat not in known), None)):
        raise BadInput(
            "No feature of these rows has the statistic "
            f"'{unknown}'.{nearest(unknown, known)} Statistics: {choices(known)}."
        )
    if not set(TESTED) & set(known):
        return run.read_stages("features", stage, where, columns)
    needed = {*TESTED, *EFFECT_STATS, RANKED, "significant", *([by] if by else ())}
    return run.read_stages(
        "features", stage, {**where, "stat": sorted(needed & set(known))}, columns
    )


def ranked_lines(run: Run, entries: pa.Table, by: str | None, significant: bool) -> pa.Table:
    """The lines to show, in order: stage, space, feature, and the compared groups (`group`; empty
    where none are compared).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    tests = only(entries, "stat", TESTED)
    on = ["stage", "space", "feature", *(["group"] if tests.num_rows else [])]
    lines = run.placed((tests if tests.num_rows else entries).group_by(on).aggregate([]))
    known = set(entries["stat"].unique().to_pylist())
    order = (
        [by]
        if by
        else [stat for stat in (RANKED, "q", *EFFECT_STATS) if stat in {"q", *known}]
        if tests.num_rows
        else []
    )
    for stat in dict.fromkeys([*order, "significant"]):
        lines = _with_stat(lines, entries, stat, on)
    if significant:
        lines = lines.filter(pc.fill_null(pc.equal(lines["stat significant"], 1), False))
    if not tests.num_rows:
        lines = lines.append_column("group", pa.repeat(pa.scalar(""), lines.num_rows))
    return sorted_by(
        lines,
        [*((f"stat {stat}", stat in SMALLEST_FIRST) for stat in order), *PLACE, ("group", True)],
    )


def _with_stat(lines: pa.Table, entries: pa.Table, stat: str, on: Sequence[str]) -> pa.Table:
    """Add a statistic of each line to sort by: its absolute value, unless small values are strong.
    Of a statistic per group, the largest.
    """
    import pyarrow.compute as pc

    matching = only(entries, "stat", (stat,))
    keys = list(on) if stat in TEST_STATS else [name for name in on if name != "group"]
    pick = "min" if stat in SMALLEST_FIRST else "max"
    matching = matching.set_column(
        matching.column_names.index("number"), "number", pc.abs(matching["number"])
    )
    values = (
        matching.group_by(keys)
        .aggregate([("number", pick)])
        .rename_columns([*keys, f"stat {stat}"])
    )
    return lines.join(values, keys=keys, join_type="left outer")


def pivoted(run: Run, entries: pa.Table, lines: Sequence[Row], stage: str | None) -> list[Row]:
    """Each line with its stage's statistics of the feature, and the verdicts and labels of all
    stages.
    """
    if not lines:
        return []
    features = sorted({row["feature"] for row in lines})
    near = {"space": sorted({row["space"] for row in lines})} | (
        {"feature": features} if len(features) <= _LOOKED_UP else {}
    )
    compared = set(only(entries, "stat", TESTED)["group"].unique().to_pylist())
    written: dict[tuple[str, int], list[Row]] = {}
    for entry in only(run.read_stages("features", stage, near), "feature", features).to_pylist():
        written.setdefault((entry["space"], entry["feature"]), []).append(entry)
    return [
        _line_of(run, line, written[line["space"], line["feature"]], compared) for line in lines
    ]


def _line_of(run: Run, line: Row, written: Sequence[Row], compared: set[str]) -> Row:
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
            other = group in compared - {line["group"]}
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


def stat_heads(rows: Sequence[Row], stats: Sequence[str], form: str) -> list[str]:
    """The columns: the rank and the test first, then what each group has, then the rest, the
    verdict and the label last.
    """
    fixed = ("address", "stage", "contrast")
    first = {name: rank for rank, name in enumerate(IN_ORDER)}
    names = {name: name.partition("[")[0] for row in rows for name in row if name not in fixed}
    few = form == "text" and not set(TESTED).isdisjoint(names.values())
    shown = [
        name
        for name, stat in names.items()
        if (stat in stats if stats else not few or stat in IN_TABLES)
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
