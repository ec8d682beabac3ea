"""Intervals of rates and means: Wilson's for a share of games, the bootstrap over games for the
rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from toolkit.statistics.arrays import Floats

Z = 1.959963984540054
RESAMPLES = 1000
_CHUNK = 100


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score."""
    if total == 0:
        return 0.0, 1.0
    share = count / total
    scale = 1 + Z**2 / total
    centre = (share + Z**2 / (2 * total)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return low, high


def bootstrap_means(values: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The 95 % percentile intervals of the means of columns, missing numbers left out; rows are
    games.
    """
    present = np.isfinite(values)
    return bootstrap_ratios(np.where(present, values, 0.0), present.astype(np.float64), rng)


def bootstrap_ratios(
    numerators: Floats, denominators: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The 95 % percentile intervals of sum(numerators) / sum(denominators) by column; rows are
    games.
    """
    games, columns = numerators.shape
    resampled = np.full((RESAMPLES, columns), np.nan)
    chances = np.full(games, 1 / games)
    for start in range(0, RESAMPLES, _CHUNK):
        weights = rng.multinomial(games, chances, size=_CHUNK).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled[start : start + _CHUNK] = (weights @ numerators) / (weights @ denominators)
    return _percentiles(resampled)


def _percentiles(resampled: Floats) -> tuple[Floats, Floats]:
    """The 95 % percentiles of each column, without resamples whose denominator is 0."""
    low, high = np.full(resampled.shape[1], np.nan), np.full(resampled.shape[1], np.nan)
    for column in range(resampled.shape[1]):
        finite = resampled[:, column][np.isfinite(resampled[:, column])]
        if len(finite) >= RESAMPLES / 2:
            low[column], high[column] = np.percentile(finite, [2.5, 97.5])
    return low, high


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The correlation of two lists; None where one does not vary or they are too short."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return None
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))
