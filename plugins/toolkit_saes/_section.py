"""What the report says of the examination."""

from __future__ import annotations

import html
from collections.abc import Iterable

from toolkit.records import Figure, Inputs


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A row for each SAE where it is used; for one that does not fit, the places where it was tried, too."""
    found = inputs.read("saes").to_pylist()
    misfits = {row["space"] for row in found if row["verdict"] == "does not fit"}
    rows = [row for row in found if row["verdict"] in ("fits", "does not fit") or row["space"] in misfits]
    if not rows:
        return
    names = {row["space"]: row["sae"] or row["hookpoint"] for row in inputs.read("spaces").to_pylist()}
    rows.sort(key=lambda row: _order(names.get(row["space"], ""), row))
    heads = ("SAE", "at", "L0", "declared", "explained variance", "cosine", "never fired", "tokens", "verdict")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(_row(row, names.get(row["space"], row["space"])) for row in rows)
    fit = sum(row["verdict"] == "fits" for row in rows)
    tried = sum(row["verdict"] in ("fits", "does not fit") for row in rows)
    yield Figure(
        f"{fit} of {tried} SAEs fit",
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
        f"{fit} of {tried} SAEs have the sparsity that they declare and explain at least half of the variance.",
    )


def _order(name: str, row: dict[str, object]) -> tuple[int, str, bool]:
    """By layer; the place where an SAE is used before those where it was tried."""
    return int(str(row["place"]).rpartition(".")[2] or 0), name, row["verdict"] not in ("fits", "does not fit")


def _row(row: dict[str, object], name: str) -> str:
    declared = row["declared_l0"]
    numbers = (
        f"{row['l0']:.1f}",
        "-" if declared is None else f"{declared:g}",
        f"{row['explained_variance']:.3f}",
        f"{row['cosine']:.3f}",
        f"{100 * float(str(row['dead_share'])):.0f} %",
        f"{row['tokens']:,}",
    )
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    said = html.escape(str(row["verdict"]) + (f": {row['message']}" if row["message"] else ""))
    return f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(row["place"]))}</td>{cells}<td>{said}</td></tr>'
