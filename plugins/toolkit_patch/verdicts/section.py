"""The report section on a screen: its verdicts, then each effect beside random directions, and all
arms.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.addresses import layer_of, prefixes
from toolkit.work import Figure, Finding

from .charts import forest, layer_map, naive_map, scatter
from .examples import FiringExample, examples_of, shown
from .stage import CAUSAL, NOTHING, ORDER, REBUILT, SILENT, SMALL, UNSPECIFIC, signed

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]

SHOWN = 24
"""Features in a chart or table; `toolkit query` lists the others."""
TONES = {
    CAUSAL: "var(--computed)",
    UNSPECIFIC: "var(--part)",
    REBUILT: "var(--failed)",
    SMALL: "var(--faint)",
    SILENT: "var(--faint)",
    NOTHING: "var(--faint)",
}
HEADINGS = {
    "set_a": "mean of {a}",
    "set_b": "mean of {b}",
    "reconstruct": "rebuilt",
    "reconstruct_a": "rebuilt, mean of {a}",
    "reconstruct_b": "rebuilt, mean of {b}",
    "random_feature": "a random feature",
    "random_direction": "a random direction",
    "shuffled": "labels shuffled",
    "mean_difference": "difference of means",
    "prompt_only": "asked in words",
}


def joined(inputs: Inputs) -> list[dict[str, Any]]:
    """Rows of `screens` with their verdict, name and layer: the strongest verdict first, then the
    largest effect.
    """
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    names = prefixes(spaces.values())
    key = ("screen", "space", "feature", "comparison", "outcome")
    verdicts = {
        tuple(row[name] for name in key): row for row in inputs.read("verdicts").to_pylist()
    }
    rows = []
    for row in inputs.read("screens").to_pylist():
        verdict = verdicts.get(tuple(row[name] for name in key))
        if verdict is not None:
            name = f"{names[row['space']]}{row['feature']}"
            rows.append({**row, **verdict, "name": name, "layer": layer_of(spaces[row["space"]])})
    return sorted(rows, key=lambda row: (ORDER.index(row["verdict"]), -abs(row["effect"])))


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence and a table of verdicts, then charts, for each comparison and outcome."""
    rows = joined(inputs)
    for contrast, outcome in dict.fromkeys((row["contrast"], row["outcome"]) for row in rows):
        family_rows = [
            row for row in rows if (row["contrast"], row["outcome"]) == (contrast, outcome)
        ]
        yield from _family_figures(family_rows, examples_of(inputs, family_rows))


def _family_figures(
    rows: Sequence[Row], examples: Mapping[tuple[str, int], Sequence[FiringExample]]
) -> Iterable[Figure]:
    sentence, outcome = summary(rows), rows[0]["outcome"]
    group_a, group_b = rows[0]["group_a"], rows[0]["group_b"]
    yield Figure("Verdicts", f"<p>{html.escape(sentence)}</p>{_verdict_table(rows)}", sentence)
    if examples:
        yield Figure("Where it fires", shown(examples, rows), "Texts in which features fire.")
    yield Figure(
        f"Change of P({outcome}) from the mean of {group_b} to that of {group_a}",
        forest(rows[:SHOWN], TONES, outcome),
        "Effects with intervals beside the range of random directions.",
        rows[:SHOWN],
    )
    if len(rows) > 3:
        yield Figure(
            "Effect against evidence",
            scatter(rows, TONES, outcome),
            "Each screened feature by its effect and its p-value.",
            rows,
        )
    if None not in {row["reconstruct_a"] for row in rows}:
        words = "Effects with and without the error."
        yield Figure("Specific against naive", naive_map(rows, TONES, outcome), words, rows)
    layers = {row["layer"] for row in rows}
    if len(layers) > 1 and None not in layers:
        description = "Sizes of effects at each layer."
        yield Figure("Effects by layer", layer_map(rows, TONES, outcome), description, rows)
    yield Figure("Every arm", _arm_table(rows[:SHOWN]), "The mean effect of each arm.")


def summary(rows: Sequence[Row]) -> str:
    """The result in a sentence that states how many features were tried and how p was corrected."""
    counts = Counter(row["verdict"] for row in rows)
    outcome, family, points = rows[0]["outcome"], rows[0]["family"], rows[0]["points"]
    method = (
        f"{family} features were screened at {points} decision points; q is Benjamini-Hochberg "
        f"over all {family}, of the larger p of two questions: more than chance among units, and "
        "more than random directions of equal length"
    )
    if counts[CAUSAL]:
        names = ", ".join(row["name"] for row in rows[:5] if row["verdict"] == CAUSAL)
        more_part = f" and {counts[CAUSAL] - 5} more" if counts[CAUSAL] > 5 else ""
        verb = "is" if counts[CAUSAL] == 1 else "are"
        result = (
            f"{counts[CAUSAL]} of {family} features {verb} causal for P({outcome}): "
            f"{names}{more_part}"
        )
    else:
        result = f"No feature is causal for P({outcome}){_closest(rows)}"
    return f"{result}. {method}."


def _closest(rows: Sequence[Row]) -> str:
    """The effect of the strongest feature where none is causal."""
    unspecific = [row for row in rows if row["verdict"] == UNSPECIFIC]
    if not unspecific:
        return ": none moves it by enough to be compared with random directions"
    best = unspecific[0]
    null = "other features" if best["null"] == "features" else "random directions"
    verb = "does" if len(unspecific) == 1 else "do"
    return (
        f". {len(unspecific)} of {best['family']} {verb} move it, but no more than others would: "
        f"the strongest, {best['name']}, by {signed(best['effect'])}, and {best['beyond']} of "
        f"{best['directions']} {null} as much (q {best['q']:.2g})"
    )


def findings(inputs: Inputs) -> Iterable[Finding]:
    """One sentence per comparison and outcome, with the strongest effect."""
    rows = joined(inputs)
    for contrast, outcome in dict.fromkeys((row["contrast"], row["outcome"]) for row in rows):
        family_rows = [
            row for row in rows if (row["contrast"], row["outcome"]) == (contrast, outcome)
        ]
        best = family_rows[0]
        yield Finding(
            sentence=summary(family_rows),
            number=best["effect"],
            interval=(best["low"], best["high"]),
            n=best["clusters"],
            baseline=_baseline(best),
            rank=15,
        )


def _baseline(row: Row) -> str:
    if row["null_low"] is None:
        return ""
    return (
        f"95 % of random directions as long as {row['name']}'s edit move it by "
        f"{signed(row['null_low'])} to {signed(row['null_high'])}"
    )


# --- tables ---------------------------------------------------------------------------------------


def _verdict_table(rows: Sequence[Row]) -> str:
    body = []
    for row in rows[:SHOWN]:
        tone = TONES.get(row["verdict"], "var(--fg)")
        body.append(
            f'<tr><th scope="row">{html.escape(row["name"])}</th>'
            f'<td style="color:{tone};white-space:nowrap">{html.escape(row["verdict"])}</td>'
            f"<td>{html.escape(row['reason'])}</td></tr>"
        )
    return _table(("feature", "verdict", "reason"), body) + _left_out(rows)


def _left_out(rows: Sequence[Row]) -> str:
    if len(rows) <= SHOWN:
        return ""
    counts = Counter(row["verdict"] for row in rows[SHOWN:])
    listed = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
    return (
        f'<p class="faint">Not shown: {html.escape(listed)}. '
        "<code>toolkit query verdicts</code> lists all.</p>"
    )


def _arm_table(rows: Sequence[Row]) -> str:
    arms = [arm for arm in HEADINGS if rows[0][arm] is not None]
    body = []
    for row in rows:
        cells = [f"{signed(row['effect'])}<br>{_range(row['low'], row['high'])}"]
        cells.append("" if row["null_low"] is None else _range(row["null_low"], row["null_high"]))
        cells += [signed(row[arm]) for arm in arms] + [f"{row['kl']:.2g}"]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{html.escape(row["name"])}</th>{numbers}</tr>')
    group_names = {"a": rows[0]["group_a"], "b": rows[0]["group_b"]}
    arm_headings = (HEADINGS[arm].format_map(group_names) for arm in arms)
    headings = ("feature", "specific effect", "random directions", *arm_headings, "KL")
    return _table(headings, body)


def _range(low: float, high: float) -> str:
    return f"<span class='faint'>[{signed(low)}, {signed(high)}]</span>"


def _table(headings: Sequence[str], body: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
