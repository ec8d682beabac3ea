"""The report section on a published study's rules: how many features each calls causal, and the
sound screen, and the effect of either value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage

from .stage import STATS

if TYPE_CHECKING:
    from toolkit.work import RunInputs

PREFIX = "published_"
RULES = ("sign_rule", "chi_square_rule", "exact_sign_rule")


Numbers = Mapping[str, list[float]]
"""Statistic -> its number for each feature."""
Counts = Mapping[str, tuple[int, int]]
"""Stage -> (causal, judged) features of a sound screen."""


def _numbers(inputs: RunInputs) -> dict[str, Numbers]:
    """The numbers of each stage that judges as published."""
    import pyarrow.compute as pc

    stages: dict[str, Numbers] = {}
    for stage, rows in inputs.by_stage("features").items():
        numbers: dict[str, list[float]] = {}
        for row in rows.filter(pc.starts_with(rows["stat"], PREFIX)).to_pylist():
            numbers.setdefault(row["stat"].removeprefix(PREFIX), []).append(row["number"])
        if numbers:
            stages[stage] = numbers
    return stages


def _screen_counts(inputs: RunInputs) -> Counts:
    """The counts of the sound screens of the run."""
    verdicts = {
        stage: [row["verdict"] for row in rows]
        for stage, rows in rows_by_stage(inputs, "verdicts").items()
    }
    return {stage: (names.count("causal"), len(names)) for stage, names in verdicts.items()}


def summary(numbers: Numbers, screen_counts: Counts) -> str:
    """The comparison in one sentence."""
    count = len(numbers["sign_rule"])
    signs, chi = (int(sum(numbers[rule])) for rule in ("sign_rule", "chi_square_rule"))
    safe, risky, specific = (
        sum(numbers[stat]) / count for stat in ("naive_safe_value", "naive_risky_value", "specific")
    )
    screen_part = "".join(
        f"; the sound screen{f' ({stage})' if len(screen_counts) > 1 else ''} calls {causal} of "
        f"{judged} causal"
        for stage, (causal, judged) in screen_counts.items()
    )
    return (
        f"Judged as published, {signs} of {count} features are causal by signs and {chi} by an "
        f"uncorrected test{screen_part}. With the stream rebuilt the safe value changes "
        f"stopping by {safe:+.3f} on average and the risky value by {risky:+.3f}; one against the "
        f"other, with the error kept, it is {specific:+.3f}"
    )


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """For each stage a sentence, and a table with a row per rule and value."""
    stages, counts = _numbers(inputs), _screen_counts(inputs)
    for stage, numbers in stages.items():
        sentence, title = summary(numbers, counts), headed(stage, stages, "As published")
        yield Figure(title, f"<p>{draw.escaped(sentence)}.</p>{_table(numbers)}", sentence)


def _table(numbers: Numbers) -> str:
    cells = []
    for stat, label in STATS.items():
        values: list[Any] = numbers[stat]
        cell = (
            f"{int(sum(values))} of {len(values)}"
            if stat in RULES
            else f"{sum(values) / len(values):+.4f}"
        )
        cells.append((draw.escaped(label), cell))
    heads = ("rule or arm", "causal features, or mean change")
    return draw.table("The published rules and arms", heads, cells)


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """The sentence of each figure."""
    stages, counts = _numbers(inputs), _screen_counts(inputs)
    for stage, numbers in stages.items():
        yield Finding(
            sentence=headed(stage, stages, summary(numbers, counts)),
            number=sum(numbers["sign_rule"]),
            n=len(numbers["sign_rule"]),
            rank=14,
        )
