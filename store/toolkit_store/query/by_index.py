"""Answers about a space from its postings, which `toolkit_store.index.build` made: a feature is one
row, found by a B-tree.

`toolkit_store.query.by_rows.ByRows` gives the same answers, by the same methods, without an index.
A lookup takes a few milliseconds, so its result is processed as arrays: each operation of a query
engine costs as much as the lookup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from toolkit_store.filters import among, equals
from toolkit_store.index.postings import BLOCK, LAST_BLOCK, lookup_number, lookup_range
from toolkit_store.query.by_rows import coactive_schema
from toolkit_store.query.committed_rows import CommittedRows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

_LISTS = ("samples", "positions", "values")
_DIRECTORIES = 64
"""How many directories are cached."""


@dataclass(frozen=True)
class Directory:
    """All features of a space: feature, samples in which it fired (`count`), entries and largest
    value; and how many samples, and tokens of them, have rows in the space.
    """

    features: pl.DataFrame
    samples: int
    tokens: int


class RunIndex:
    """What the spaces of a run's index share: the names of samples, and cached directories of
    spaces.
    """

    def __init__(self, rows: CommittedRows, numbering: str) -> None:
        self.rows, self._numbering = rows, numbering
        self._directories: dict[str, Directory] = {}

    @cached_property
    def samples(self) -> pl.DataFrame:
        """Sample and unit by number."""
        import polars as pl

        rows = self.rows.find(
            "sample_index", equals("step", self._numbering), ["number", "sample", "unit"]
        )
        return pl.DataFrame(rows).sort("number").select("sample", "unit").rechunk()

    def directory(self, step: str) -> Directory:
        """The directory of a space."""
        return self.prefetch([step])[step]

    def prefetch(self, steps: Sequence[str]) -> dict[str, Directory]:
        """The directories of these spaces. They never change, so they are cached; missing ones are
        read together.
        """
        known = {step: self._directories[step] for step in steps if step in self._directories}
        missing = [step for step in steps if step not in known]
        directories = known | (self._read_directories(missing) if missing else {})
        if missing:
            others = {
                step: directory
                for step, directory in self._directories.items()
                if step not in directories
            }
            room = max(_DIRECTORIES - len(directories), 0)
            self._directories = dict([*others.items()][-room:] if room else []) | directories
        return directories

    def _read_directories(self, steps: Sequence[str]) -> dict[str, Directory]:
        import polars as pl

        names = {"features": "feature", "fired": "count", "counts": "entries", "maxima": "max"}
        columns = ["step", "block", "samples", "looked_at", *names]
        parts = [
            pl.DataFrame(self.rows.find("feature_index", where, columns))
            for where in among("step", steps)
        ]
        directories = pl.concat(parts).sort("block")
        sizes = directories.unique("step", keep="first").select("step", "samples", "looked_at")
        features = (
            directories.select("step", *names).explode(*names).rename(names).drop_nulls("feature")
        )
        fired = features.partition_by("step", as_dict=True, include_key=False)
        none = features.clear().drop("step")
        return {
            step: Directory(fired.get((step,), none), samples, tokens)
            for step, samples, tokens in sizes.iter_rows()
        }


@dataclass(frozen=True)
class _FeatureEntries:
    """Sample numbers, positions and values of a feature's entries."""

    numbers: np.ndarray
    positions: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[pa.Table]) -> _FeatureEntries:
        import numpy as np
        import pyarrow.compute as pc

        columns = ([pc.list_flatten(block[name]).to_numpy() for block in blocks] for name in _LISTS)
        return cls(*(parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in columns))

    def hardest(self, k: int) -> _FeatureEntries:
        """The k largest, in order; equal ones in the order of samples and positions."""
        import numpy as np

        strengths = np.where(np.isnan(self.values), np.inf, self.values)  # as polars sorts
        near = np.arange(len(strengths))
        if len(near) > k:
            near = np.flatnonzero(strengths >= np.partition(strengths, -k)[-k]) if k else near[:0]
        best = near[np.lexsort((self.positions[near], self.numbers[near], -strengths[near]))][:k]
        return _FeatureEntries(self.numbers[best], self.positions[best], self.values[best])


class ByIndex:
    """A space of a run, answered from the postings that a step holds."""

    def __init__(self, index: RunIndex, step: str) -> None:
        self._index, self._rows, self._step = index, index.rows, step

    def activations(self, feature: int) -> pl.DataFrame:
        """Sample, position and value of a feature, in the order of samples and positions."""
        return self._named(self._entries(feature))

    def top(self, feature: int, k: int) -> pl.DataFrame:
        """Sample, position, value and unit of its largest values."""
        return self._named(self._entries(feature, k).hardest(k), "unit")

    def entries(self, feature: int) -> int:
        """The number of positions at which it fired."""
        import polars as pl

        return int(self.directory().filter(pl.col("feature") == feature)["entries"].sum())

    def directory(self) -> pl.DataFrame:
        """Feature, samples in which it fired (`count`), entries and largest value."""
        return self._index.directory(self._step).features

    def looked_at(self) -> tuple[int, int]:
        """How many samples, and how many of their tokens, have rows in the space."""
        known = self._index.directory(self._step)
        return known.samples, known.tokens

    def coactive_counts(self, feature: int) -> pl.DataFrame:
        """Each feature, the number of positions at which it fired together with this one (`both`),
        and at all (`count`).
        """
        import polars as pl

        own_entries = self._entries(feature)
        target = _PlaceNumbers(own_entries.numbers, own_entries.positions)
        parts = [_both(batch, target) for batch in self._all_blocks()]
        counts = pl.concat([pl.DataFrame(schema=coactive_schema()), *parts])
        return counts.group_by("feature").agg(pl.col("both", "count").sum()).sort("feature")

    def _all_blocks(self) -> Iterator[pl.DataFrame]:
        import polars as pl

        first, last = lookup_range(self._step)
        columns = ["step", "feature", "count", "samples", "positions"]
        for batch in self._rows.find_in_batches(
            "postings", f"place >= {first} AND place <= {last}", columns
        ):
            blocks_of_step = batch.filter(pl.col("step") == self._step)
            if blocks_of_step.height:
                yield blocks_of_step

    def _named(self, entries: _FeatureEntries, *more: str) -> pl.DataFrame:
        """Entries with the samples' names instead of their numbers, and more columns about the
        samples.
        """
        import polars as pl

        sample, *others = (self._index.samples[name][entries.numbers] for name in ("sample", *more))
        return pl.DataFrame(
            [
                sample,
                pl.Series("position", entries.positions),
                pl.Series("value", entries.values),
                *others,
            ]
        )

    def _entries(self, feature: int, k: int | None = None) -> _FeatureEntries:
        """The entries of a feature; with `k`, of enough blocks to hold the k largest."""
        first = self._block(feature, 0)
        entries = _FeatureEntries.of([first])
        if len(entries.values) < BLOCK:
            return entries
        return _FeatureEntries.of(
            [first, *(self._block(feature, number) for number in self._more(feature, entries, k))]
        )

    def _more(self, feature: int, first: _FeatureEntries, k: int | None) -> list[int]:
        """Further blocks that may be needed. The k largest entries of a dense feature are in the k
        blocks with the largest maxima.
        """
        import polars as pl

        beyond = (
            f"place > {lookup_number(self._step, feature)} AND place <= "
            f"{lookup_number(self._step, feature, LAST_BLOCK)}"
        )
        heads = pl.DataFrame(self._entries_at(feature, beyond, ["block", "max"]))
        if k is not None:
            heads = heads.sort(["max", "block"], descending=[True, False]).head(k)
        if k is not None and 0 < k <= BLOCK:
            heads = heads.filter(pl.col("max") > first.hardest(k).values[-1])
        return sorted(heads["block"].to_list())

    def _block(self, feature: int, number: int) -> pa.Table:
        return self._entries_at(
            feature, f"place = {lookup_number(self._step, feature, number)}", _LISTS
        )

    def _entries_at(self, feature: int, where: str, columns: Sequence[str]) -> pa.Table:
        """The blocks of this feature. Block numbers are hashes, so another step or feature may
        share one.
        """
        postings = self._rows.find("postings", where, ["step", "feature", *columns])
        owners = zip(postings["step"].to_pylist(), postings["feature"].to_pylist(), strict=True)
        numbers = [number for number, owner in enumerate(owners) if owner == (self._step, feature)]
        return postings if len(numbers) == postings.num_rows else postings.take(numbers)


class _PlaceNumbers:
    """A set of places as sorted numbers, for membership tests; most other places are ruled out by
    their sample alone.
    """

    def __init__(self, numbers: np.ndarray, positions: np.ndarray) -> None:
        import numpy as np

        self._codes = np.sort(_coded(numbers, positions))
        self._samples = np.zeros(int(numbers.max(initial=0)) + 1, bool)
        self._samples[numbers] = True

    def hold(self, numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Whether each of the given places is in the set."""
        import numpy as np

        out: np.ndarray = self._samples[np.minimum(numbers, len(self._samples) - 1)] & (
            numbers < len(self._samples)
        )
        near = np.flatnonzero(out)
        codes = _coded(numbers[near], positions[near])
        indices = np.minimum(np.searchsorted(self._codes, codes), max(len(self._codes) - 1, 0))
        out[near] = self._codes[indices] == codes if len(self._codes) else False
        return out


def _coded(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    import numpy as np

    coded: np.ndarray = (numbers.astype(np.uint64) << np.uint64(32)) | positions.astype(np.uint64)
    return coded


def _both(batch: pl.DataFrame, target: _PlaceNumbers) -> pl.DataFrame:
    """Per block, the number of its entries at which the target fired too."""
    import numpy as np
    import polars as pl

    counts = batch["count"].to_numpy().astype(np.int64)
    fired_too = target.hold(
        batch["samples"].explode().to_numpy(), batch["positions"].explode().to_numpy()
    )
    both = np.add.reduceat(fired_too, np.cumsum(counts) - counts, dtype=np.int64)
    return pl.DataFrame({"feature": batch["feature"], "both": both, "count": counts})
