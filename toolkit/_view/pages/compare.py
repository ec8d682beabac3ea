"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toolkit._query import answers
from toolkit._view.grid import PART_ROWS, Grid
from toolkit._view.library import Library
from toolkit._view.page import Page
from toolkit._view.pages.links import feature_link
from toolkit._view.pages.run_facts import tables_of
from toolkit._view.request import Query

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run


def compare(library: Library, query: Query) -> Page:
    """Two runs side by side, and the features that fire more or less often in the second."""
    import polars as pl

    first, second = library.run(query.required("a")), library.run(query.required("b"))
    compared = [
        {"fact": fact, "first": first_text, "second": second_text}
        for (fact, first_text), second_text in zip(
            _facts(first).items(), _facts(second).values(), strict=True
        )
    ]
    spaces, left_out = _compared(first, second)
    shown = library.changes(first, second, spaces)

    def parts() -> Iterator[pl.DataFrame]:
        from toolkit_store.query.diff import diff_views

        yield _addressed(second, shown.clear())
        changes = diff_views(first.view, second.view, spaces) if spaces else shown
        for rows in changes.filter(pl.col("change") != 0).iter_slices(PART_ROWS):
            yield _addressed(second, rows)

    grids = [
        Grid("runs", "The two runs", answers.frame(compared, ("fact", "first", "second"))),
        Grid(
            "changes",
            f"Change from {first.id} to {second.id}, the largest first",
            _addressed(second, shown),
            {"address": feature_link(second.id)},
            "No feature fires in a different share of samples, or no space can be compared.",
            parts,
        ),
    ]
    facts = {"first": first.id, "second": second.id, "left_out": left_out}
    return Page("compare.html", f"{first.id} and {second.id}", facts, grids)


def _facts(run: Run) -> dict[str, str]:
    manifest = run.manifest
    names = {kind: (manifest.get(kind) or {}).get("name") or "-" for kind in ("model", "saes")}
    counts = {row["table"]: f"{row['rows']:,}" for row in tables_of(run).to_dicts()}
    return {
        "name": run.state.name,
        "state": run.state.state,
        "at": run.state.at[:19].replace("T", " "),
        "seed": str(manifest.get("seed", "-")),
        **names,
        "stages": ", ".join(str(stage.get("id")) for stage in run.planned),
        **{table: counts.get(table, "-") for table in ("samples", "activations", "games")},
    }


def _compared(first: Run, second: Run) -> tuple[list[str], Sequence[str]]:
    """The spaces in which two runs can be compared, and why others are left out."""
    from toolkit_store.query.diff import common_spaces

    known = {row["space"] for row in second.spaces}
    both = [row["space"] for row in first.spaces if row["space"] in known]
    if not both or not (first.stages("activations") and second.stages("activations")):
        return [], ["The two runs have no space in common with activations in both."]
    common = common_spaces(first.view, second.view, both)
    addresses = {row["space"]: row["address"] for row in first.spaces}
    left_out = [f"{addresses[space]}: {why}" for space, why in common.left_out.items()]
    return common.spaces, left_out


def _addressed(run: Run, changes: pl.DataFrame) -> pl.DataFrame:
    """Changes of features with their addresses."""
    import polars as pl

    pairs = changes.select("space", "feature").iter_rows()
    addresses = pl.Series("address", [run.label(*pair) for pair in pairs], pl.String)
    heads = ("count_a", "count_b", "rate_a", "rate_b", "change", "max_a", "max_b")
    return changes.select(addresses, *heads)
