"""The features of a run, ranked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit._view.grid import Grid
from toolkit._view.library import Library
from toolkit._view.page import Page
from toolkit._view.pages.links import feature_link, run_href
from toolkit._view.pages.run_facts import comparisons_of, has_many_statistics
from toolkit._view.request import Query

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run


def features(library: Library, query: Query, name: str) -> Page:
    """The features of a run, ranked as on the command line; of a large run that is not ranked yet,
    they are loaded later.
    """
    from toolkit.features.addresses import layer_of

    opened = library.run(name)
    layer, stage, by = query.integer("layer"), query.text("stage"), query.text("by")
    significant = query.flag("significant")
    layers = sorted({number for row in opened.spaces if (number := layer_of(row)) is not None})
    chosen = {"layer": layer, "stage": stage, "by": by, "significant": significant}
    facts = {
        "layers": layers,
        "stages": sorted(opened.stages("features")),
        "chosen": chosen,
        "comparisons": comparisons_of(opened),
    }
    is_quick = library.is_ranked(opened, by) or not has_many_statistics(opened)
    if is_quick or query.downloads:
        grids = [_ranked_features(library, opened, query)]
    else:
        grids = []
        flag = "1" if significant else None
        later = {"layer": layer, "stage": stage, "by": by, "significant": flag}
        facts["ranking"] = run_href(name, "ranking", **later)
    return Page("features.html", f"Features of {name}", facts, grids, name)


def ranking(library: Library, query: Query, name: str) -> Page:
    """The ranked features of a run: a part of their page that is loaded later if ranking them
    takes longer.
    """
    with library.lock:
        opened = library.run(name)
    grid = _ranked_features(library, opened, query)
    return Page("ranking.html", f"Features of {name}", {}, [grid], name)


def _ranked_features(library: Library, run: Run, query: Query) -> Grid:
    from toolkit._query.ranking import why_none

    layer, stage, by = query.integer("layer"), query.text("stage"), query.text("by")
    significant = query.flag("significant")
    frame = library.features(run, layer, stage, by, significant)
    ranked = library.ranked(run, layer, stage, by)
    lines = ranked.significant() if significant else ranked

    def parts() -> Iterator[pl.DataFrame]:
        from toolkit._query.ranked_files import ranked_parts

        return ranked_parts(run, ranked, lines, stage)

    links = {"address": feature_link(run.id)}
    why = "" if lines.height else why_none(run, ranked, stage, layer is not None)
    caption = f"Features by {by}" if by else "Features, most certain first"
    return Grid("features", caption, frame, links, why, parts, lines.height)
