"""The report section on a published study's rules: how many features each calls causal, beside the
sound screen, and the effect of either value.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from toolkit.work import Figure, Finding

from .stage import STATS

if TYPE_CHECKING:
    from toolkit.work import Inputs

RULES = ("sign_rule", "chi_square_rule", "exact_sign_rule")


def _numbers(inputs: Inputs) -> dict[str, list[float]]:
    """Statistic -> its number for each feature."""
    numbers: dict[str, list[float]] = {}
    for row in inputs.read("features").to_pylist():
        if row["stat"].startswith("published_"):
            numbers.setdefault(row["stat"].removeprefix("published_"), []).append(row["number"])
    return numbers


def _screen_counts(inputs: Inputs) -> tuple[int, int] | None:
    """(causal, judged) features of the sound screen, if the run has one."""
    if "verdicts" not in inputs.tables():
        return None
    verdicts = inputs.read("verdicts")["verdict"].to_pylist()
    return (verdicts.count("causal"), len(verdicts)) if verdicts else None


def summary(numbers: dict[str, list[float]], screen_counts: tuple[int, int] | None) -> str:
    """The comparison in one sentence."""
    count = len(numbers["sign_rule"])
    signs, chi = (int(sum(numbers[rule])) for rule in ("sign_rule", "chi_square_rule"))
    safe, risky, specific = (
        sum(numbers[stat]) / count for stat in ("naive_safe_value", "naive_risky_value", "specific")
    )
    screen_part = (
        f"; the sound screen calls {screen_counts[0]} of {screen_counts[1]} causal"
        if screen_counts
        else ""
    )
    return (
        f"Judged as published, {signs} of {count} features are causal by signs and {chi} by an "
        f"uncorrected test{screen_part}. With the stream rebuilt the safe value changes "
        f"stopping by {safe:+.3f} on average and the risky value by {risky:+.3f}; one against the "
        f"other, with the error kept, it is {specific:+.3f}"
    )


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence, and a table with a row per rule and value."""
    numbers = _numbers(inputs)
    if not numbers:
        return
    sentence, body = summary(numbers, _screen_counts(inputs)), []
    for stat, label in STATS.items():
        values: list[Any] = numbers[stat]
        cell = (
            f"{int(sum(values))} of {len(values)}"
            if stat in RULES
            else f"{sum(values) / len(values):+.4f}"
        )
        body.append(
            f'<tr><th scope="row">{html.escape(label)}</th><td class="number">{cell}</td></tr>'
        )
    head = '<th scope="col">as published</th><th scope="col">causal features, or mean change</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    yield Figure("As published", f"<p>{html.escape(sentence)}.</p>{table}", sentence)


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The sentence of the figure."""
    numbers = _numbers(inputs)
    if numbers:
        yield Finding(
            sentence=summary(numbers, _screen_counts(inputs)),
            number=sum(numbers["sign_rule"]),
            n=len(numbers["sign_rule"]),
            rank=14,
        )
