"""One comparison of a run: its volcano, and the features within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolkit._view import charts
from toolkit._view.grid import MAX_ROWS, PART_ROWS, Grid
from toolkit._view.library import Library
from toolkit._view.page import Page
from toolkit._view.pages.links import feature_link, run_href
from toolkit._view.pages.run_facts import has_many_statistics
from toolkit._view.request import Query
from toolkit.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run

BOUNDS = {
    "low": ("effect", True),
    "high": ("effect", False),
    "q": ("q", False),
    "q_low": ("q", True),
}
"""What each bound limits, and whether it is the lower end."""


def comparison(library: Library, query: Query, name: str) -> Page:
    """One comparison as a volcano, and the features within the chosen bounds as a table; of a large
    run that was not asked for it yet, they are loaded later.
    """
    run = library.run(name)
    facts = _comparison(run, query)
    contrast = " vs ".join(group["name"] for group in facts["groups"])
    named = {"comparison": facts, "contrast": contrast, "bounds": _bounds(query)}
    title = f"Comparison {contrast}"
    is_quick = library.is_drawn(run, facts["comparison"]) or not has_many_statistics(run)
    if is_quick or query.downloads:
        drawn, grid = _drawn(library, run, facts, query)
        return Page("comparison.html", title, {**named, **drawn}, [grid], name)
    later = run_href(name, "tested", comparison=facts["comparison"], **_bounds(query))
    return Page("comparison.html", title, {**named, "later": later}, (), name)


def tested(library: Library, query: Query, name: str) -> Page:
    """The volcano of a comparison and its table: a part of its page that is loaded later if it
    takes longer.
    """
    with library.lock:
        run = library.run(name)
        facts = _comparison(run, query)
    drawn, grid = _drawn(library, run, facts, query)
    address = run_href(name, "comparison", comparison=facts["comparison"])
    named = {"comparison": facts, "bounds": _bounds(query), "address": address, **drawn}
    return Page("tested.html", "Features of a comparison", named, [grid], name)


def _comparison(run: Run, query: Query) -> dict[str, Any]:
    id = query.required("comparison")
    rows = run.read_stages("comparisons", None, {"comparison": [id]}).to_pylist()
    if not rows:
        raise BadInput(f"Run {run.id} has no comparison '{id}'. Choose one from the run's page.")
    row: dict[str, Any] = rows[0]
    return row


def _bounds(query: Query) -> dict[str, float | None]:
    return {name: query.number(name) for name in BOUNDS}


def _drawn(
    library: Library, run: Run, facts: dict[str, Any], query: Query
) -> tuple[dict[str, Any], Grid]:
    """The volcano, and the features within the bounds."""
    import polars as pl

    id, effect = facts["comparison"], facts["effect"] or "d"
    tested = library.tested(run, id, effect)
    volcano, drawn = library.volcano(tested, id, effect, facts["alpha"])
    frame = tested.rows
    for name, bound in _bounds(query).items():
        what, is_lower = BOUNDS[name]
        column = pl.col(effect if what == "effect" else what)
        if bound is not None:
            frame = frame.filter(column >= bound if is_lower else column <= bound)

    def parts() -> Iterator[pl.DataFrame]:
        yield tested.named(frame.clear())
        for rows in frame.iter_slices(PART_ROWS):
            yield tested.named(rows)

    shown = tested.named(frame.head(MAX_ROWS))
    links, caption = {"address": feature_link(run.id)}, "Features within these bounds"
    grid = Grid("features", caption, shown, links, parts=parts, height=frame.height)
    named = min(drawn, charts.NAMED_POINTS)
    counts = {"tested": tested.rows.height, "drawn": drawn, "named": named}
    return {"volcano": volcano, **counts}, grid
