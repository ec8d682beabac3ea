"""Means over decision points with intervals and p-values, for many features at once.

Shapes: K features, P points, C clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from toolkit.statistics.arrays import Floats, Ints


NOISE = 1e-6
"""Differences of probabilities up to this count as rounding noise."""
ROUNDS = 1000
"""Rounds of the bootstrap."""
MAX_MEANS = 1 << 24
"""Most bootstrap means in memory at a time (128 MB)."""


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """Means (K) with 95 % intervals and two-sided p-values."""

    mean: Floats
    low: Floats
    high: Floats
    p: Floats


def estimate(
    values: Floats, weights: Floats, clusters: Ints, rng: np.random.Generator
) -> MeanEstimate:
    """(K, P) values -> weighted means; intervals by a bootstrap of whole clusters, p by a
    cluster-robust t-test. If all values of a feature are equal or rounding noise, p is 1.
    """
    import numpy as np
    from scipy import special

    count = int(clusters.max()) + 1
    means = values @ weights / weights.sum()
    sums = _by_cluster(weights * (values - means[:, None]), clusters, count)
    if count < 2:
        return MeanEstimate(means, means, means, np.ones(len(means)))
    errors = np.sqrt(count / (count - 1) * (sums**2).sum(axis=1)) / weights.sum()
    varies = (errors > 1e-12 * abs(means)) & (abs(values).max(axis=1) > NOISE)
    ratios = np.divide(abs(means), errors, out=np.zeros_like(means), where=varies)
    p = np.where(varies, 2 * special.stdtr(count - 1, -ratios), 1.0)
    low, high = _bootstrap(values * weights, weights, clusters, count, rng)
    return MeanEstimate(means, np.minimum(low, means), np.maximum(high, means), p)


def sign_test(values: Floats, weights: Floats, clusters: Ints) -> Floats:
    """(K, P) -> (K): exact two-sided p of the signs of the clusters' sums, for values that may be
    equal at every point, such as ranks, where a t-test has no variance to divide by.
    """
    import numpy as np
    from scipy.stats import binomtest

    sums = _by_cluster(values * weights, clusters, int(clusters.max()) + 1)
    above, below = (sums > 1e-9).sum(axis=1), (sums < -1e-9).sum(axis=1)
    pairs = zip(above.tolist(), below.tolist(), strict=True)
    return np.array([binomtest(up, up + down).pvalue if up + down else 1.0 for up, down in pairs])


def _by_cluster(values: Floats, clusters: Ints, count: int) -> Floats:
    """(K, P) -> (K, C): sums over the points of each cluster."""
    import numpy as np

    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(count))
    return np.add.reduceat(values[:, order], starts, axis=1)


def _bootstrap(
    weighted: Floats, weights: Floats, clusters: Ints, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Percentile intervals of weighted means over clusters drawn with replacement."""
    import numpy as np

    draws = rng.multinomial(count, np.full(count, 1 / count), size=ROUNDS).astype(np.float64)
    totals = draws @ _by_cluster(weights[None], clusters, count)[0]
    sums = _by_cluster(weighted, clusters, count)
    tile = max(1, MAX_MEANS // ROUNDS)
    limits = [
        np.quantile(sums[start : start + tile] @ draws.T / totals, (0.025, 0.975), axis=1)
        for start in range(0, len(sums), tile)
    ]
    low, high = np.concatenate(limits, axis=1) if limits else (np.empty(0), np.empty(0))
    return low, high


def corrected(p: Floats) -> Floats:
    """Benjamini-Hochberg q-values over all p-values."""
    from scipy.stats import false_discovery_control

    q: Floats = false_discovery_control(p) if len(p) else p
    return q
