"""Adjusted comparison of two groups: least squares on the group and covariates, with cluster-robust
errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import stdtr

from toolkit.statistics.arrays import Floats, Ints
from toolkit_stats.math.means import Spreads, moments_of

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

    regressors: Floats  # the group first, then a constant and the covariates
    inverse: Floats
    group_residual: Floats
    rank: int
    clusters: int
    weighted: Any  # clusters by samples: `group_residual` in the place of each member
    crossed: Floats  # clusters by regressors: the weighted sums of the regressors
    weight: Floats  # of each cluster: the sum of squares of its members' `group_residual`

    @classmethod
    def of(cls, group: Floats, covariates: Floats, clusters: Ints) -> CovariateModel:
        """Partial the covariates out of the group's indicator, once for all features. `clusters`
        numbers the cluster of each sample from 0.
        """
        others = np.column_stack([np.ones(len(group)), covariates])
        residual = group - others @ np.linalg.lstsq(others, group, rcond=None)[0]
        regressors, count = np.column_stack([group, others]), int(clusters.max()) + 1
        weighted = sparse.csr_array(
            (residual, (clusters, np.arange(len(group)))), shape=(count, len(group))
        )
        weight: Floats = np.bincount(clusters, weights=residual**2, minlength=count).astype(
            np.float64
        )
        return cls(
            regressors,
            np.linalg.pinv(regressors.T @ regressors),
            residual,
            int(np.linalg.matrix_rank(regressors)),
            count,
            weighted,
            np.asarray(weighted @ regressors),
            weight,
        )

    def covariates_separate_groups(self) -> bool:
        """Whether the covariates are the groups themselves, so that nothing is left to compare."""
        group = self.regressors[:, 0]
        left = float((self.group_residual**2).sum())
        return left < TOLD_APART * float(((group - group.mean()) ** 2).sum())

    @property
    def df(self) -> float:
        """Degrees of freedom of the guarded test, for few clusters that make most of the
        coefficient: the effective number of clusters of equal weight, less one, less one per
        covariate.
        """
        clusters, rank, weight = self.clusters, self.rank, self.weight
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
