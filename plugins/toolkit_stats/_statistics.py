"""Tests of means over sparse columns. Imported when a step runs, not with the plugin: it needs NumPy and SciPy at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.special import stdtr

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUNDING = 1e-12
"""A standard deviation below this share of the mean is what rounding leaves of a constant column; float32 spreads are larger."""


@dataclass(frozen=True)
class Moments:
    """What a test needs to know of one group, by column. `squares`: sum of squared deviations of samples from their mean."""

    samples: int
    clusters: int
    mean: Floats
    fired: Ints
    squares: Floats
    variance: Floats  # of the mean, from the sums of independent clusters


@dataclass(frozen=True)
class Contrast:
    """Two groups compared, by column. `d`, `t` and `df` are NaN where nothing spreads."""

    d: Floats
    t: Floats
    df: Floats
    p: Floats


def clusters_of(joins: Sequence[Ints], count: int) -> Ints:
    """A number for each of `count` samples, equal for those joined, directly or through others, by equal labels in a join."""
    sample, label, nodes = [np.arange(count)], [np.arange(count)], count
    for labels in joins:
        sample.append(np.arange(count))
        label.append(labels + nodes)
        nodes += int(labels.max(initial=-1)) + 1
    edges = (np.concatenate(sample), np.concatenate(label))
    graph = sparse.coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(nodes, nodes))
    found = connected_components(graph, directed=False)[1][:count]
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def moments(matrix: Any, clusters: Ints) -> Moments:
    """Moments of a CSR matrix's columns. Rows are samples; `clusters` numbers the independent cluster of each from 0."""
    samples, columns = matrix.shape
    count = int(clusters.max()) + 1
    mean = np.bincount(matrix.indices, weights=matrix.data, minlength=columns) / samples
    member = sparse.csr_array((np.ones(samples), (clusters, np.arange(samples))), shape=(count, samples))
    between = _squares(member @ matrix, mean, np.bincount(clusters).astype(np.float64))
    return Moments(
        samples=samples,
        clusters=count,
        mean=mean,
        fired=np.bincount(matrix.indices, minlength=columns),
        squares=_squares(matrix, mean, np.ones(samples)),
        variance=count / (count - 1) * between / samples**2,
    )


def _squares(sums: Any, mean: Floats, sizes: Floats) -> Floats:
    """By column, the sum over rows of (sum - size * mean)². Centred before it is squared, so that offsets do not cancel."""
    row = np.repeat(np.arange(len(sizes)), np.diff(sums.indptr))
    deviation = (sums.data - sizes[row] * mean[sums.indices]) ** 2
    stored = np.bincount(sums.indices, weights=deviation, minlength=len(mean))
    silent = (sizes**2).sum() - np.bincount(sums.indices, weights=sizes[row] ** 2, minlength=len(mean))
    squares = stored + silent * mean**2
    return np.where(squares > (sizes**2).sum() * (ROUNDING * mean) ** 2, squares, 0.0)


def welch(a: Moments, b: Moments) -> Contrast:
    """Welch's test with cluster-robust variances, Satterthwaite's degrees of freedom, and Cohen's d over samples.

    A column without spread in both groups is no evidence, whatever its means: one value seen again and again says nothing
    about how far means wander. Its t is undefined and its p is 1.
    """
    difference = a.mean - b.mean
    variance = a.variance + b.variance
    with np.errstate(divide="ignore", invalid="ignore"):
        d = difference / np.sqrt((a.squares + b.squares) / (a.samples + b.samples - 2))
        share = a.variance / variance
        df = 1.0 / (share**2 / (a.clusters - 1) + (1.0 - share) ** 2 / (b.clusters - 1))
        t = np.where(variance > 0, difference / np.sqrt(variance), np.nan)
    p = np.where(variance > 0, 2.0 * stdtr(df, -np.abs(t)), 1.0)
    return Contrast(d=np.where(np.isfinite(d), d, np.nan), t=t, df=df, p=p)


def benjamini_hochberg(p: Floats, family: int) -> Floats:
    """The q of each p, as if `family - len(p)` more tests had given p = 1."""
    order = np.argsort(p, kind="stable")
    raw = p[order] * family / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    return q
