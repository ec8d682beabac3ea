"""One sentence for each comparison of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.features.comparisons import rows_of
from toolkit.figures import signed, small
from toolkit.work import Finding, Inputs

if TYPE_CHECKING:
    from toolkit_stats.compare.contrasts import ContrastTable

FIRST_RANK = 20


def comparison_findings(inputs: Inputs) -> Iterator[Finding]:
    """How many features differ of how many tested, and the strongest, for each comparison.

    A comparison on the select half is left out where another one confirms its features.
    """
    from toolkit_stats.compare.contrasts import read_contrasts

    results = list(read_contrasts(inputs))
    confirmed = {result.group for result in results if result.comparison.half == "confirm"}
    shown = [
        result
        for result in results
        if result.comparison.half != "select" or result.group not in confirmed
    ]
    for number, contrast in enumerate(shown):
        if len(contrast.ranking()):
            yield _finding(inputs, contrast, FIRST_RANK + number)


def _finding(inputs: Inputs, contrast: ContrastTable, rank: int) -> Finding:
    comparison = contrast.comparison
    strongest = _strongest(contrast)
    interval = _interval(inputs, contrast, strongest)
    effect = f"{contrast.symbol} {signed(float(contrast.d[strongest]))}"
    if interval:
        effect += f" [{signed(interval[0])}, {signed(interval[1])}]"
    count, tested = int(contrast.significant.sum()), sum(comparison.tested.values())
    counts = " and ".join(f"{group.clusters:,}" for group in comparison.groups)
    clusters = f"{counts} clusters"
    where = contrast.group
    if comparison.half != "all":
        where += f", half {comparison.half}"
    numbers = f"{effect}, q {small(float(contrast.q[strongest]))}, {clusters}"
    if count:
        verb = "differs" if count == 1 else "differ"
        head = f"{count:,} of {tested:,} features {verb} in {where}"
        named = f"the strongest is {contrast.address(strongest)}"
    else:
        head = f"None of {tested:,} features differs in {where}"
        named = f"the smallest q is that of {contrast.address(strongest)}"
    how = f"{comparison.test}, {comparison.correction}, alpha {comparison.alpha:g}"
    return Finding(
        sentence=f"{head} ({how}); {named}: {numbers}.",
        number=float(contrast.d[strongest]),
        interval=interval,
        n=sum(group.clusters for group in comparison.groups),
        baseline=baseline_of(inputs, contrast.group),
        rank=rank,
    )


def _strongest(contrast: ContrastTable) -> int:
    """The significant feature with the largest effect; without one, that with the smallest q."""
    import numpy as np

    ranking = contrast.ranking()
    significant = ranking[contrast.significant[ranking]]
    if not len(significant):
        return int(ranking[0])
    return int(significant[np.argmax(np.abs(contrast.d[significant]))])


def _interval(inputs: Inputs, contrast: ContrastTable, index: int) -> tuple[float, float] | None:
    import pyarrow.compute as pc

    rows = rows_of(inputs.read("features"), contrast.comparison)
    rows = rows.filter(pc.equal(rows["feature"], int(contrast.feature[index])))
    space = contrast.spaces[contrast.space[index]].id
    number = {row["stat"]: row["number"] for row in rows.to_pylist() if row["space"] == space}
    low, high = (number.get(f"{contrast.effect}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def baseline_of(inputs: Inputs, contrast: str) -> str:
    """The AUROCs of metadata alone and of the best feature on the same groups; empty where no stage
    measured them.
    """
    if "baselines" not in inputs.tables():
        return ""
    rows = [
        row
        for row in inputs.read("baselines").to_pylist()
        if row["contrast"] == contrast and row["metric"] == "auroc" and row["value"] is not None
    ]
    metadata = _best([row for row in rows if row["kind"] == "metadata"])
    probe = _best([row for row in rows if row["kind"] == "linear probe"])
    feature = _best([row for row in rows if row["kind"] == "best feature"])
    parts = []
    if metadata:
        parts.append(f"{metadata['name']} alone reaches AUROC {area_of(metadata):.3f}")
    if probe:
        parts.append(f"a linear probe {area_of(probe):.3f}")
    if feature and parts:
        parts.append(f"the best feature {area_of(feature):.3f}")
    return "; ".join(parts)


def _best(rows: Sequence[Any]) -> Any:
    return max(rows, key=area_of, default=None)


def area_of(row: Any) -> float:
    """The AUROC in the direction in which it is above one half."""
    return max(float(row["value"]), 1.0 - float(row["value"]))
