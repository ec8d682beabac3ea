"""An external sort: the entries of a run's activations in temporary files, sorted by feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from toolkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


AT_ONCE = 4 << 20
"""Entries sorted at a time: about 200 MB, sorting included."""
_ROWS_AT_ONCE = 1 << 16
_READ_AT_ONCE = 1 << 20
_BUCKET_BITS = 20
"""Entries are counted by this many of the highest bits of their keys: by single features, if there
are at most a million.
"""
Paths = tuple[Path, Path]
"""The files with keys and with values."""
Rows = Callable[[Sequence[str]], Iterable["pa.Table"]]
"""Gives the rows of `activations` with these columns, batch by batch."""


@dataclass
class Numbered:
    """The result of the first pass: sample names in the order of their numbers, rows per space, the
    highest position.
    """

    names: list[str] = field(default_factory=list)
    spaces: dict[str, int] = field(default_factory=dict)
    last_position: int = 0

    @property
    def bits(self) -> tuple[int, int]:
        """The number of bits of a key for sample and position."""
        return max(len(self.names) - 1, 1).bit_length(), max(self.last_position, 1).bit_length()


def numbered(rows: Rows) -> Numbered:
    """Number the samples in the order of their names."""
    import pyarrow.compute as pc

    names: set[str] = set()
    out = Numbered()
    for batch in rows(["space", "sample", "position"]):
        names.update(pc.unique(batch["sample"]).to_pylist())
        for pair in pc.value_counts(batch["space"]).to_pylist():
            out.spaces[pair["values"]] = out.spaces.get(pair["values"], 0) + pair["counts"]
        span = pc.min_max(batch["position"]).as_py()
        if (span["min"] or 0) < 0:
            raise DataError(
                f"Table 'activations', column 'position': {span['min']} is negative. Positions "
                "count from 0."
            )
        out.last_position = max(out.last_position, span["max"] or 0)
    out.names = sorted(names)
    return out


class Scratch:
    """The entries of each space, as keys and values, in temporary files."""

    def __init__(self, folder: Path, numbered: Numbered) -> None:
        self._folder, self._numbered = folder, numbered
        self._numbers = {space: number for number, space in enumerate(sorted(numbered.spaces))}
        self._seen: dict[str, np.ndarray] = {}

    def fill(self, rows: Rows) -> None:
        """Write all entries."""
        import pyarrow as pa

        names = pa.array(self._numbered.names, pa.string())
        with ExitStack() as stack:
            files: dict[str, tuple[BinaryIO, BinaryIO]] = {}
            for batch in _larger(rows(["space", "sample", "position", "features", "values"])):
                for space, part in _by_space(batch):
                    if space not in files:
                        opened = [
                            stack.enter_context(path.open("wb")) for path in self._paths(space)
                        ]
                        files[space] = opened[0], opened[1]
                    for file, content in zip(
                        files[space], self._packed(space, part, names), strict=True
                    ):
                        content.tofile(file)

    def samples(self, space: str) -> int:
        """How many samples have rows in a space."""
        return int(self._seen[space].sum())

    def token_count(self, space: str) -> int:
        """How many tokens of samples have rows in a space; a token that two stages kept counts
        once.
        """
        import numpy as np

        return len(np.unique(np.fromfile(self._positions_file(space), np.uint64)))

    def _positions_file(self, space: str) -> Path:
        return self._folder / f"{self._numbers[space]}.positions"

    def _packed(self, space: str, rows: pa.Table, names: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Key and value of each entry."""
        import numpy as np
        import pyarrow.compute as pc

        lists = rows["features"].combine_chunks()
        features = pc.list_flatten(lists).to_numpy().astype(np.uint64)
        values = pc.list_flatten(rows["values"].combine_chunks()).to_numpy()
        lengths = pc.list_value_length(lists).to_numpy()
        if len(features) != len(values):
            raise DataError(
                "Table 'activations': a row has lists of different lengths under 'features' and "
                "'values'."
            )
        sample_bits, position_bits = self._numbered.bits
        if sample_bits + position_bits + int(features.max(initial=0)).bit_length() > 64:
            raise DataError(
                f"Table 'activations': {len(self._numbered.names):,} samples, positions up to "
                f"{self._numbered.last_position:,} and feature {features.max():,} need more than "
                "64 bits together. Split the samples over several runs."
            )
        numbers = (
            pc.index_in(rows["sample"].combine_chunks(), value_set=names)
            .to_numpy()
            .astype(np.uint64)
        )
        self._seen.setdefault(space, np.zeros(len(names), bool))[numbers] = True
        index = (numbers << np.uint64(position_bits)) | rows["position"].to_numpy().astype(
            np.uint64
        )
        with self._positions_file(space).open("ab") as file:
            index.tofile(file)
        return (features << np.uint64(sample_bits + position_bits)) | np.repeat(
            index, lengths
        ), values

    def chunks(self, space: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The entries of a space in order, each once: keys and values, whole features at a time.
        They can be read once.
        """
        for paths in self._sortable_files(self._paths(space)):
            yield _sorted(*_taken(paths))

    def _sortable_files(self, paths: Paths) -> Iterator[Paths]:
        """The files of a space in the order of their features; each has few enough entries to be
        sorted at once.
        """
        if not self._size(paths):
            return
        if self._size(paths) <= AT_ONCE:
            yield paths
            return
        shift, ranges = _ranges(lambda: _read(paths), sum(self._numbered.bits))
        parts = [
            (Path(f"{paths[0]}.{number}"), Path(f"{paths[1]}.{number}"))
            for number in range(int(ranges[-1]) + 1)
        ]
        for keys, values in _read(paths):
            for number, content in _by_range(ranges[keys >> shift], keys, values):
                for path, column in zip(parts[number], content, strict=True):
                    with path.open("ab") as file:
                        column.tofile(file)
        _remove(paths)
        yield from parts

    def entries(self, space: str) -> int:
        """The number of entries of a space; entries that two stages kept count twice."""
        return self._size(self._paths(space))

    def _size(self, paths: Paths) -> int:
        return paths[0].stat().st_size // 8 if paths[0].exists() else 0

    def _paths(self, space: str) -> Paths:
        number = self._numbers[space]
        return self._folder / f"{number}.keys", self._folder / f"{number}.values"


def _larger(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join batches to a size that is worth processing."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(part) for part in waiting) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _by_space(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow.compute as pc

    spaces = pc.unique(rows["space"]).to_pylist()
    for space in spaces:
        yield (
            space,
            rows
            if len(spaces) == 1
            else rows.filter(pc.equal(rows["space"], space)).combine_chunks(),
        )


def _taken(paths: Paths) -> tuple[np.ndarray, np.ndarray]:
    """Read all keys and values of files, and remove the files."""
    import numpy as np

    entries = np.fromfile(paths[0], np.uint64), np.fromfile(paths[1], np.float32)
    _remove(paths)
    return entries


def _remove(paths: Paths) -> None:
    for path in paths:
        path.unlink()


def _read(paths: Paths) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Keys and values in files, some at a time."""
    import numpy as np

    with paths[0].open("rb") as keys, paths[1].open("rb") as values:
        while len(some := np.fromfile(keys, np.uint64, _READ_AT_ONCE)):
            yield some, np.fromfile(values, np.float32, len(some))


def _ranges(
    read: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], shift: int
) -> tuple[np.uint64, np.ndarray]:
    """How many bits keys are shifted to give a bucket, and the range of features that each bucket
    belongs to.

    No range has more entries than are sorted at once, unless one bucket alone has them. A bucket
    has whole features.
    """
    import numpy as np

    last = max(int(keys.max()) for keys, _ in read())
    by = np.uint64(max(shift, last.bit_length() - _BUCKET_BITS))
    counts = np.zeros((last >> int(by)) + 1, np.int64)
    for keys, _ in read():
        counts += np.bincount((keys >> by).astype(np.int64), minlength=len(counts))
    ranges, number, entries = np.zeros(len(counts), np.uint32), 0, 0
    for bucket, count in enumerate(counts.tolist()):
        if entries and entries + count > AT_ONCE:
            number, entries = number + 1, 0
        ranges[bucket] = number
        entries += count
    return by, ranges.astype(np.min_scalar_type(number))


def _by_range(
    ranges: np.ndarray, keys: np.ndarray, values: np.ndarray
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """The entries of each range that has any."""
    import numpy as np

    order = np.argsort(ranges, kind="stable")
    numbers, starts = np.unique(ranges[order], return_index=True)
    for number, part in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield number, (keys[part], values[part])


def _sorted(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by key; of equal keys keep the largest value."""
    import numpy as np

    order = np.argsort(keys)
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    if len(starts) == len(keys):
        return keys, values
    return keys[starts], np.maximum.reduceat(values, starts)
