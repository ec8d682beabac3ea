"""What several pages say about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit._query import answers
from toolkit._view.pages.links import run_href

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run

MANY_STATISTICS = 200_000
"""Pages about the features of a run with more statistics than this load them later."""


def tables_of(run: Run) -> pl.DataFrame:
    """The tables that a run has written, and the rows in each."""
    counts: dict[str, int] = {}
    for step in run.steps:
        for table, rows in step.tables.items():
            counts[table] = counts.get(table, 0) + rows
    written = [{"table": table, "rows": counts[table]} for table in sorted(counts)]
    return answers.frame(written, ("table", "rows"))


def has_many_statistics(run: Run) -> bool:
    """Whether reading the statistics of all features takes longer than a page may."""
    return sum(step.tables.get("features", 0) for step in run.steps) > MANY_STATISTICS


def comparisons_of(run: Run) -> list[dict[str, Any]]:
    """The comparisons of a run, each with its groups in words and the address of its page."""
    columns = ("comparison", "part", "effect", "groups", "half", "alpha")
    rows = run.read_stages("comparisons", None, None, columns).to_pylist()
    return [
        {
            **row,
            "contrast": " vs ".join(str(group["name"]) for group in row["groups"]),
            "href": run_href(run.id, "comparison", comparison=row["comparison"]),
        }
        for row in rows
    ]


def why_empty(run: Run, table: str, frame: pl.DataFrame) -> str:
    """Why a table is empty. To say it takes longer than to read the table, so a table with rows is
    not asked.
    """
    return "" if frame.height else run.why(table)


def past_the_end(offset: int) -> str:
    """Why a list has no rows from `offset` on, if it does not begin at its first."""
    return f"Fewer than {offset + 1:,} rows: leave offset out of the address." if offset else ""
