"""The report section on gradients: how well each method ranks features, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding
from toolkit_patch.by_stage import headed, rows_by_stage

if TYPE_CHECKING:
    from toolkit.work import RunInputs

    Row = Mapping[str, Any]

MIN_FEATURES = 3
"""Fewest features for which an agreement is reported."""
NAMES = {"atp": "attribution patching", "relp": "RelP"}

PUBLISHED = "In published comparisons such estimates agree with exact effects by .75 to .99."


def agreements(inputs: RunInputs) -> dict[str, list[dict[str, Any]]]:
    """By stage, rank agreement and Pearson's r between estimates and exact effects, by method and
    space; `all` pools the spaces. Stages with too few features are left out.
    """
    addresses = {row["space"]: row["address"] for row in inputs.read("spaces").to_pylist()}
    stages = rows_by_stage(inputs, "gradient_effects")
    results = {stage: _agreements(rows, addresses) for stage, rows in stages.items()}
    return {stage: rows for stage, rows in results.items() if rows}


def _agreements(rows: Sequence[Row], addresses: Mapping[str, str]) -> list[dict[str, Any]]:
    results = []
    for method in dict.fromkeys(row["method"] for row in rows):
        method_rows = [row for row in rows if row["method"] == method]
        spaces = sorted({row["space"] for row in method_rows}, key=lambda space: addresses[space])
        groups = [("all", method_rows)]
        groups += [
            (addresses[space], [row for row in method_rows if row["space"] == space])
            for space in spaces
        ]
        results += [
            {"method": method, "where": where, "features": len(group), **_agreement(group)}
            for where, group in groups
            if len(group) >= MIN_FEATURES
        ]
    return results


def _agreement(rows: Sequence[Row]) -> dict[str, float]:
    import numpy as np
    from scipy.stats import pearsonr, spearmanr

    estimates = np.array([row["estimate"] for row in rows])
    exact = np.array([row["exact"] for row in rows])
    if not (np.ptp(estimates) and np.ptp(exact)):
        return {"rank": 0.0, "r": 0.0}
    return {
        "rank": float(spearmanr(estimates, exact).statistic),
        "r": float(pearsonr(estimates, exact).statistic),
    }


def summary(agreement_rows: Sequence[Row]) -> str:
    """The agreement of each method over all features."""
    clauses = [
        f"{NAMES[row['method']]} agrees with rank {row['rank']:.2f} and r {row['r']:.2f}"
        for row in agreement_rows
        if row["where"] == "all"
    ]
    count = next(row["features"] for row in agreement_rows if row["where"] == "all")
    return f"Against the exact effects of {count} features, {' and '.join(clauses)}"


def figures(inputs: RunInputs) -> Iterable[Figure]:
    """A sentence and a table for each stage."""
    stages = agreements(inputs)
    for stage, rows in stages.items():
        sentence, title = summary(rows), headed(stage, stages, "Agreement")
        text = f"<p>{draw.escaped(sentence)}. {PUBLISHED}</p>{_table(rows)}"
        yield Figure(title, text, sentence)


def _table(agreement_rows: Sequence[Row]) -> str:
    cells = [
        (
            draw.escaped(row["where"]),
            NAMES[row["method"]],
            f"{row['features']}",
            f"{row['rank']:.3f}",
            f"{row['r']:.3f}",
        )
        for row in agreement_rows
    ]
    heads = ("where", "method", "features", "rank agreement", "Pearson's r")
    return draw.table("Estimates against exact effects", heads, cells, left=(1,))


def findings(inputs: RunInputs) -> Iterable[Finding]:
    """The sentence of each figure."""
    stages = agreements(inputs)
    for stage, rows in stages.items():
        best = max((row for row in rows if row["where"] == "all"), key=lambda row: row["rank"])
        sentence = headed(stage, stages, summary(rows))
        yield Finding(sentence=sentence, number=best["rank"], n=best["features"], rank=40)
