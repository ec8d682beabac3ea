"""The core of every comparison: each space tested, one correction over the declared family, one row
per feature and statistic.

Imported when a step runs: it needs NumPy and pyarrow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from math import ceil
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from toolkit.activations.kept_positions import Activations, recorded
from toolkit.activations.matrix import Fired, read_space
from toolkit.activations.rows import BySpace, described_spaces
from toolkit.features.comparisons import Comparison, addresses_of
from toolkit.statistics.arrays import Floats
from toolkit.statistics.corrections import CORRECTIONS
from toolkit.work import Rows, Work
from toolkit_stats.compare.confirm import SelectedFeatures, candidates, described_only
from toolkit_stats.compare.feature_rows import Corrected, FeatureRows, SpaceResult
from toolkit_stats.compare.tests import Test
from toolkit_stats.math.duplicates import Twin, twins
from toolkit_stats.math.means import moments
from toolkit_stats.samples.groups import Design
from toolkit_stats.samples.params import Compare

T = TypeVar("T")
R = TypeVar("R")
SPREADS_APART, MEANS_ALIKE = 3.0, 0.2
"""A rank test is doubtful where the spreads differ by this factor and |d| is below this."""
THREADS = 4
"""At most this many spaces are processed at once, one per processor: each holds its activations in
memory.
"""


def compare(work: Work, design: Design, test: Test) -> Rows:
    """Test each feature of each space; yields one row per feature and statistic."""
    test = replace(test, among=candidates(work, test.contrast, test.effect))
    spaces: Mapping[str, Mapping[str, Any]] = described(work)
    if test.among is not None:
        spaces = described_only(test.among, spaces, addresses_of(work.inputs))
    yield from rows_of(work, design, test, list(_tested(work, design, test, spaces)))


def rows_of(work: Work, design: Design, test: Test, tested: Sequence[SpaceResult]) -> Rows:
    """Correct over all tests, and yield the rows space by space."""
    comparison = recorded_comparison(work, design, test, tested)
    yield "comparisons", comparison.table()
    if not tested:
        return
    plain = _corrected(tested, test, work.params, "")
    with_covariates = (
        _corrected(tested, test, work.params, "_adjusted")
        if test.adjusted
        else [None] * len(tested)
    )
    warn_of_spreads(work, test, tested, plain)
    alike = _twins(work, design, test, tested, plain)
    writer = FeatureRows(design, test, work.params, comparison.id)
    for space, plain_result, adjusted_result, twin_of in zip(
        tested, plain, with_covariates, alike, strict=True
    ):
        yield "features", writer.table(space, plain_result, adjusted_result, twin_of)


def warn_of_spreads(
    work: Work, test: Test, tested: Sequence[SpaceResult], corrected: Sequence[Corrected]
) -> None:
    """Warn of discoveries of a rank test that differ in spread but hardly in mean: a rank test
    cannot tell these apart.
    """
    if test.part != "compare.mann_whitney":
        return
    count = 0
    for space, significant in zip(tested, corrected, strict=True):
        spreads = [np.sqrt(side.squares / (side.samples - 1)) for side in space.sides]
        apart = np.maximum(*spreads) >= SPREADS_APART * np.minimum(*spreads)
        same_mean = np.abs(space.statistics["d"]) < MEANS_ALIKE
        count += int((significant.discovered & apart & same_mean).sum())
    if count:
        work.report.event(
            "warning",
            text=f"{count} of the features that {test.part} calls different have means that hardly "
            f"differ (|d| < {MEANS_ALIKE:g}) and spreads that differ {SPREADS_APART:g} times or "
            "more. A rank test responds to both; compare.welch asks about means alone.",
        )


def recorded_comparison(
    work: Work, design: Design, test: Test, tested: Sequence[SpaceResult]
) -> Comparison:
    """The row of table `comparisons`."""
    params = work.params
    return Comparison(
        part=test.part,
        test=test.name,
        by=params.by,
        effect=test.effect,
        groups=tuple(group.compared() for group in design.groups),
        half=params.half,
        positions=recorded(params.at),
        unit=params.unit,
        cluster=params.cluster,
        family=params.family,
        tested={by_space.space: by_space.family for by_space in tested},
        addresses={by_space.space: str(by_space.facts.get("address", "")) for by_space in tested},
        min_count=params.min_count,
        min_density=params.min_density,
        correction=params.correct,
        alpha=params.alpha,
        min_effect=test.least,
        adjusted=test.adjusted,
        seed=work.seed,
    ).with_id(work.step)


def measured(work: Work) -> frozenset[str] | None:
    """The samples that have a row in every space with activations, if the params leave out the
    others; None for all.
    """
    if work.params.missing == "refuse":
        return None
    return Activations(work.inputs, work.params.at).measured


def described(work: Work) -> dict[str, dict[str, Any]]:
    """Every described space, even if nothing fired in it: its features are part of the family."""
    active = BySpace(work.inputs.read("activations")).spaces
    rows = described_spaces(work.inputs.read("spaces"), active)
    return dict(sorted(rows.items()))


# --- tests ----------------------------------------------------------------------------------------


def _tested(
    work: Work, design: Design, test: Test, spaces: Mapping[str, Mapping[str, Any]]
) -> Iterator[SpaceResult]:
    activations = Activations(work.inputs, work.params.at)
    activations.check_looked(design.samples)
    work.report.phase("compute")

    def test_space(space: str) -> SpaceResult:
        fired, family = _read(work, design, activations, space, spaces[space], test.among)
        return tested_space(space, spaces[space], fired, family, design, test)

    for done, tested in enumerate(at_once(test_space, list(spaces))):
        yield tested
        work.report.progress(done + 1, len(spaces))


def at_once(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Apply a function to spaces, a few at once; results come in order."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


def tested_space(
    space: str, facts: Mapping[str, Any], fired: Fired, family: int, design: Design, test: Test
) -> SpaceResult:
    """The moments of each group, and the test."""
    sides = [
        moments(fired.matrix[group.start : group.end], group.clusters) for group in design.groups
    ]
    return SpaceResult(space, facts, fired.features, family, sides, test.run(fired.matrix, sides))


def _read(
    work: Work,
    design: Design,
    activations: Activations,
    space: str,
    facts: Mapping[str, Any],
    among: SelectedFeatures | None,
) -> tuple[Fired, int]:
    """The activations of the features of the family that fired, and the size of the family."""
    named = f"{space} ({facts['address']})"
    rows = activations.of(space, design.samples, named)
    fired = read_space(rows, design.samples, facts["width"], work.params.pool, named)
    if among is None:
        return in_family(fired, facts["width"], work.params)
    features = among.of(space)
    return in_family(
        _columns_of(fired, np.flatnonzero(np.isin(fired.features, features))),
        len(features),
        work.params,
    )


def in_family(fired: Fired, width: int, params: Compare) -> tuple[Fired, int]:
    """Which features are in the family, decided without looking at the groups."""
    least = fewest(params, fired.matrix.shape[0])
    if not least:
        return fired, width
    keep = np.flatnonzero(np.bincount(fired.matrix.indices, minlength=len(fired.features)) >= least)
    return _columns_of(fired, keep), len(keep)


def _columns_of(fired: Fired, columns: npt.NDArray[np.int64]) -> Fired:
    return (
        fired
        if len(columns) == len(fired.features)
        else Fired(fired.features[columns], fired.matrix[:, columns])
    )


def fewest(params: Compare, samples: int) -> int:
    """The fewest samples in which a feature of the family fired."""
    return max(params.min_count, ceil(params.min_density * samples - 1e-9))


# --- corrections ----------------------------------------------------------------------------------


def _corrected(
    tested: Sequence[SpaceResult], test: Test, params: Compare, suffix: str
) -> list[Corrected]:
    correct, p = CORRECTIONS[params.correct], [_counted(space, test, suffix) for space in tested]
    if params.family == "space":
        q = [correct(values, space.family) for values, space in zip(p, tested, strict=True)]
    else:
        joint = correct(np.concatenate(p), sum(space.family for space in tested))
        q = np.split(joint, np.cumsum([len(values) for values in p])[:-1])
    results = []
    for space, values in zip(tested, q, strict=True):
        discovered = values <= params.alpha
        large = np.abs(space.statistics[f"{test.effect}{suffix}"]) >= test.least
        results.append(Corrected(values, discovered, discovered & large))
    return results


def _counted(tested: SpaceResult, test: Test, suffix: str) -> Floats:
    """The p of each feature for the correction: 1 where the effect has the opposite sign of the one
    to confirm.
    """
    p = tested.statistics[f"p{suffix}"]
    if test.among is None:
        return p
    return np.where(
        tested.statistics[f"{test.effect}{suffix}"]
        * test.among.effect(tested.space, tested.features)
        < 0,
        1.0,
        p,
    )


# --- duplicates in several SAEs of a site ---------------------------------------------------------


def _twins(
    work: Work,
    design: Design,
    test: Test,
    tested: Sequence[SpaceResult],
    corrected: Sequence[Corrected],
) -> list[list[Twin]]:
    """By space, the discoveries that duplicate another discovery at their site."""

    activations = cache(lambda: Activations(work.inputs, work.params.at))

    def columns(index: int) -> Any:
        fired, _ = _read(
            work, design, activations(), tested[index].space, tested[index].facts, test.among
        )
        return fired.matrix[:, np.flatnonzero(corrected[index].discovered)]

    features = [
        space.features[result.discovered] for space, result in zip(tested, corrected, strict=True)
    ]
    order = [
        np.stack([~result.significant, result.q])[:, result.discovered] for result in corrected
    ]
    return twins([space.facts for space in tested], features, order, columns)
