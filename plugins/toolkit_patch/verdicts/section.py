"""The report section on a screen: its verdicts, then each effect with random directions, and all
arms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.features.addresses import layer_of, prefixes
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import rows_by_stage

from .charts import forest, layer_map, naive_map, scatter
from .control import control_sentence, control_table
from .examples import FiringExample, examples_of, shown
from .stage import CAUSAL, NOTHING, ORDER, REBUILT, SILENT, SMALL, UNSPECIFIC, null_name, signed

if TYPE_CHECKING:
    from toolkit.work import RunInputs

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


def joined(inputs: RunInputs, kind: str = "") -> list[dict[str, Any]]:
    """Rows of `screens` with their verdict, feature name, layer and stages: the strongest verdict
    first, then the largest effect. `kind`: `control_` for the rows of the control.
    """
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    names = prefixes(spaces.values())
    screens = {
        _key(row): {**row, "stage": stage}
        for stage, rows in rows_by_stage(inputs, f"{kind}screens").items()
        for row in rows
    }
    judged = [
        {**screens[_key(row)], **row, "judge": judge}
        for judge, rows in rows_by_stage(inputs, f"{kind}verdicts").items()
        for row in rows
        if _key(row) in screens
    ]
    for row in judged:
        row["name"] = f"{names[row['space']]}{row['feature']}"
        row["layer"] = layer_of(spaces[row["space"]])
    return sorted(judged, key=lambda row: (ORDER.index(row["verdict"]), -abs(row["effect"])))


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("screen", "space", "feature", "comparison", "outcome"))


def _families(inputs: RunInputs, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """(heading, rows) of everything that was corrected together, by the stage that judged it. The
    heading names the stages if the run has several.
    """
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(_family_key(row), []).append(row)
    has_judges = len({row["judge"] for row in rows}) > 1
    has_stages = has_judges or len(inputs.by_stage("screens")) > 1
    for family_rows in families.values():
        stage, judge = family_rows[0]["stage"], family_rows[0]["judge"]
        judged_by = f", judged by {judge}" if has_judges else ""
        yield f"{stage}{judged_by}: " if has_stages else "", family_rows


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A sentence and a table of verdicts, then charts, for each screen, comparison and outcome."""
    controls = _controls(inputs)
    for name, rows in _families(inputs, joined(inputs)):
        control = controls.get(_family_key(rows[0]), [])
        for figure in _family_figures(rows, control, examples_of(inputs, rows)):
            yield replace(figure, title=f"{name}{figure.title}")


def _controls(inputs: RunInputs) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """The judged rows of the controls, by the family of their screen."""
    controls: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in joined(inputs, "control_"):
        controls.setdefault(_family_key(row), []).append(row)
    return controls


def _family_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("judge", "screen", "comparison", "outcome"))


def _family_figures(
    rows: Sequence[Row],
    control: Sequence[Row],
    examples: Mapping[tuple[str, int], Sequence[FiringExample]],
) -> Iterable[Figure]:
    sentence, outcome = summary(rows, control), rows[0]["outcome"]
    html = f"<p>{draw.escaped(sentence)}</p>{_verdict_table(rows)}"
    yield Figure("Verdicts", html, "Each feature with its verdict and the reason for it.")
    if control:
        words = "Verdicts with trained and with random decoder rows."
        yield Figure("Trained against random decoder", control_table(rows, control), words)
    if examples:
        yield Figure("Where it fires", shown(examples, rows), "Texts in which features fire.")
    yield from _charts(rows, outcome)
    yield Figure("Every arm", _arm_table(rows[:SHOWN]), "The mean effect of each arm.")


def _charts(rows: Sequence[Row], outcome: str) -> Iterator[Figure]:
    group_a, group_b = rows[0]["group_a"], rows[0]["group_b"]
    yield Figure(
        f"Change of P({outcome}) from the mean of {group_b} to that of {group_a}",
        forest(rows[:SHOWN], TONES, outcome),
        f"Effects with intervals and the range of {null_name(rows[:SHOWN])}.",
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


def summary(rows: Sequence[Row], control: Sequence[Row] = ()) -> str:
    """The result in sentences that state how many features were tried, how p was corrected and,
    with a control, what random decoder rows give.
    """
    counts = Counter(row["verdict"] for row in rows)
    outcome, family, points = rows[0]["outcome"], rows[0]["family"], rows[0]["points"]
    method = (
        f"{family} features were screened at {points} decision points; q is Benjamini-Hochberg "
        f"over all {family}, of the larger p of two questions: more than chance among units, and "
        f"more than {null_name(rows)} moved as far"
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
    return f"{result}. {method}.{f' {control_sentence(control)}.' if control else ''}"


def _closest(rows: Sequence[Row]) -> str:
    """The effect of the strongest feature where none is causal."""
    unspecific = [row for row in rows if row["verdict"] == UNSPECIFIC]
    if not unspecific:
        return f": none moves it by enough to be compared with {null_name(rows)}"
    best = unspecific[0]
    null = null_name([best])
    verb = "does" if len(unspecific) == 1 else "do"
    moved = f". {len(unspecific)} of {best['family']} {verb} move it"
    strongest = f"the strongest, {best['name']}, by {signed(best['effect'])}"
    beyond = f"{best['beyond']} of {best['directions']} {null}"
    if best["null_low"] <= best["effect"] <= best["null_high"]:
        return (
            f"{moved}, but no more than others would: {strongest}, and {beyond} as much "
            f"(q {best['q']:.2g})"
        )
    return (
        f"{moved}: {strongest}, more than most {null}, but not significantly after correction "
        f"(q {best['q']:.2g}); {beyond} move it as much"
    )


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """One sentence per screen, comparison and outcome, with the strongest effect."""
    controls = _controls(inputs)
    for name, rows in _families(inputs, joined(inputs)):
        best = rows[0]
        yield Finding(
            sentence=f"{name}{summary(rows, controls.get(_family_key(best), []))}",
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
        f"95 % of {null_name([row])} as long as {row['name']}'s edit move it by "
        f"{signed(row['null_low'])} to {signed(row['null_high'])}"
    )


# --- tables ---------------------------------------------------------------------------------------


def _verdict_table(rows: Sequence[Row]) -> str:
    cells = [
        (draw.escaped(row["name"]), _coloured(row["verdict"]), draw.escaped(row["reason"]))
        for row in rows[:SHOWN]
    ]
    caption = "Verdicts, the strongest first"
    table = draw.table(caption, ("feature", "verdict", "reason"), cells, left=(1,), words=True)
    return table + _left_out(rows)


def _coloured(verdict: str) -> str:
    tone = TONES.get(verdict, "var(--fg)")
    return f'<span style="color:{tone};white-space:nowrap">{draw.escaped(verdict)}</span>'


def _left_out(rows: Sequence[Row]) -> str:
    if len(rows) <= SHOWN:
        return ""
    counts = Counter(row["verdict"] for row in rows[SHOWN:])
    listed = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
    return (
        f'<p class="faint">Not shown: {draw.escaped(listed)}. '
        "<code>toolkit query verdicts</code> lists all.</p>"
    )


def _arm_table(rows: Sequence[Row]) -> str:
    arms = [arm for arm in HEADINGS if rows[0][arm] is not None]
    cells = []
    for row in rows:
        null = "" if row["null_low"] is None else _range(row["null_low"], row["null_high"])
        effect = f"{signed(row['effect'])}<br>{_range(row['low'], row['high'])}"
        changes = [signed(row[arm]) for arm in arms]
        cells.append((draw.escaped(row["name"]), effect, null, *changes, f"{row['kl']:.2g}"))
    group_names = {"a": rows[0]["group_a"], "b": rows[0]["group_b"]}
    arm_headings = (HEADINGS[arm].format_map(group_names) for arm in arms)
    heads = ("feature", "specific effect", null_name(rows), *arm_headings, "KL")
    return draw.table("Mean changes with 95 % intervals over units", heads, cells)


def _range(low: float, high: float) -> str:
    return f"<span class='faint'>[{signed(low)}, {signed(high)}]</span>"
