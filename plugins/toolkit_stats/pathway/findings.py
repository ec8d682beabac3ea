"""Findings of trajectories: which followed feature differs most, and how that grows by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.features.addresses import layer_of, prefixes
from toolkit.figures import signed, small
from toolkit.work import Finding, Inputs
from toolkit_stats.compare.findings import baseline_of

RANK = 25


def findings(inputs: Inputs) -> Iterator[Finding]:
    """For each two groups, the followed feature with the largest d, and the d of its layers."""
    if not {"trajectories", "spaces"} <= set(inputs.tables()):
        return
    rows = [
        row
        for row in inputs.read("trajectories").to_pylist()
        if row["stat"] == "d" and row["value"] is not None
    ]
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    for names in sorted({(row["group"], row["against"]) for row in rows}):
        differences = [row for row in rows if (row["group"], row["against"]) == names]
        yield _finding(inputs, " vs ".join(names), differences, spaces)


def _finding(
    inputs: Inputs,
    contrast: str,
    rows: Sequence[Mapping[str, Any]],
    spaces: Mapping[str, Mapping[str, Any]],
) -> Finding:
    followed = {row["space"] for row in rows}
    names = prefixes(row for space, row in spaces.items() if space in followed)
    best = max(rows, key=lambda row: abs(row["value"]))
    numbers = f"d {signed(best['value'])} [{signed(best['low'])}, {signed(best['high'])}]"
    evidence = (
        "p withheld, since a group is small" if best["q"] is None else f"q {small(best['q'])}"
    )
    chosen = ", chosen on these very units" if best["chosen"] else ""
    return Finding(
        sentence=f"Of {len(rows):,} features followed in {contrast}, "
        f"{names[best['space']]}{best['feature']} differs most: {numbers}, {evidence}{chosen}"
        f"{_by_layer(rows, spaces)}.",
        number=best["value"],
        interval=None if best["low"] is None else (best["low"], best["high"]),
        n=_units(inputs),
        baseline=baseline_of(inputs, contrast),
        rank=RANK,
    )


def _by_layer(rows: Sequence[Mapping[str, Any]], spaces: Mapping[str, Mapping[str, Any]]) -> str:
    """The largest |d| at the first layer and at the last; empty where there is one layer."""
    largest: dict[int, float] = {}
    for row in rows:
        layer = layer_of(spaces[row["space"]])
        if layer is not None:
            largest[layer] = max(largest.get(layer, 0.0), abs(row["value"]))
    if len(largest) < 2:
        return ""
    first, last = min(largest), max(largest)
    return (
        f"; the largest |d| is {largest[first]:.2f} at layer {first} and {largest[last]:.2f} at "
        f"layer {last}"
    )


def _units(inputs: Inputs) -> int | None:
    """The units that were followed."""
    if "traces" not in inputs.tables():
        return None
    return len(inputs.read("traces")["unit"].unique())
