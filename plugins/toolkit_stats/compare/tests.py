"""The tests behind the parts `compare.*`, each for the samples of one space. Imported when a step
runs: it needs NumPy.

Each is made once for a stage, from its work and its design, and is then called space by space with
the matrix of samples by features and the moments of each group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import skew

from toolkit.errors import DataError
from toolkit.statistics.arrays import Floats
from toolkit.work import Work
from toolkit_stats.compare.confirm import SelectedFeatures
from toolkit_stats.math import placements, rank_sums
from toolkit_stats.math import shuffle as _shuffle
from toolkit_stats.math.adjust import adjusted
from toolkit_stats.math.means import (
    Effects,
    Moments,
    anova,
    effects,
    merged,
    moments,
    pearson,
    slope,
    student,
    unpooled,
    welch,
)
from toolkit_stats.math.ranks import ranked, spearman
from toolkit_stats.samples import covariates as _covariates
from toolkit_stats.samples.groups import Design
from toolkit_stats.samples.rank_cells import rank_cells

Sides = Sequence[Moments]
SKEWED = 1.0
"""A number with more skewness than this is reported if Pearson's r is used."""
BLOCK = 8192
"""Columns that a rank test processes together."""


@dataclass(frozen=True, eq=False)
class Test:
    """One stage's test: its name for people, the effect that has the threshold, and the
    function.
    """

    name: str
    contrast: str
    effect: str
    least: float
    part: str
    run: Callable[[Any, Sides], Mapping[str, Floats]] = field(repr=False)
    """Gives statistics by name, `p` and the effect among them; a name that ends in `_adjusted`
    belongs to a second test.
    """
    adjusted: str = ""
    """The covariates of the second test, for people."""
    among: SelectedFeatures | None = field(default=None, repr=False)
    """The features of the family, where an earlier stage discovered them."""


def of_means(name: str) -> Callable[[Work, Design], Test]:
    """Welch's and Student's tests, and the adjusted one where the params name covariates."""

    def make(work: Work, design: Design) -> Test:
        model, spread = _covariates.model_of(work, design), work.params.spread

        def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
            a, b = sides
            tested = student(a, b) if name == "student" else welch(a, b, spread)
            plain = {
                **_effects(effects(a, b, tested.variance)),
                "t": tested.t,
                "df": tested.df,
                "p": tested.p,
            }
            if model is None:
                return plain
            result = adjusted(matrix, model, spread)
            return {
                **plain,
                **{f"{stat}_adjusted": getattr(result, stat) for stat in ("d", "t", "df", "p")},
            }

        return _two_groups(work, design, name, run, adjusted=_covariates.describe(work.params))

    return make


def of_ranks(work: Work, design: Design) -> Test:
    """Mann and Whitney's test of cluster means; within strata, van Elteren's."""
    cells = rank_cells(work, design)
    in_first, strata = design.group_of_cell == 0, _covariates.strata_of(work, design)
    ones, pairs = (
        [np.arange(int(side.sum())) for side in (in_first, ~in_first)],
        int(in_first.sum()) * int((~in_first).sum()),
    )
    parts = [strata == stratum for stratum in np.unique(strata)] if strata is not None else []

    def block(columns: Any) -> dict[str, Floats]:
        ranks = ranked(columns)
        tested, area = (
            rank_sums.mann_whitney(ranks, in_first),
            placements.interval(ranks, in_first, (ones[0], ones[1])),
        )
        statistics = {"u": tested.u, "rank_biserial": 2 * tested.u / pairs - 1}
        statistics |= {
            "rank_biserial_low": 2 * area.low - 1,
            "rank_biserial_high": 2 * area.high - 1,
        }
        within = [(ranked(columns[part]), in_first[part]) for part in parts]
        return {**statistics, "p": rank_sums.van_elteren(within) if within else tested.p}

    def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
        ranks = _by_block(cells.means(matrix), block)
        return {**_plain_effects(sides), **ranks}

    return _two_groups(work, design, "mann_whitney", run, details=cells.describe())


def of_area(work: Work, design: Design) -> Test:
    """AUROC over samples, its variance over clusters."""
    in_first = np.arange(design.size) < design.groups[0].end
    clusters = design.groups[0].clusters, design.groups[1].clusters

    def block(columns: Any) -> dict[str, Floats]:
        areas = placements.area(ranked(columns), in_first, clusters, work.params.spread)
        bounded = {"auroc": areas.auroc, "auroc_low": areas.low, "auroc_high": areas.high}
        return {**bounded, "t": areas.t, "df": areas.df, "p": areas.p}

    def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
        return {**_plain_effects(sides), **_by_block(matrix, block)}

    return _two_groups(work, design, "auroc", run)


def _by_block(matrix: Any, run: Callable[[Any], Mapping[str, Floats]]) -> dict[str, Floats]:
    """Run a rank test on blocks of columns whose entries stay in the processor's caches."""
    columns = matrix.tocsc()
    parts = [
        run(columns[:, start : start + BLOCK]) for start in range(0, max(matrix.shape[1], 1), BLOCK)
    ]
    return {stat: np.concatenate([part[stat] for part in parts]) for stat in parts[0]}


def of_shuffles(work: Work, design: Design) -> Test:
    """Cluster means with shuffled labels; the same shuffles for every feature of every space."""
    params, in_first = work.params, design.group_of_cell == 0
    strata = _covariates.strata_of(work, design)
    dealt = _shuffle.shuffles(
        in_first, params.permutations, strata, lambda number: work.rng("permutation", number)
    )
    if strata is not None and (dealt == in_first).all():
        raise DataError(
            f"within: each value of '{params.within}' has clusters of one group only, so that no "
            "label can be shuffled. Take a key within whose values both groups occur."
        )

    def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
        t, p = _shuffle.permuted(merged(matrix, design.cells), in_first, dealt)
        return {**_plain_effects(sides), "t": np.where(np.isfinite(t), t, np.nan), "p": p}

    shuffles = f" ({len(dealt)} shuffles)"
    return _two_groups(work, design, "permutation", run, shuffles=shuffles)


def of_trend(work: Work, design: Design, numbers: Floats) -> Test:
    """Correlation over cluster means."""
    params = work.params
    means = np.bincount(design.cells, weights=numbers) / np.bincount(design.cells)
    kept = rank_cells(work, design, means)
    if params.method == "pearson":
        _warn_of_skewness(work, means)
    of_cell = kept.numbers(numbers) if params.method == "spearman" else means

    def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
        ranks = params.method == "spearman"
        cells = kept.means(matrix) if ranks else merged(matrix, design.cells)
        r = (
            _by_block(cells, lambda part: {"r": spearman(ranked(part), of_cell)})["r"]
            if ranks
            else pearson(cells, of_cell)
        )
        trend = slope(r, of_cell, 1 + r**2 / 2 if ranks else 1.0)
        return {
            "r": trend.r,
            "r_low": trend.low,
            "r_high": trend.high,
            "t": trend.t,
            "p": trend.p,
        }

    return Test(
        params.method,
        f"trend of {params.by}",
        "r",
        params.min_abs_r,
        "compare.correlation",
        run,
    )


def _warn_of_skewness(work: Work, numbers: Floats) -> None:
    """Warn of a skewed number: a few extreme clusters decide Pearson's r of a feature that seldom
    fires.
    """
    skewness = float(skew(numbers))
    if abs(skewness) > SKEWED:
        text = (
            f"by: '{work.params.by}' has skewness {skewness:.1f} over {len(numbers)} clusters. "
            "Pearson's r then finds sparse features that do not follow it; `method: spearman` "
            "does not."
        )
        work.report.event("warning", text=text)


def of_spread(work: Work, design: Design) -> Test:
    """One-way analysis of variance of cluster means."""
    edges = np.searchsorted(design.group_of_cell, np.arange(len(design.groups) + 1))

    def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
        cells = merged(matrix, design.cells)
        parts = [cells[start:end] for start, end in pairwise(edges)]
        spreads = anova([moments(part, np.arange(part.shape[0])) for part in parts])
        return {"eta2": spreads.eta2, "f": spreads.f, "p": spreads.p}

    return _several(work, "anova", run)


def of_rank_spread(work: Work, design: Design) -> Test:
    """Kruskal and Wallis's test of cluster means; its eta² is that of the ranks."""
    cells = rank_cells(work, design)

    def block(columns: Any) -> dict[str, Floats]:
        h, p = rank_sums.kruskal(ranked(columns), design.group_of_cell)
        return {"eta2": h / (columns.shape[0] - 1), "h": h, "p": p}

    def run(matrix: Any, sides: Sides) -> dict[str, Floats]:
        return _by_block(cells.means(matrix), block)

    return _several(work, "kruskal", run, cells.describe())


def _two_groups(
    work: Work,
    design: Design,
    name: str,
    run: Callable[[Any, Sides], Mapping[str, Floats]],
    *,
    shuffles: str = "",
    adjusted: str = "",
    details: str = "",
) -> Test:
    a, b = design.groups
    within = getattr(work.params, "within", None) if not adjusted else None
    shown = f"{name}{shuffles}{f' within {within}' if within else ''}{details}"
    least = work.params.min_abs_d
    return Test(shown, f"{a.name} vs {b.name}", "d", least, f"compare.{name}", run, adjusted)


def _several(
    work: Work, name: str, run: Callable[[Any, Sides], Mapping[str, Floats]], shown: str = ""
) -> Test:
    contrast, least = f"groups of {work.params.by}", work.params.min_eta2
    return Test(f"{name}{shown}", contrast, "eta2", least, f"compare.{name}", run)


def _plain_effects(sides: Sides) -> dict[str, Floats]:
    """d with Welch's interval, for tests that are not about means: a screen uses the same d after
    every test.
    """
    a, b = sides
    return _effects(effects(a, b, unpooled(a, b)[0]))


def _effects(effects: Effects) -> dict[str, Floats]:
    return {"d": effects.d, "d_low": effects.d_low, "d_high": effects.d_high, "g": effects.g}
