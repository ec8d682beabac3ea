"""Differences between two groups of units, and means over units, with intervals and p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.statistics.arrays import Floats

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000
MIN_UNITS = 5
"""With fewer units in a group, the p-value is withheld."""


def difference(a: Floats, b: Floats, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean of a minus mean of b, with its 95 % percentile bootstrap interval over units; with a
    group of one unit the interval is NaN.
    """
    import numpy as np

    value = float(a.mean() - b.mean())
    if len(a) < 2 or len(b) < 2:
        return value, float("nan"), float("nan")
    resampled = _resampled(a, rng) - _resampled(b, rng)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return value, float(low), float(high)


def mean(values: Floats, rng: np.random.Generator) -> tuple[float, float, float]:
    """The mean with its 95 % percentile bootstrap interval over units."""
    import numpy as np

    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    low, high = np.percentile(_resampled(values, rng), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def _resampled(values: Floats, rng: np.random.Generator) -> Floats:
    means: Floats = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    return means


def permutation_p(a: Floats, b: Floats, rng: np.random.Generator) -> float:
    """Two-sided p of the difference of means, by permuting units between the groups."""
    import numpy as np

    pooled, size = np.concatenate([a, b]), len(a)
    order = rng.permuted(np.tile(np.arange(len(pooled)), (RESAMPLES, 1)), axis=1)
    permuted = pooled[order]
    differences = np.abs(permuted[:, :size].mean(axis=1) - permuted[:, size:].mean(axis=1))
    observed = abs(a.mean() - b.mean())
    return float((1 + (differences >= observed * (1 - 1e-12)).sum()) / (1 + RESAMPLES))


def sign_flip_p(values: Floats, rng: np.random.Generator) -> float:
    """Two-sided p of a mean of 0, by flipping the signs of units."""
    import numpy as np

    signs = rng.choice([-1.0, 1.0], size=(RESAMPLES, len(values)))
    means = np.abs((signs * values).mean(axis=1))
    observed = abs(values.mean())
    return float((1 + (means >= observed * (1 - 1e-12)).sum()) / (1 + RESAMPLES))
