"""How two runs differ: how often and how strongly each feature fired in one and in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from toolkit_store.query.features import RunView


def diff_views(first: RunView, second: RunView, spaces: Sequence[str]) -> pl.DataFrame:
    """Each feature that fired in these spaces, the largest change of rate first: counts, rates and
    maxima of `a` and `b`.

    A feature is compared with itself: the spaces have to be the same ones in both.
    """
    import polars as pl

    sides = []
    for side, view in zip("ab", (first, second), strict=True):
        view.look_up(spaces)
        fired = pl.concat([_fired(view, space) for space in spaces])
        sides.append(fired.rename({name: f"{name}_{side}" for name in ("count", "max", "rate")}))
    both = sides[0].join(sides[1], on=["space", "feature"], how="full", coalesce=True)
    filled = both.with_columns(pl.col("count_a", "count_b", "rate_a", "rate_b").fill_null(0))
    named = filled.select(
        "space",
        pl.lit(first.id).alias("run_a"),
        pl.lit(second.id).alias("run_b"),
        pl.exclude("space"),
        change=pl.col("rate_b") - pl.col("rate_a"),
    )
    return named.sort([pl.col("change").abs(), "space", "feature"], descending=[True, False, False])


def _fired(view: RunView, space: str) -> pl.DataFrame:
    import polars as pl

    named = pl.lit(space).alias("space")
    return view.directory(space).select(
        named, "feature", "count", "max", rate=pl.col("count") / max(view.samples_in(space), 1)
    )
