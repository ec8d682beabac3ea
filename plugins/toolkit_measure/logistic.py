"""Logistic regression with cluster-robust standard errors, and intervals by Student's t with the
degrees of freedom of the clusters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.statistics.arrays import Floats

FEWEST_CLUSTERS = 10
"""With fewer clusters the sandwich estimate is not reliable."""
_STEPS, _CLOSE, _SEPARATED = 60, 1e-10, 15.0


@dataclass(frozen=True)
class Coefficient:
    """A log odds ratio with its 95 % interval."""

    value: float
    low: float
    high: float
    p: float


def fit(design: Floats, outcome: Floats, clusters: Sequence[Hashable]) -> list[Coefficient] | str:
    """One coefficient per column of the design (which includes a column of ones), or the reason why
    there is none.
    """
    if outcome.min() == outcome.max():
        return "the outcome is the same in every game"
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return "two components always occur together"
    beta = _newton(design, outcome)
    if beta is None or np.abs(beta).max() > _SEPARATED:
        return "one component alone determines the outcome, so its odds ratio is unbounded"
    errors = _errors(design, outcome, beta, clusters)
    freedom = effective_number(clusters) - 1
    return [_coefficient(value, error, freedom) for value, error in zip(beta, errors, strict=True)]


def effective_number(clusters: Sequence[Hashable]) -> float:
    """How many clusters of equal size tell as much as these: (sum n)^2 / sum n^2."""
    sizes = Counter(clusters).values()
    return float(sum(sizes) ** 2 / sum(size**2 for size in sizes))


def _newton(design: Floats, outcome: Floats) -> Floats | None:
    beta = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = _chance(design @ beta)
        weight = chance * (1 - chance)
        hessian = design.T @ (design * weight[:, None])
        try:
            step = np.linalg.solve(hessian, design.T @ (outcome - chance))
        except np.linalg.LinAlgError:
            return None
        beta = beta + step
        if np.abs(beta).max() > 2 * _SEPARATED:
            return None
        if np.abs(step).max() < _CLOSE:
            return beta
    return None


def _errors(design: Floats, outcome: Floats, beta: Floats, clusters: Sequence[Hashable]) -> Floats:
    """Standard errors by the sandwich over clusters, with the small-sample factor called CR1:
    clusters / (clusters - 1) x (rows - 1) / (rows - columns).
    """
    chance = _chance(design @ beta)
    hessian = design.T @ (design * (chance * (1 - chance))[:, None])
    scores = design * (outcome - chance)[:, None]
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(names), design.shape[1]))
    np.add.at(sums, [names[name] for name in clusters], scores)
    inverse = np.linalg.inv(hessian)
    count = len(names)
    rows, columns = design.shape
    factor = (
        count / (count - 1) * (rows - 1) / (rows - columns)
        if count > 1 and rows > columns
        else math.nan
    )
    covariance = factor * inverse @ (sums.T @ sums) @ inverse
    errors: Floats = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return errors


def _chance(logit: Floats) -> Floats:
    chance: Floats = 1 / (1 + np.exp(-np.clip(logit, -500, 500)))
    return chance


def _coefficient(value: float, error: float, freedom: float) -> Coefficient:
    from scipy.special import stdtr, stdtrit

    if not error > 1e-9 or not freedom > 0:
        return Coefficient(value, math.nan, math.nan, math.nan)
    reach = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    return Coefficient(value, value - reach, value + reach, p)
