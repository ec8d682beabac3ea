"""What the report shows of a screen: the verdicts first, then each effect beside what random
directions do, and all arms.
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
"""Features in a chart or table; the others are one query away."""
TONES = {
    CAUSAL: "var(--computed)",
    UNSPECIFIC: "var(--part)",
    REBUILT: "var(--failed)",
    SMALL: "var(--faint)",
    SILENT: "var(--faint)",
    NOTHING: "var(--faint)",
}
HEADS = {
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
    """Rows of `screens` with their verdict, name and layer: the most telling verdict first, then
    the largest effect.
    """
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    names = prefixes(spaces.values())
    key = ("screen", "space", "feature", "comparison", "outcome")
    verdicts = {
        tuple(row[name] for name in key): row for row in inputs.read("verdicts").to_pylist()
    }
    rows = []
    for row in inputs.read("screens").to_pylist():
        judged = verdicts.get(tuple(row[name] for name in key))
        if judged is not None:
            name = f"{names[row['space']]}{row['feature']}"
            rows.append({**row, **judged, "name": name, "layer": layer_of(spaces[row["space"]])})
    return sorted(rows, key=lambda row: (ORDER.index(row["verdict"]), -abs(row["effect"])))


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence and a table of verdicts, then charts, for each comparison and outcome."""
    rows = joined(inputs)
    for contrast, outcome in dict.fromkeys((row["contrast"], row["outcome"]) for row in rows):
        own = [row for row in rows if (row["contrast"], row["outcome"]) == (contrast, outcome)]
        yield from _of_family(own, examples_of(inputs, own))


def _of_family(
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
        yield Figure("Specific against naive", naive_map(rows, TONES), words, rows)
    layers = {row["layer"] for row in rows}
    if len(layers) > 1 and None not in layers:
        words = "Sizes of effects at each layer."
        yield Figure("Effects by layer", layer_map(rows, TONES), words, rows)
    yield Figure("Every arm", _arm_table(rows[:SHOWN]), "The mean effect of each arm.")


def summary(rows: Sequence[Row]) -> str:
    """What was found, in a sentence that says how many were tried and how p was corrected."""
    counts = Counter(row["verdict"] for row in rows)
    outcome, family, points = rows[0]["outcome"], rows[0]["family"], rows[0]["points"]
    how = (
        f"{family} features were screened at {points} decision points; q is Benjamini-Hochberg "
        f"over all {family}, of the larger p of two questions: more than chance among units, and "
        "more than random directions of equal length"
    )
    if counts[CAUSAL]:
        names = ", ".join(row["name"] for row in rows[:5] if row["verdict"] == CAUSAL)
        more = f" and {counts[CAUSAL] - 5} more" if counts[CAUSAL] > 5 else ""
        verb = "is" if counts[CAUSAL] == 1 else "are"
        head = (
            f"{counts[CAUSAL]} of {family} features {verb} causal for P({outcome}): {names}{more}"
        )
    else:
        head = f"No feature is causal for P({outcome}){_closest(rows)}"
    return f"{head}. {how}."


def _closest(rows: Sequence[Row]) -> str:
    """What the strongest feature does, where none is causal."""
    asked = [row for row in rows if row["verdict"] == UNSPECIFIC]
    if not asked:
        return ": none moves it by enough to be held against random directions"
    best = min(asked, key=lambda row: (row["p"], -abs(row["effect"])))
    null = "other features" if best["null"] == "features" else "random directions"
    verb = "does" if len(asked) == 1 else "do"
    return (
        f". {len(asked)} of {best['family']} {verb} move it, but no more than others would: the "
        f"strongest, {best['name']}, by {signed(best['effect'])}, and {best['beyond']} of "
        f"{best['directions']} {null} as much (q {best['q']:.2g})"
    )


def findings(inputs: Inputs) -> Iterable[Finding]:
    """One sentence for each comparison and outcome, with the strongest effect."""
    rows = joined(inputs)
    for contrast, outcome in dict.fromkeys((row["contrast"], row["outcome"]) for row in rows):
        own = [row for row in rows if (row["contrast"], row["outcome"]) == (contrast, outcome)]
        best = own[0]
        yield Finding(
            sentence=summary(own),
            number=best["effect"],
            interval=(best["low"], best["high"]),
            n=best["clusters"],
            baseline=_baseline(best),
            rank=15 if best["verdict"] == CAUSAL else 25,
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
    arms = [arm for arm in HEADS if rows[0][arm] is not None]
    body = []
    for row in rows:
        cells = [f"{signed(row['effect'])}<br>{_range(row['low'], row['high'])}"]
        cells.append("" if row["null_low"] is None else _range(row["null_low"], row["null_high"]))
        cells += [signed(row[arm]) for arm in arms] + [f"{row['kl']:.2g}"]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{html.escape(row["name"])}</th>{numbers}</tr>')
    names = {"a": rows[0]["group_a"], "b": rows[0]["group_b"]}
    named = (HEADS[arm].format_map(names) for arm in arms)
    heads = ("feature", "specific effect", "random directions", *named, "KL")
    return _table(heads, body)


def _range(low: float, high: float) -> str:
    return f"<span class='faint'>[{signed(low)}, {signed(high)}]</span>"


def _table(heads: Sequence[str], body: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
