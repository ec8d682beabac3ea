"""What the report shows of gradients: how well each method ranks features, layer by layer."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.work import Figure, Finding

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]

FEWEST = 3
"""Features without which no agreement is told."""
NAMES = {"atp": "attribution patching", "relp": "RelP"}


def agreements(inputs: Inputs) -> list[dict[str, Any]]:
    """By method and space, rank agreement and Pearson's r of estimates and exact effects; `all` of
    every space together.
    """
    addresses = {row["space"]: row["address"] for row in inputs.read("spaces").to_pylist()}
    rows = inputs.read("gradient_effects").to_pylist()
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        spaces = sorted({row["space"] for row in mine}, key=lambda space: addresses[space])
        parts = [("all", mine)]
        parts += [
            (addresses[space], [row for row in mine if row["space"] == space]) for space in spaces
        ]
        found += [
            {"method": method, "where": where, "features": len(own), **_agreement(own)}
            for where, own in parts
            if len(own) >= FEWEST
        ]
    return found


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


def summary(found: Sequence[Row]) -> str:
    """Each method's agreement over all features."""
    parts = [
        f"{NAMES[row['method']]} agrees with rank {row['rank']:.2f} and r {row['r']:.2f}"
        for row in found
        if row["where"] == "all"
    ]
    count = next(row["features"] for row in found if row["where"] == "all")
    return f"Against the exact effects of {count} features, {' and '.join(parts)}"


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A sentence and a table."""
    found = agreements(inputs)
    if not found:
        return
    sentence = summary(found)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row["where"])}</th><td>{NAMES[row["method"]]}</td>'
        f'<td class="number">{row["features"]}</td><td class="number">{row["rank"]:.3f}</td>'
        f'<td class="number">{row["r"]:.3f}</td></tr>'
        for row in found
    )
    heads = ("where", "method", "features", "rank agreement", "Pearson's r")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    yield Figure("Agreement", f"<p>{html.escape(sentence)}.</p>{table}", sentence)


def findings(inputs: Inputs) -> Iterable[Finding]:
    """The same sentence."""
    found = agreements(inputs)
    if found:
        best = max((row for row in found if row["where"] == "all"), key=lambda row: row["rank"])
        yield Finding(sentence=summary(found), number=best["rank"], n=best["features"], rank=40)
