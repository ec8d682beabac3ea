"""Adjusted comparison of two groups: least squares on the group and covariates, with cluster-robust
errors.

Imported when a step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import stdtr

from toolkit.arrays import Floats
from toolkit.errors import DataError
from toolkit.work import Work
from toolkit_stats.math.means import Spreads, moments_of
from toolkit_stats.samples.groups import Design, metadata, words_of

TOLD_APART = 1e-8
"""If covariates leave less than this share of the group indicator unexplained, they are the groups
themselves.
"""


@dataclass(frozen=True)
class Adjusted:
    """The group's coefficient, by column, as d (in residual standard deviations) and as a test."""

    d: Floats
    t: Floats
    df: Floats
    p: Floats


@dataclass(frozen=True, eq=False)
class CovariateModel:
    """The part of the model that does not depend on the feature. `group_residual` is the residual
    of the first group's indicator on the covariates.
    """

    names: str
    regressors: Floats  # the group first, then a constant and the covariates
    inverse: Floats
    group_residual: Floats
    rank: int
    clusters: int
    weighted: Any  # clusters by samples: `group_residual` in the place of each member
    crossed: Floats  # clusters by regressors: the weighted sums of the regressors
    weight: Floats  # of each cluster: the sum of squares of its members' `group_residual`
    df: float  # what the guarded test has


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
    names = ", ".join(params.covariates)
    reasons = "; ".join(
        [
            *([f"given {names}"] if names else []),
            *([f"within {params.within}"] if params.within else []),
        ]
    )
    return model(design, np.column_stack(blocks), reasons)


def model(design: Design, covariates: Floats, names: str) -> CovariateModel:
    """Partial the covariates out of the group's indicator, once for all features."""
    group = (np.arange(design.size) < design.groups[0].end).astype(np.float64)
    others = np.column_stack([np.ones(design.size), covariates])
    residual = group - others @ np.linalg.lstsq(others, group, rcond=None)[0]
    if (residual**2).sum() < TOLD_APART * ((group - group.mean()) ** 2).sum():
        a, b = (compared.name for compared in design.groups)
        raise DataError(
            f"covariates: {names} separate '{a}' from '{b}' perfectly among the {design.size} "
            "samples compared, so that nothing is left to compare. Leave out the covariate that "
            "stands for the group."
        )
    regressors = np.column_stack([group, others])
    rank, clusters = int(np.linalg.matrix_rank(regressors)), int(design.joined.max()) + 1
    if clusters <= rank:
        raise DataError(
            f"covariates: {names} take {rank} coefficients, and there are {clusters} independent "
            "clusters; a test needs more clusters than coefficients. Take fewer covariates, or "
            "numbers in place of words."
        )
    weighted = sparse.csr_array(
        (residual, (design.joined, np.arange(design.size))), shape=(clusters, design.size)
    )
    inverse = np.linalg.pinv(regressors.T @ regressors)
    weight: Floats = np.bincount(design.joined, weights=residual**2, minlength=clusters).astype(
        np.float64
    )
    df = _guarded_df(weight, clusters, rank)
    return CovariateModel(
        names,
        regressors,
        inverse,
        residual,
        rank,
        clusters,
        weighted,
        np.asarray(weighted @ regressors),
        weight,
        df,
    )


def _guarded_df(weight: Floats, clusters: int, rank: int) -> float:
    """Degrees of freedom when few clusters make most of the coefficient: the effective number of
    clusters of equal weight, less one, less one per covariate.
    """
    effective = float(weight.sum() ** 2 / (weight**2).sum()) - 1.0
    return min(effective * (clusters - rank) / (clusters - 2), float(clusters - rank))


def adjusted(matrix: Any, model: CovariateModel, spread: Spreads = "guarded") -> Adjusted:
    """The test of each column of a CSR matrix, without a dense copy.

    Since the regressors include a constant, columns can be centred, which avoids cancellation.
    """
    samples, columns = matrix.shape
    plain = moments_of(matrix.indices.astype(np.intp), matrix.data, samples, columns)
    cross = np.asarray((matrix.T @ model.regressors).T) - np.outer(
        model.regressors.sum(axis=0), plain.mean
    )
    coefficients = model.inverse @ cross
    residual = _cleared(plain.squares - (coefficients * cross).sum(axis=0), plain.squares)
    scale = model.clusters / (model.clusters - 1) * (samples - 1) / (samples - model.rank)
    variance = scale * _meat(matrix, plain.mean, coefficients, model) / model.weight.sum() ** 2
    if spread == "guarded":
        variance = np.maximum(variance, _pooled(matrix, plain.mean, coefficients, model))
    df = model.df if spread == "guarded" else float(model.clusters - model.rank)
    return _tested(
        coefficients[0],
        np.where(residual > 0, variance, 0.0),
        residual / (samples - model.rank),
        df,
    )


def _pooled(matrix: Any, mean: Floats, coefficients: Floats, model: CovariateModel) -> Floats:
    """The variance of the coefficient if residuals of all clusters have the same variance."""
    heavy = model.weight > TOLD_APART * model.weight.max()
    by = 1.0 / np.sqrt(model.weight[heavy])
    alike = replace(
        model,
        weighted=sparse.diags_array(by) @ model.weighted[heavy],
        crossed=by[:, None] * model.crossed[heavy],
    )
    within: Floats = _meat(matrix, mean, coefficients, alike) / max(len(by) - model.rank, 1)
    return within / float(model.weight.sum())


def _meat(matrix: Any, mean: Floats, coefficients: Floats, model: CovariateModel) -> Floats:
    """The sum over clusters of the squared weighted sums of their residuals, by column."""
    raw, mixed = _scores(matrix, mean, model)
    crossed = (coefficients * (model.crossed.T @ model.crossed @ coefficients)).sum(axis=0)
    return _cleared(raw - 2 * (coefficients * mixed).sum(axis=0) + crossed, raw)


def _scores(matrix: Any, mean: Floats, model: CovariateModel) -> tuple[Floats, Floats]:
    """The scores of clusters before the fit: squares by column, and products with the
    regressors.
    """
    scores, totals = (model.weighted @ matrix).tocsr(), np.asarray(model.weighted.sum(axis=1))
    column, of_cluster = scores.indices.astype(np.intp), np.repeat(totals, np.diff(scores.indptr))
    stored = np.bincount(
        column, weights=(scores.data - mean[column] * of_cluster) ** 2, minlength=len(mean)
    )
    silent = (totals**2).sum() - np.bincount(column, weights=of_cluster**2, minlength=len(mean))
    mixed = np.asarray((scores.T @ model.crossed).T) - np.outer(model.crossed.T @ totals, mean)
    return stored + _cleared(silent, np.full_like(silent, (totals**2).sum())) * mean**2, mixed


def _cleared(number: Floats, of: Floats) -> Floats:
    """Set to zero what is only rounding error of the sums."""
    return np.where(number > 1e-12 * of, number, 0.0)


def _tested(difference: Floats, variance: Floats, residual: Floats, df: float) -> Adjusted:
    known = variance > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(known, difference / np.sqrt(variance), np.nan)
        d = np.where(residual > 0, difference / np.sqrt(residual), np.nan)
    p = np.where(known, 2.0 * stdtr(df, -np.abs(t)), 1.0)
    return Adjusted(d=d, t=t, df=np.where(known, df, np.nan), p=p)


# --- covariates -----------------------------------------------------------------------------------


def strata_of(work: Work, design: Design) -> npt.NDArray[np.int64] | None:
    """The stratum of each cell, numbered from 0, if the params name one. A cell lies in one
    stratum, or its labels cannot move.
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
