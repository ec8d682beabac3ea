"""The search over all runs of a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit._query import answers
from toolkit._view.grid import PART_ROWS, Grid
from toolkit._view.library import Library
from toolkit._view.page import Page
from toolkit._view.pages.links import run_href
from toolkit._view.request import Query

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run

SEARCH_ROWS = 50
"""The most hits in one run that the search shows."""


def search(library: Library, query: Query) -> Page:
    """Features of all runs by label, word, promoted token or address."""
    import polars as pl

    text = query.text("q") or ""
    names = [state.run for state in reversed(library.states())] if text else []

    def hits(name: str) -> tuple[Run, pl.DataFrame]:
        with library.lock:
            run = library.run(name)
            labels = library.labels(run)
        return run, answers.search_hits(run, text, labels)

    def addressed(run: Run, rows: pl.DataFrame) -> pl.DataFrame:
        named = answers.with_addresses(run, rows)
        return named.select(pl.lit(run.id).alias("run"), pl.all())

    def parts() -> Iterator[pl.DataFrame]:
        yield frame.clear()
        for name in names:
            run, rows = hits(name)
            for part in rows.iter_slices(PART_ROWS):
                yield addressed(run, part)

    shown, height = [], 0
    for name in names:
        run, rows = hits(name)
        shown.append(addressed(run, rows.head(SEARCH_ROWS)))
        height += rows.height
    frame = pl.concat(shown) if shown else answers.frame([], ("run", "address", "match", "text"))
    links = {
        "run": lambda row: run_href(row["run"]),
        "address": lambda row: run_href(row["run"], "feature", address=row["address"]),
    }
    why = (
        f"No feature has '{text}' in its address, label, words or promoted tokens." if text else ""
    )
    grid = Grid("hits", f"Features with '{text}'", frame, links, why, parts, height)
    return Page("search.html", "Search", {"sought": text}, [grid])
