"""Reading a table a space at a time: the rows that one read gives, and no more of them in memory
than one space has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from toolkit.errors import StoreError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store

SPACES, SAMPLES, ACTIVE = 16, 200, 50
POOLS: list[pa.MemoryPool] = []
"""Kept to the end: a buffer that outlives its pool is freed into nothing."""


def activations(samples: range, spaces: int, active: int) -> pa.Table:
    """Rows as an extraction writes them: a pass after the other, each with every space."""
    rng = np.random.default_rng(samples.start)
    places = [
        (f"space{space:02d}", f"n{sample:05d}")
        for space in reversed(range(spaces))
        for sample in samples
    ]
    columns = {
        "space": [space for space, _ in places],
        "sample": [sample for _, sample in places],
        "position": [3] * len(places),
        "features": [np.arange(active)] * len(places),
        "values": [rng.random(active).astype(np.float32) for _ in places],
    }
    return pa.table(columns, schema=arrow_schema("activations"))


def filled(
    path: Path,
    values: str = "float32",
    spaces: int = SPACES,
    samples: int = SAMPLES,
    active: int = ACTIVE,
) -> Store:
    store = open_store(path, create=True, values=values)
    for key, numbers in (("b", range(samples // 2)), ("a", range(samples // 2, samples))):
        store.commit(make_step(key), {"activations": activations(numbers, spaces, active)})
    return store


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """The most bytes that Arrow held since it began."""
    before, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    POOLS.append(counted)
    pa.set_memory_pool(counted)
    try:
        yield lambda: counted.max_memory() or 0
    finally:
        pa.set_memory_pool(before)


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_the_parts_are_the_rows_that_one_read_gives(values: str, tmp_path: Path) -> None:
    store, scratch = (
        filled(tmp_path / "store", values, spaces=3, samples=10, active=4),
        tmp_path / "scratch",
    )
    parts = list(store.read_by_space("activations", ["a", "b", "unknown"], scratch))
    assert [part["space"].unique().to_pylist() for part in parts] == [
        ["space00"],
        ["space01"],
        ["space02"],
    ]
    assert pa.concat_tables(parts).equals(store.read("activations", ["a", "b"]))
    assert not scratch.exists()


def test_without_rows_there_are_no_parts(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", spaces=1, samples=2, active=1)
    assert list(store.read_by_space("activations", ["unknown"], tmp_path / "scratch")) == []
    assert list(store.read_by_space("features", ["a"], tmp_path / "scratch")) == []


def test_rows_that_are_not_as_many_as_the_ledger_says_are_refused_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    store = filled(tmp_path / "store", spaces=2, samples=4, active=1)
    store.database.delete("activations", "space = 'space01' AND step = 'a'")
    with pytest.raises(StoreError, match="holds 6 rows of these steps, and the ledger says 8"):
        list(store.read_by_space("activations", ["a", "b"], tmp_path / "scratch"))
    assert not (tmp_path / "scratch").exists()


def test_memory_holds_one_part(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    whole = store.read("activations", ["a", "b"]).nbytes
    with peak() as used:
        for part in store.read_by_space("activations", ["a", "b"], tmp_path / "scratch"):
            assert part.nbytes < whole / (SPACES / 2)
        # Rows wait in memory until they are worth writing, and are then filtered: that is bounded,
        # whatever the table is.
        assert used() < whole / 2
