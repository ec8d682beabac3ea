"""Builds the rows of table `features` that a comparison writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from toolkit.statistics.arrays import Bools, Floats
from toolkit.tables import arrow_schema
from toolkit_stats.compare.tests import Test
from toolkit_stats.math.duplicates import Twin
from toolkit_stats.math.means import Moments
from toolkit_stats.samples.groups import Design
from toolkit_stats.samples.params import Compare

ALWAYS = ("d", "r", "eta2", "p", "auroc", "rank_biserial")
"""Statistics of every feature of the family that fired."""


@dataclass(frozen=True, eq=False)
class SpaceResult:
    """One space: its features in the family that fired, the moments of each group, and the test's
    statistics.
    """

    space: str
    facts: Mapping[str, Any]
    features: npt.NDArray[np.int64]
    family: int
    sides: Sequence[Moments]
    statistics: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Corrected:
    """One space's test, or its adjusted one, after correction. `discovered` goes by q alone,
    `significant` also by the effect.
    """

    q: Floats
    discovered: npt.NDArray[np.bool_]
    significant: npt.NDArray[np.bool_]


class FeatureRows:
    """Builds rows. Columns of repeated words are made once, as long as the longest space, and cut
    for each block.
    """

    def __init__(self, design: Design, test: Test, params: Compare, comparison: str) -> None:
        self._design, self._test, self._params = design, test, params
        self._comparison = comparison
        self._words: dict[str | None, Any] = {}
        self._schema = arrow_schema("features")

    def table(
        self,
        tested: SpaceResult,
        corrected: Corrected,
        adjusted: Corrected | None,
        twins: Sequence[Twin],
    ) -> pa.Table:
        """All rows of a space, one block per statistic."""
        blocks = [
            *self._of_groups(tested, corrected.discovered),
            *self._of_contrast(tested, corrected, adjusted),
            *self._of_twins(tested.space, twins),
        ]
        return pa.concat_tables(blocks)

    def _of_groups(self, tested: SpaceResult, discovered: Bools) -> Iterator[pa.Table]:
        """The mean and density of each group and, for discoveries, the spread."""
        detailed = None if self._params.details == "all" else discovered
        for group, side in zip(self._design.groups, tested.sides, strict=True):
            spread = np.sqrt(side.squares / (side.samples - 1))
            yield self._block(tested, "mean", group.name, side.mean)
            yield self._block(tested, "density", group.name, side.fired / side.samples)
            yield self._block(tested, "std", group.name, spread, detailed)
        fired = np.sum([side.fired for side in tested.sides], axis=0)
        yield self._block(tested, "fired", "", fired.astype(np.float64))

    def _of_contrast(
        self, tested: SpaceResult, corrected: Corrected, adjusted: Corrected | None
    ) -> Iterator[pa.Table]:
        """The statistics of the test."""
        contrast, discovered = self._test.contrast, corrected.discovered
        for stat, numbers in tested.statistics.items():
            every = self._params.details == "all" or stat.removesuffix("_adjusted") in ALWAYS
            yield self._block(tested, stat, contrast, numbers, None if every else discovered)
        if self._test.among is not None:
            chosen = self._test.among.effect(tested.space, tested.features)
            yield self._block(tested, f"{self._test.effect}_select", contrast, chosen)
        yield self._block(tested, "q", contrast, corrected.q)
        significant = corrected.significant.astype(np.float64)
        yield self._block(tested, "significant", contrast, significant)
        if adjusted is not None:
            significant = adjusted.significant.astype(np.float64)
            yield self._block(tested, "q_adjusted", contrast, adjusted.q)
            yield self._block(tested, "significant_adjusted", contrast, significant)
        yield self._block(tested, "discovered", contrast, np.ones(len(tested.features)), discovered)

    def _block(
        self, tested: SpaceResult, stat: str, group: str, numbers: Floats, kept: Bools | None = None
    ) -> pa.Table:
        """Rows of a statistic for all features, or for those of `kept`."""
        features = tested.features if kept is None else tested.features[kept]
        numbers = numbers if kept is None else numbers[kept]
        columns = {
            "space": self._repeated(tested.space, len(features)),
            "feature": pa.array(features.astype(np.uint32)),
            "stat": self._repeated(stat, len(features)),
            "group": self._repeated(group, len(features)),
            "number": pa.array(numbers, mask=np.isnan(numbers)),
            "text": self._repeated(None, len(features)),
            "comparison": self._repeated(self._comparison, len(features)),
        }
        return pa.table(columns, schema=self._schema)

    def _repeated(self, word: str | None, count: int) -> Any:
        word_id = self._words.get(word)
        if word_id is None or len(word_id) < count:
            word_id = self._words[word] = pa.repeat(pa.scalar(word, pa.string()), count)
        return word_id[:count]

    def _of_twins(self, space: str, twins: Sequence[Twin]) -> list[pa.Table]:
        """Rows `same_as`: the twin's feature as the number, its space as the text."""
        if not twins:
            return []
        fixed = {
            "space": space,
            "stat": "same_as",
            "group": self._test.contrast,
            "comparison": self._comparison,
        }
        rows = [
            {**fixed, "feature": feature, "number": float(number), "text": of}
            for feature, of, number in sorted(twins)
        ]
        return [pa.Table.from_pylist(rows, schema=self._schema)]
