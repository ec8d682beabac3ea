"""Tests of means over sparse columns. Imported when a step runs, not with the plugin: it needs
NumPy and SciPy at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.special import fdtrc, gammaln, stdtr

from toolkit.statistics.arrays import Floats, Ints

Spreads = Literal["guarded", "own"]

Z = 1.959963984540054
"""Half the width of a 95 % interval in standard errors."""
ROUNDING = 1e-12
"""A standard deviation below this share of the mean is rounding error of a constant column; real
float32 spreads are larger.
"""


WIDE_SHARE, WIDE_CLUSTERS = 0.9, 20
"""A feature is wide if it fires in this share of the samples of groups with this many clusters,"""
WIDE_SKEWNESS, FEW_SKEWNESS = 0.4, 1.0
"""if its skewness is at most this in the larger and in the smaller group, which estimates it
poorly,
"""
WIDE_KURTOSIS = -0.5
"""and if its excess kurtosis in the larger group is at least this: where tails are short (uniform
values: -1.2), the spread of a small group is too often far too small."""


@dataclass(frozen=True)
class Moments:
    """The statistics of one group that tests need, by column. `squares`: sum of squared deviations
    of samples from their mean.
    """

    samples: int
    clusters: int
    mean: Floats
    fired: Ints
    squares: Floats
    variance: Floats  # variance of the mean, from the sums of independent clusters
    skewness: Floats  # of the sums of clusters; NaN where the feature does not fire nearly always
    kurtosis: Floats  # in excess of the normal distribution's; of the same sums, NaN likewise


@dataclass(frozen=True)
class Contrast:
    """The comparison of two groups, by column. `d`, `t` and `df` are NaN where nothing varies."""

    d: Floats
    t: Floats
    df: Floats
    p: Floats
    variance: Floats  # of the difference of means


@dataclass(frozen=True)
class Effects:
    """Effect sizes of two groups, by column: d with its 95 % interval, and g, which is d without
    its small-sample bias.
    """

    d: Floats
    d_low: Floats
    d_high: Floats
    g: Floats


def clusters_of(joins: Sequence[Ints], count: int) -> Ints:
    """A number for each of `count` samples, equal for those joined, directly or through others, by
    equal labels in a join.
    """
    sample, label, nodes = [np.arange(count)], [np.arange(count)], count
    for labels in joins:
        sample.append(np.arange(count))
        label.append(labels + nodes)
        nodes += int(labels.max(initial=-1)) + 1
    edges = (np.concatenate(sample), np.concatenate(label))
    graph = sparse.coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(nodes, nodes))
    result = connected_components(graph, directed=False)[1][:count]
    return np.unique(result, return_inverse=True)[1].astype(np.int64)


def moments(matrix: Any, clusters: Ints) -> Moments:
    """Moments of a CSR matrix's columns. Rows are samples; `clusters` numbers the independent
    cluster of each from 0.
    """
    samples, columns = matrix.shape
    result = moments_of(matrix.indices.astype(np.intp), matrix.data, samples, columns)
    count = int(clusters.max()) + 1
    if count == samples:
        return result
    between, cubes, fourths = _between(matrix, result.mean, clusters)
    skewness, kurtosis = shape_of(cubes, fourths, between, count, result.fired, samples)
    variance = count / (count - 1) * between / samples**2
    return replace(result, clusters=count, variance=variance, skewness=skewness, kurtosis=kurtosis)


def moments_of(column: Ints, values: Floats, samples: int, columns: int) -> Moments:
    """Moments of the columns that hold these entries, in any order; every sample is a cluster of
    its own.
    """
    fired = np.bincount(column, minlength=columns)
    mean = np.bincount(column, weights=values, minlength=columns) / samples
    deviation = values - mean[column]
    cubes, fourths = _powers(column, deviation, fired, samples)
    deviation *= deviation
    squares = (
        np.bincount(column, weights=deviation, minlength=columns) + (samples - fired) * mean**2
    )
    squares = np.where(squares > samples * (ROUNDING * mean) ** 2, squares, 0.0)
    silent = samples - fired
    skewness, kurtosis = shape_of(
        cubes - silent * mean**3, fourths + silent * mean**4, squares, samples, fired, samples
    )
    variance = squares / ((samples - 1) * samples)
    return Moments(samples, samples, mean, fired, squares, variance, skewness, kurtosis)


def _powers(column: Ints, deviation: Floats, fired: Ints, samples: int) -> tuple[Floats, Floats]:
    """By column, the sums of the third and fourth powers of the stored values; only of columns that
    fire nearly always, since only those need them.
    """
    dense = fired >= WIDE_SHARE * samples
    if not dense.any():
        return np.zeros(len(fired)), np.zeros(len(fired))
    is_dense = dense[column]
    column, deviation = column[is_dense], deviation[is_dense]
    cubes = deviation**3
    return (
        np.bincount(column, weights=cubes, minlength=len(fired)).astype(np.float64),
        np.bincount(column, weights=cubes * deviation, minlength=len(fired)).astype(np.float64),
    )


def shape_of(
    cubes: Floats, fourths: Floats, squares: Floats, clusters: int, fired: Ints, samples: int
) -> tuple[Floats, Floats]:
    """The skewness and the excess kurtosis of sums of clusters, from the sums of their powers; NaN
    where the feature does not fire in nearly all samples.
    """
    known = (fired >= WIDE_SHARE * samples) & (squares > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = (cubes / clusters) / (squares / clusters) ** 1.5
        kurtosis = (fourths / clusters) / (squares / clusters) ** 2 - 3.0
    return np.where(known, skewness, np.nan), np.where(known, kurtosis, np.nan)


def _between(matrix: Any, mean: Floats, clusters: Ints) -> tuple[Floats, Floats, Floats]:
    """By column, the sums over clusters of (sum - size * mean)² and of its third and fourth powers.
    Centred before it is squared, so that offsets do not cancel.
    """
    samples, sizes = len(clusters), np.bincount(clusters).astype(np.float64)
    member = sparse.csr_array(
        (np.ones(samples), (clusters, np.arange(samples))), shape=(len(sizes), samples)
    )
    sums = member @ matrix
    column, size = sums.indices.astype(np.intp), np.repeat(sizes, np.diff(sums.indptr))
    expected = size * mean[column]

    # A cluster in which a feature is silent deviates by its expected sum: treat all clusters as
    # silent, then correct those that are not.
    def powers(power: int) -> Floats:
        stored = np.bincount(column, weights=(sums.data - expected) ** power, minlength=len(mean))
        silent = (sizes**power).sum() - np.bincount(
            column, weights=size**power, minlength=len(mean)
        )
        total: Floats = stored + silent * (-mean) ** power
        return total

    between = powers(2)
    floor = (sizes**2).sum() * (ROUNDING * mean) ** 2
    return np.where(between > floor, between, 0.0), powers(3), powers(4)


def welch(a: Moments, b: Moments, spread: Spreads = "guarded") -> Contrast:
    """Welch's test with cluster-robust variances, Satterthwaite's degrees of freedom, and Cohen's d
    over samples. Features that are `wide` keep the variance of their own spreads; the degrees of
    freedom stay guarded.
    """
    variance, df = unpooled(a, b, spread)
    if spread == "guarded":
        variance = np.where(wide(a, b), unpooled(a, b, "own")[0], variance)
    return _contrast(a, b, variance, df)


def wide(a: Moments, b: Moments) -> npt.NDArray[np.bool_]:
    """Features that need no guard: they fire in nearly all samples of both groups, whose clusters
    are not few, and their values are not skewed and have no short tails. A mean of such values is
    nearly normal, and each group shows its own spread.

    Under the null both groups have the same shape, and the larger one shows it best.
    """
    smaller, larger = (a, b) if a.clusters <= b.clusters else (b, a)
    if smaller.clusters < WIDE_CLUSTERS:
        return np.zeros(a.mean.shape, dtype=np.bool_)
    is_wide: npt.NDArray[np.bool_] = (
        (np.abs(larger.skewness) <= WIDE_SKEWNESS)
        & (np.abs(smaller.skewness) <= FEW_SKEWNESS)
        & (larger.kurtosis >= WIDE_KURTOSIS)
    )
    return is_wide


def student(a: Moments, b: Moments) -> Contrast:
    """Student's test of cluster means weighted by size, with one pooled spread for both groups."""
    variance = _pooled(a, b) * (1 / a.clusters + 1 / b.clusters)
    return _contrast(
        a, b, variance, np.where(variance > 0, float(a.clusters + b.clusters - 2), np.nan)
    )


def unpooled(a: Moments, b: Moments, spread: Spreads = "guarded") -> tuple[Floats, Floats]:
    """The variance of the difference of two means, each group with its own spread, and its degrees
    of freedom.

    A small group in which a rare feature is silent by chance shows no spread, so that the variance
    would come from the other group alone. Guarded, the variance is at least the pooled one, and the
    degrees of freedom at most those with each spread at least the pooled one.
    """
    variance, df = a.variance + b.variance, _satterthwaite(a, b, a.variance, b.variance)
    if spread == "own":
        return variance, df
    pooled = _pooled(a, b)
    least = pooled / a.clusters, pooled / b.clusters
    guarded = _satterthwaite(
        a, b, np.maximum(a.variance, least[0]), np.maximum(b.variance, least[1])
    )
    return np.maximum(variance, least[0] + least[1]), np.minimum(df, guarded)


def arrangements(values: Floats) -> float:
    """The approximate number of distinct arrangements of these values; exact numbers of thousands
    of digits take long.
    """
    alike = np.unique(values, return_counts=True)[1]
    return float(np.exp(min(gammaln(len(values) + 1) - gammaln(alike + 1).sum(), 700.0)))


def _satterthwaite(a: Moments, b: Moments, of_a: Floats, of_b: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = of_a / (of_a + of_b)
        return 1.0 / (share**2 / (a.clusters - 1) + (1.0 - share) ** 2 / (b.clusters - 1))


def _pooled(a: Moments, b: Moments) -> Floats:
    """The variance between clusters, pooled over both groups."""
    of_a, of_b = (side.variance * side.clusters * (side.clusters - 1) for side in (a, b))
    return (of_a + of_b) / (a.clusters + b.clusters - 2)


def _contrast(a: Moments, b: Moments, variance: Floats, df: Floats) -> Contrast:
    """A column without spread in either group is no evidence, whatever its means: nothing shows how
    far means vary. Its t is undefined and its p is 1.
    """
    difference = a.mean - b.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(variance > 0, difference / np.sqrt(variance), np.nan)
        p = np.where(variance > 0, 2.0 * stdtr(df, -np.abs(t)), 1.0)
    return Contrast(d=cohens_d(a, b), t=t, df=df, p=p, variance=variance)


def effects(a: Moments, b: Moments, variance: Floats) -> Effects:
    """The usual large-sample interval of d, with this variance of the difference and clusters for
    degrees of freedom.
    """
    df, d = a.clusters + b.clusters - 2, cohens_d(a, b)
    pooled = (a.squares + b.squares) / (a.samples + b.samples - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = Z * np.sqrt(variance / pooled + d**2 / (2 * df))
    unbiased = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    return Effects(d=d, d_low=d - reach, d_high=d + reach, g=d * unbiased)


def cohens_d(a: Moments, b: Moments) -> Floats:
    """The difference of means in pooled standard deviations of samples; NaN without spread."""
    with np.errstate(divide="ignore", invalid="ignore"):
        d = (a.mean - b.mean) / np.sqrt((a.squares + b.squares) / (a.samples + b.samples - 2))
    return np.where(np.isfinite(d), d, np.nan)


def merged(matrix: Any, clusters: Ints) -> Any:
    """The mean row of each cluster, as a CSR matrix."""
    samples = matrix.shape[0]
    sizes = np.bincount(clusters)
    if len(sizes) == samples:
        return matrix[np.argsort(clusters)] if np.any(clusters[1:] < clusters[:-1]) else matrix
    member = sparse.csr_array(
        (1.0 / sizes[clusters], (clusters, np.arange(samples))), shape=(len(sizes), samples)
    )
    sums = member @ matrix
    sums.eliminate_zeros()
    return sums


# --- several groups, and numbers ------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Several groups, by column: Fisher's F, and the share of the spread that lies between the
    groups.
    """

    f: Floats
    p: Floats
    eta2: Floats


def anova(groups: Sequence[Moments]) -> Spread:
    """One-way analysis of variance of rows that are independent."""
    samples, count = sum(group.samples for group in groups), len(groups)
    mean = sum((group.samples * group.mean for group in groups), np.zeros(1)) / samples
    between = sum((group.samples * (group.mean - mean) ** 2 for group in groups), np.zeros(1))
    inside = sum((group.squares for group in groups), np.zeros(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        f = np.where(inside > 0, between / (count - 1) / (inside / (samples - count)), np.nan)
        eta2 = np.where(between + inside > 0, between / (between + inside), np.nan)
    return Spread(
        f,
        np.where(inside > 0, fdtrc(count - 1, samples - count, f), 1.0),
        np.where(inside > 0, eta2, np.nan),
    )


@dataclass(frozen=True)
class Slope:
    """A correlation, by column, with its 95 % interval and its test."""

    r: Floats
    low: Floats
    high: Floats
    t: Floats
    p: Floats


def pearson(matrix: Any, numbers: Floats) -> Floats:
    """The correlation of each column of a CSR matrix with a number of each row; NaN where a column
    does not spread.
    """
    rows, columns = matrix.shape
    theirs = numbers - numbers.mean()
    row = np.repeat(np.arange(rows), np.diff(matrix.indptr))
    mean = np.bincount(matrix.indices, weights=matrix.data, minlength=columns) / rows
    # The other numbers sum to zero, so a column may be taken from any origin; its mean loses least
    # to rounding.
    stored = np.bincount(
        matrix.indices,
        weights=(matrix.data - mean[matrix.indices]) * theirs[row],
        minlength=columns,
    )
    together = stored + mean * np.bincount(matrix.indices, weights=theirs[row], minlength=columns)
    spread = moments(matrix, np.arange(rows)).squares
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 0, together / np.sqrt(spread * (theirs**2).sum()), np.nan)
    return np.clip(r, -1.0, 1.0)


def slope(r: Floats, numbers: Floats, spread: Floats | float = 1.0) -> Slope:
    """The t test of a correlation, and Fisher's interval; `spread` widens it (ranks spread more
    than values).

    A perfect line leaves no spread to divide by (a feature may fire in one row only, the one whose
    number differs): its p is that of the single most extreme assignment of the numbers.
    """
    rows, known = len(numbers), np.abs(r) < 1.0 - ROUNDING
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(known, r * np.sqrt((rows - 2) / (1.0 - r**2)), np.nan)
        reach = Z * np.sqrt(spread / (rows - 3)) if rows > 3 else np.full_like(r, np.inf)
        low, high = (
            np.where(known, np.tanh(np.arctanh(r) + side * reach), np.nan) for side in (-1, 1)
        )
        p = np.where(
            known,
            2.0 * stdtr(rows - 2, -np.abs(t)),
            np.where(np.isnan(r), 1.0, min(2.0 / arrangements(numbers), 1.0)),
        )
    return Slope(r, low, high, t, p)
