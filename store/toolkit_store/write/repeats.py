"""Find keys that occur twice in a step's rows while the rows arrive in batches. Of each earlier
batch, 16 bytes per row are kept: two hashes of its key, sorted by the first. Keys of a later batch
are looked up in them; if both hashes match, the key is a repeat (with a million rows, a false match
occurs once in 1e26 steps). Sorted runs of equal length are merged, so that a step of n rows costs n
log n, and no batch is read twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Run = tuple[np.ndarray, np.ndarray]
    """Both hashes of some keys, in the order of the first."""

_SEEDS = (1, 2)
FEW_ROWS = 64
"""Up to so many rows are compared in Python, which takes less time than starting a query."""


class Keys:
    """The keys of a step's rows in a table so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: pa.Table | None = None
        self._runs: list[Run] = []

    def add(self, keys: pa.Table) -> None:
        """Add the keys of another batch; refuse a repeated key."""
        self._refuse_within(keys)
        if self._first is None:
            self._first = keys  # most steps have one batch, whose hashes are not needed
            return
        if not self._runs:
            self._runs.append(_in_order(*_hashes(self._first)))
            self._first = keys.schema.empty_table()
        hashes = _hashes(keys)
        self._refuse_again(keys, hashes)
        self._runs.append(_in_order(*hashes))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= len(self._runs[-1][0]):
            self._runs.append(_joined(self._runs.pop(), self._runs.pop()))

    def _refuse_within(self, keys: pa.Table) -> None:
        import pyarrow.compute as pc

        if keys.num_rows <= FEW_ROWS and not _has_repeats(keys):
            return
        counts = keys.group_by(keys.column_names).aggregate([([], "count_all")])
        repeated = counts.filter(pc.greater(counts["count_all"], 1))
        if repeated.num_rows:
            first = self._sorted(repeated).to_pylist()[0]
            raise self._refusal(first, first.pop("count_all"), repeated.num_rows)

    def _refuse_again(self, keys: pa.Table, hashes: Run) -> None:
        import numpy as np
        import pyarrow as pa

        is_repeat = np.zeros(keys.num_rows, bool)
        for run in self._runs:
            is_repeat |= _are_in(hashes, run)
        if is_repeat.any():
            repeated = keys.filter(pa.array(is_repeat))
            raise self._refusal(self._sorted(repeated).to_pylist()[0], 2, repeated.num_rows)

    def _sorted(self, keys: pa.Table) -> pa.Table:
        return keys.sort_by([(column, "ascending") for column in keys.column_names])

    def _refusal(self, key: dict[str, Any], times: int, rows: int) -> DataError:
        row = ", ".join(f"{column}={value!r}" for column, value in key.items())
        return DataError(
            f"Table '{self._name}': the row {row} occurs {times} times in one step ({rows} such "
            f"rows). The columns {', '.join(key)} must make a row unique."
        )


def _has_repeats(keys: pa.Table) -> bool:
    rows = list(zip(*(column.to_pylist() for column in keys.columns), strict=True))
    return len(set(rows)) < len(rows)


def _hashes(keys: pa.Table) -> Run:
    import polars as pl

    frame = pl.DataFrame(keys)
    first, second = (frame.hash_rows(seed).to_numpy() for seed in _SEEDS)
    return first, second


def _joined(run: Run, other: Run) -> Run:
    import numpy as np

    return _in_order(np.concatenate((run[0], other[0])), np.concatenate((run[1], other[1])))


def _in_order(first: np.ndarray, second: np.ndarray) -> Run:
    import numpy as np

    order = np.argsort(first, kind="stable")
    return first[order], second[order]


def _are_in(hashes: Run, run: Run) -> np.ndarray:
    """Which of these have both hashes in the sorted run."""
    import numpy as np

    start, end = (np.searchsorted(run[0], hashes[0], side) for side in ("left", "right"))
    mask = np.zeros(len(hashes[0]), bool)
    for index in np.flatnonzero(end > start).tolist():
        mask[index] = hashes[1][index] in run[1][start[index] : end[index]]
    return mask
