"""Turn rows of table `activations` into a sparse matrix of samples by features. Imported when a
step runs: it needs NumPy and SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from toolkit.errors import DataError
from toolkit.statistics.arrays import Floats, Ints


@dataclass(frozen=True)
class Fired:
    """The features of a space that fired, and their values: a CSR matrix with one row per sample
    and one column per feature.
    """

    features: Ints
    matrix: Any


def read_space(rows: pa.Table, samples: list[str], width: int, pool: str, space: str) -> Fired:
    """Pool the activations of one space over the positions of each sample; only the requested
    samples are read.

    A sample in which nothing fired has rows with empty lists. A sample without any row was not
    measured and is refused.
    """
    ids = pa.array(samples, pa.string())
    sample_numbers = pc.index_in(rows["sample"], value_set=ids)
    if sample_numbers.null_count:
        rows, sample_numbers = rows.filter(sample_numbers.is_valid()), sample_numbers.drop_null()
    index = sample_numbers.to_numpy().astype(np.int64)
    lists = rows["features"].combine_chunks()
    positions = np.bincount(index, minlength=len(samples))
    _check_measured(positions, samples, space)
    row = np.repeat(index, np.diff(lists.offsets.to_numpy()))
    feature = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    value = (
        rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    )
    _check(row, feature, value, samples, width, space)
    row, feature, value = _pooled(row * width + feature, value, positions, width, pool)
    return _compact(row, feature, value, len(samples), width)


def _check_measured(positions: Ints, samples: list[str], space: str) -> None:
    """Refuse samples without a row. A space in which no sample has a row is allowed and counts as
    empty, since it cannot suggest a difference.
    """
    without = np.flatnonzero(positions == 0)
    if 0 < len(without) < len(samples):
        raise DataError(
            f"space {space}: {len(without)} of {len(samples)} samples have no row in table "
            f"'activations' (the first is '{samples[without[0]]}'). Where nothing fires there is a "
            "row with empty lists; a missing row means that the sample was not measured "
            "(for example, because the selector matched no token), which is not the same as "
            "nothing firing. Extract at tokens that each sample has, or leave such samples out: "
            "`missing: leave_out` of the comparisons."
        )


def _check(
    row: Ints, feature: Ints, value: Floats, samples: list[str], width: int, space: str
) -> None:
    bad = np.flatnonzero(~np.isfinite(value))
    if len(bad):
        raise DataError(
            f"space {space}: feature {feature[bad[0]]} has the activation {value[bad[0]]} in "
            f"sample '{samples[row[bad[0]]]}'; a test needs finite numbers. Leave that sample out, "
            "or extract in a wider number format."
        )
    if feature.max(initial=0) >= width:
        raise DataError(
            f"space {space}: there is a feature {feature.max()}, but its width is {width} "
            f"(features 0 to {width - 1}). The activations do not match the description "
            f"of the space; extract them again."
        )


def _pooled(
    cell: Ints, value: Floats, positions: Ints, width: int, pool: str
) -> tuple[Ints, Ints, Floats]:
    """One value per sample and feature. A position that does not list a feature counts as 0."""
    if positions.max(initial=0) <= 1:
        return cell // width, cell % width, value
    order = np.argsort(cell, kind="stable")
    cell, value = cell[order], value[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    row, feature = cell[starts] // width, cell[starts] % width
    if pool == "mean":
        return row, feature, np.add.reduceat(value, starts) / positions[row]
    best = np.maximum.reduceat(value, starts)
    listed = np.diff(starts, append=len(cell))
    return row, feature, np.where(listed < positions[row], np.maximum(best, 0.0), best)


def _compact(row: Ints, feature: Ints, value: Floats, samples: int, width: int) -> Fired:
    if not value.all():
        row, feature, value = (part[value != 0] for part in (row, feature, value))
    features = np.flatnonzero(np.bincount(feature, minlength=width))
    column = np.zeros(width, dtype=np.int64)
    column[features] = np.arange(len(features))
    matrix = sparse.csr_array((value, (row, column[feature])), shape=(samples, len(features)))
    return Fired(features, matrix)
