"""The difference of two runs: how often and how strongly each feature fired in each.

Only what both runs looked at is compared: a space that one run never extracted has no rates, and a
run that kept every token has other rates than one that kept the last token of each sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from toolkit_store.query.run_view import RunView

COLUMNS = (
    *("space", "run_a", "run_b", "feature", "count_a", "max_a", "rate_a"),
    *("count_b", "max_b", "rate_b", "change"),
)
"""The columns of `diff_views`."""


@dataclass(frozen=True)
class Common:
    """The spaces in which two runs can be compared, and for each other space why not."""

    spaces: list[str]
    left_out: dict[str, str]


def common_spaces(first: RunView, second: RunView, spaces: Iterable[str]) -> Common:
    """Which of these spaces both runs looked at, at the same kind of positions."""
    chosen = list(spaces)
    for view in (first, second):
        view.prefetch(chosen)
    reasons = {space: _why_not(first, second, space) for space in chosen}
    return Common(
        spaces=[space for space, reason in reasons.items() if not reason],
        left_out={space: reason for space, reason in reasons.items() if reason},
    )


def _why_not(first: RunView, second: RunView, space: str) -> str:
    """Why two runs cannot be compared in a space; empty if they can."""
    seen = [view.looked_at(space) for view in (first, second)]
    for view, (samples, _) in zip((first, second), seen, strict=True):
        if not samples:
            return f"run {view.id} has no samples there"
    several = [places > samples for samples, places in seen]
    if several[0] != several[1]:
        many, single = (first, second) if several[0] else (second, first)
        return f"run {many.id} kept several tokens of each sample, run {single.id} one"
    selectors = [_selectors(view) for view in (first, second)]
    if all(len(selector) == 1 for selector in selectors) and selectors[0] != selectors[1]:
        return "; ".join(
            f"run {view.id} kept the tokens 'at: {selector.pop()}'"
            for view, selector in zip((first, second), selectors, strict=True)
        )
    return ""


def _selectors(view: RunView) -> set[str]:
    """Which tokens the extractions of a run kept, as their specs say."""
    materials = [json.loads(step.material) for step in view.steps if step.tables.get("activations")]
    return {
        json.dumps(material["params"]["at"], sort_keys=True)
        for material in materials
        if "at" in material.get("params", {})
    }


def diff_views(
    first: RunView, second: RunView, spaces: Sequence[str], k: int | None = None
) -> pl.DataFrame:
    """Each feature that fired in these spaces, the largest change of rate first: counts, rates and
    maxima of `a` and `b`; the first `k` if that is given.

    A feature is compared with itself: the spaces have to be the same ones in both, and looked at in
    both (`common_spaces`).
    """
    import polars as pl

    names = sorted(spaces)
    sides = []
    for side, view in zip("ab", (first, second), strict=True):
        view.prefetch(names)
        fired = pl.concat([_fired(view, space, number) for number, space in enumerate(names)])
        sides.append(fired.rename({name: f"{name}_{side}" for name in ("count", "max", "rate")}))
    both = sides[0].join(sides[1], on=["number", "feature"], how="full", coalesce=True)
    counts = ("count_a", "count_b", "rate_a", "rate_b")
    changed = both.with_columns(pl.col(counts).fill_null(0)).with_columns(
        change=pl.col("rate_b") - pl.col("rate_a")
    )
    order = [pl.col("change").abs(), "number", "feature"]
    if k is not None:
        changed = changed.top_k(k, by=order, reverse=[False, True, True])
    ordered = changed.sort(order, descending=[True, False, False])
    return ordered.select(
        pl.Series(names, dtype=pl.String).gather(ordered["number"]).alias("space"),
        pl.lit(first.id).alias("run_a"),
        pl.lit(second.id).alias("run_b"),
        pl.exclude("number"),
    )


def _fired(view: RunView, space: str, number: int) -> pl.DataFrame:
    """How often and how strongly each feature of a space fired, and the space's number."""
    import polars as pl

    samples, _ = view.looked_at(space)
    return view.directory(space).select(
        pl.lit(number, pl.UInt32).alias("number"),
        "feature",
        "count",
        "max",
        rate=pl.col("count") / samples,
    )
