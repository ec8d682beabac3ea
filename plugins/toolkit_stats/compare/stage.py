"""The stages `compare.*`: a design from the samples, a test from the params, one core for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.work import Rows, Work

if TYPE_CHECKING:
    from toolkit_stats.compare.tests import Test
    from toolkit_stats.samples.groups import Design


def compare_welch(work: Work) -> Rows:
    """Two groups by means, each with its own spread."""
    from toolkit_stats.compare.tests import of_means

    return _groups_compared(work, of_means("welch"))


def compare_student(work: Work) -> Rows:
    """Two groups by means, with one spread."""
    from toolkit_stats.compare.tests import of_means

    return _groups_compared(work, of_means("student"))


def compare_mann_whitney(work: Work) -> Rows:
    """Two groups by the ranks of cluster means."""
    from toolkit_stats.compare.tests import of_ranks

    return _groups_compared(work, of_ranks)


def compare_auroc(work: Work) -> Rows:
    """Two groups by how well a feature tells their samples apart."""
    from toolkit_stats.compare.tests import of_area

    return _groups_compared(work, of_area)


def compare_permutation(work: Work) -> Rows:
    """Two groups by permutation of their labels."""
    from toolkit_stats.compare.tests import of_shuffles

    return _groups_compared(work, of_shuffles)


def compare_anova(work: Work) -> Rows:
    """Several groups by means."""
    from toolkit_stats.compare.tests import of_spread

    return _groups_compared(work, of_spread)


def compare_kruskal(work: Work) -> Rows:
    """Several groups by ranks."""
    from toolkit_stats.compare.tests import of_rank_spread

    return _groups_compared(work, of_rank_spread)


def compare_correlation(work: Work) -> Rows:
    """A number against every feature."""
    from toolkit_stats.compare.run_comparison import compare, measured
    from toolkit_stats.compare.tests import of_trend
    from toolkit_stats.samples.groups import trend_design

    design, numbers = trend_design(work, measured(work))
    yield from compare(work, design, of_trend(work, design, numbers))


def _groups_compared(work: Work, make: Callable[[Work, Design], Test]) -> Rows:
    from toolkit_stats.compare.run_comparison import compare, measured
    from toolkit_stats.samples.groups import group_design

    design = group_design(work, measured(work))
    yield from compare(work, design, make(work, design))
