"""The report section on the examination of SAEs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from toolkit import figures as draw
from toolkit.features.addresses import layer_of
from toolkit.work import Figure, Finding, Inputs

USED = ("fits", "does not fit")
"""Verdicts on the site where an SAE is used; others are on sites where it was only tried."""

HEADS = (
    "SAE",
    "at",
    "L0",
    "declared",
    "explained variance",
    "cosine",
    "never fired",
    "tokens",
    "verdict",
)
RULE = (
    "An SAE fits if its L0 is between a third and three times the declared one, it explains at "
    "least half of the variance, and it does not fit clearly better one layer off or run in "
    "another way."
)


def figures(inputs: Inputs) -> Iterable[Figure]:
    """One row per SAE; for one that does not fit also the sites where it was tried."""
    results = inputs.read("saes").to_pylist()
    misfits = {row["space"] for row in results if row["verdict"] == "does not fit"}
    rows = [row for row in results if row["verdict"] in USED or row["space"] in misfits]
    if not rows:
        return
    names = {
        row["space"]: row["sae"] or row["hookpoint"] for row in inputs.read("spaces").to_pylist()
    }
    used = {row["space"]: row["site"] for row in results if row["verdict"] in USED}
    rows.sort(
        key=lambda row: _order(
            names.get(row["space"], ""), used.get(row["space"], row["site"]), row["site"]
        )
    )
    cells = [_cells(row, names.get(row["space"], row["space"])) for row in rows]
    fit = sum(row["verdict"] == "fits" for row in rows)
    tried = sum(row["verdict"] in USED for row in rows)
    yield Figure(
        f"{fit} of {tried} SAEs fit",
        draw.table(RULE, HEADS, cells, left=(1,), words=True),
        f"{fit} of {tried} SAEs fit. {RULE}",
    )


def findings(inputs: Inputs) -> Iterable[Finding]:
    """One sentence: which SAEs fit, and how sparse and how good they are."""
    used = [row for row in inputs.read("saes").to_pylist() if row["verdict"] in USED]
    if not used:
        return
    misfits = [row for row in used if row["verdict"] != "fits"]
    sites = ", ".join(sorted({str(row["site"]) for row in misfits}, key=_layer))
    fit = len(used) - len(misfits)
    sentence = (
        f"{fit} of {len(used)} SAEs fit this model"
        if len(used) > 1
        else ("The SAE fits this model" if fit else "The SAE does not fit this model")
    )
    if misfits and len(used) > 1:
        sentence += f"; at {sites} {'it does' if len(misfits) == 1 else 'they do'} not"
    tokens = _span(used, "tokens", ",.0f")
    l0, explained = _span(used, "l0", ".1f"), _span(used, "explained_variance", ".3f")
    yield Finding(
        sentence=f"{sentence}: L0 {l0}, explained variance {explained}, on {tokens} tokens.",
        number=fit / len(used),
        rank=10 if misfits else 90,
    )


def _span(rows: list[dict[str, Any]], name: str, form: str) -> str:
    """One number, or the range of several."""
    least, highest = (format(edge(float(row[name]) for row in rows), form) for edge in (min, max))
    return least if least == highest else f"{least} to {highest}"


def _order(name: str, used: str, site: str) -> tuple[int, str, bool, int]:
    """Sorts by the layer where an SAE is used, its own site before those where it was tried."""
    return _layer(used), name, site != used, _layer(site)


def _layer(site: str) -> int:
    return layer_of({"hookpoint": site}) or 0


def _cells(row: dict[str, Any], name: str) -> tuple[str, ...]:
    declared = row["declared_l0"]
    return (
        draw.escaped(name),
        draw.escaped(row["site"]),
        f"{row['l0']:.1f}",
        "-" if declared is None else f"{declared:g}",
        f"{row['explained_variance']:.3f}",
        f"{row['cosine']:.3f}",
        draw.percent(row["dead_share"], 0),
        f"{row['tokens']:,}",
        draw.escaped(row["verdict"] + (f": {row['message']}" if row["message"] else "")),
    )
