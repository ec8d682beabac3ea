"""Chooses the samples of each cluster for a rank test. Imported when a step runs: it needs NumPy.

A rank test compares whole distributions. The mean of twelve rounds spreads less than one round and
is seldom exactly zero, so that groups whose games differ in length differ in cluster means, though
no round does. Where the number of samples goes with the group, each cluster therefore enters with
equally many of its samples, drawn at random: as many as the smallest has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from toolkit.statistics.arrays import Floats, Ints
from toolkit.work import Work
from toolkit_stats.math.means import merged
from toolkit_stats.math.rank_sums import rank_spread
from toolkit_stats.samples.groups import Design

ALIKE = 0.2
"""Above this p, cluster sizes do not depend on the group, and every sample is used."""


@dataclass(frozen=True, eq=False)
class RankCells:
    """The rows that enter, the cluster of each, and how many of each cluster; None: all of them."""

    rows: Ints | None
    cells: Ints
    each: int

    def means(self, matrix: Any) -> Any:
        """The mean row of each cluster, over the samples that enter."""
        return merged(matrix if self.rows is None else matrix[self.rows], self.cells)

    def numbers(self, numbers: Floats) -> Floats:
        """The mean number of each cluster, over the samples that enter."""
        values = numbers if self.rows is None else numbers[self.rows]
        means: Floats = np.bincount(self.cells, weights=values) / np.bincount(self.cells)
        return means

    def describe(self) -> str:
        """A note after the test's name; empty where every sample is used."""
        if self.rows is None:
            return ""
        return f" ({self.each} sample{'s'[: self.each != 1]} of each cluster)"


def rank_cells(work: Work, design: Design, numbers: Floats | None = None) -> RankCells:
    """The samples that enter a rank test of groups, or of a number of each cluster."""
    sizes = np.bincount(design.cells)
    if not np.ptp(sizes) or _alike(sizes.astype(np.float64), design, numbers):
        return RankCells(None, design.cells, 0)
    size = int(sizes.min())
    drawn = work.rng("rank.cells").random(design.size)
    order = np.lexsort((drawn, design.cells))
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(design.size) - np.repeat(starts, sizes)
    rows = np.sort(order[rank < size])
    return RankCells(rows, design.cells[rows], size)


def _alike(sizes: Floats, design: Design, numbers: Floats | None) -> bool:
    """Whether cluster sizes are consistent with independence from the groups."""
    if numbers is not None and not np.ptp(numbers):
        return True
    if numbers is not None:
        return bool(spearmanr(sizes, numbers).pvalue > ALIKE)
    return rank_spread(rankdata(sizes), design.group_of_cell) > ALIKE
