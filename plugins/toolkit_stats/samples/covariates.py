"""What a comparison adjusts for: covariates of samples as numbers, and strata of cells.

Imported when a step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError
from toolkit.statistics.arrays import Floats
from toolkit.work import Work
from toolkit_stats.math.adjust import CovariateModel
from toolkit_stats.samples.groups import Design, metadata, words_of
from toolkit_stats.samples.params import Means


def model_of(work: Work, design: Design) -> CovariateModel | None:
    """The model of the params, if they name covariates."""
    params = work.params
    if not (params.covariates or params.within):
        return None
    blocks = [_numbers_or_levels(work, key, design) for key in params.covariates]
    blocks += (
        [_levels(_values(words_of(work, params.within, "within"), design, params.within, "within"))]
        if params.within
        else []
    )
    return model(design, np.column_stack(blocks), describe(params))


def describe(params: Means) -> str:
    """The covariates that are adjusted for, for people; empty without any."""
    return "; ".join(
        [
            *([f"given {', '.join(params.covariates)}"] if params.covariates else []),
            *([f"within {params.within}"] if params.within else []),
        ]
    )


def model(design: Design, covariates: Floats, names: str) -> CovariateModel:
    """The model of two groups; one that leaves nothing to test is refused."""
    group = (np.arange(design.size) < design.groups[0].end).astype(np.float64)
    fitted = CovariateModel.of(group, covariates, design.joined)
    if fitted.covariates_separate_groups():
        a, b = (compared.name for compared in design.groups)
        raise DataError(
            f"covariates: {names} separate '{a}' from '{b}' perfectly among the {design.size} "
            "samples compared, so that nothing is left to compare. Leave out the covariate that "
            "stands for the group."
        )
    if fitted.clusters <= fitted.rank:
        raise DataError(
            f"covariates: {names} take {fitted.rank} coefficients, and there are "
            f"{fitted.clusters} independent clusters; a test needs more clusters than "
            "coefficients. Take fewer covariates, or numbers in place of words."
        )
    return fitted


def strata_of(work: Work, design: Design) -> npt.NDArray[np.int64] | None:
    """The stratum of each cell, numbered from 0, if the params name one. A cell in several strata
    is refused.
    """
    within = work.params.within
    if within is None:
        return None
    words = _values(words_of(work, within, "within"), design, within, "within")
    codes = np.unique(words, return_inverse=True)[1]
    of_cell = np.zeros(len(design.group_of_cell), dtype=np.int64)
    of_cell[design.cells] = codes
    for index in np.flatnonzero(of_cell[design.cells] != codes)[:1]:
        raise DataError(
            f"within: the cluster of sample '{design.samples[index]}' has samples with several "
            f"values of '{within}'; a cluster is one piece of evidence and must lie within one of "
            "them. Take a key that is the same in a unit, or adjust means for it: compare.welch "
            f"with `within: {within}`."
        )
    return of_cell


def _numbers_or_levels(work: Work, key: str, design: Design) -> Floats:
    compared = set(design.samples)
    rows = [row for row in metadata(work, key, "covariates") if row["sample"] in compared]
    if any(row["number"] is None for row in rows):
        return _levels(_values(words_of(work, key, "covariates"), design, key, "covariates"))
    values = np.array(
        _values({row["sample"]: row["number"] for row in rows}, design, key, "covariates")
    )
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"covariates: '{key}' is {values[bad]} in sample '{design.samples[bad]}'; an "
            "adjustment needs finite numbers."
        )
    spread = values.std()
    return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0))[:, None]


def _values(results: dict[str, Any], design: Design, key: str, param: str) -> list[Any]:
    missing = [sample for sample in design.samples if sample not in results]
    if missing:
        raise DataError(
            f"{param}: {len(missing)} of the {design.size} samples compared have no '{key}' (the "
            f"first is '{missing[0]}'). Take a key that all of them have."
        )
    return [results[sample] for sample in design.samples]


def _levels(words: Sequence[str]) -> Floats:
    """An indicator for each value but the first."""
    names, codes = np.unique(words, return_inverse=True)
    return np.asarray(codes[:, None] == np.arange(1, len(names)), dtype=np.float64)
