"""Two runs compared: which features fire more often in the second, and how little of the
store is read for it.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import toolkit_store
from tests.store.test_features import TWO, rows_of, views, write
from toolkit.errors import BadInput
from toolkit_store import Store, open_store
from toolkit_store.query import by_index
from toolkit_store.query.committed_rows import CommittedRows
from toolkit_store.query.diff import common_spaces, diff_views


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create=True)


def test_diff_of_two_runs(store: Store) -> None:
    keys = write(store, {"k": TWO, "l": {("A", "s3", 0): {1: 9.0, 4: 1.0}}})
    for run, steps in (("one", keys[:1]), ("two", keys[1:])):
        store.index(steps)
        store.record_run(run=run, name="n", state="done", steps=steps)
    features = toolkit_store.open(store.folder)
    result = features.diff("one", "two", "A")
    columns = ["feature", "count_a", "max_a", "rate_a", "count_b", "max_b", "rate_b", "change"]
    assert result.columns == ["space", "run_a", "run_b", *columns]
    assert rows_of(result.select(columns)) == [
        (4, 0, None, 0.0, 1, 1.0, 1.0, 1.0),
        (2, 1, 2.0, 0.5, 0, None, 0.0, -0.5),
        (1, 2, 3.0, 1.0, 1, 9.0, 1.0, 0.0),
    ]
    with pytest.raises(BadInput, match="Run two has no space 'B'"):
        features.diff("one", "two", "B")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_token_that_two_stages_of_a_run_kept_counts_once(store: Store, indexed: bool) -> None:
    last = {("A", "s1", 5): {1: 1.0, 2: 2.0}, ("A", "s2", 6): {1: 3.0}}
    keys = write(store, {"k": last, "again": last, "l": {("A", "s1", 5): {1: 9.0}}})
    for run, steps in (("one", keys[:2]), ("two", keys[2:])):
        if indexed:
            store.index(steps)
        store.record_run(run=run, name="n", state="done", steps=steps)
    features = toolkit_store.open(store.folder)
    first, second = features.run("one"), features.run("two")
    assert first.looked_at("A") == (2, 2)
    common = common_spaces(first, second, ["A"])
    assert (common.spaces, common.left_out) == (["A"], {})
    result = diff_views(first, second, common.spaces)
    assert rows_of(result.select("feature", "count_a", "rate_a")) == [(2, 1, 0.5), (1, 2, 1.0)]


def test_a_diff_of_several_spaces_reads_what_is_known_of_a_run_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = write(store, {"k": TWO, "l": {("A", "s3", 0): {1: 9.0}, ("B", "s3", 0): {1: 9.0}}})
    for run, key in zip(("one", "two"), keys, strict=True):
        store.index([key])
        store.record_run(run=run, name="n", state="done", steps=[key])
    features = toolkit_store.open(store.folder)
    apart = [features.diff("one", "two", space) for space in "AB"]
    read: list[str] = []
    find = CommittedRows.find
    monkeypatch.setattr(
        CommittedRows,
        "find",
        lambda self, name, *rest: read.append(name) or find(self, name, *rest),
    )
    together = diff_views(features.run("one"), features.run("two"), ["A", "B"])
    assert read == ["feature_index", "feature_index"]
    order = [pl.col("change").abs(), "space", "feature"]
    assert together.equals(pl.concat(apart).sort(order, descending=[True, False, False]))
    assert together["space"].n_unique() == 2


def test_the_newest_directories_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_index, "_DIRECTORIES", 2)
    rows = {(space, "s", 0): {1: float(number + 1)} for number, space in enumerate("ABCD")}
    keys = write(store, {"k": rows})
    *_, view = views(store, keys)
    for spaces in ("ABC", "A", "D", "CD", "DCBA"):
        view.prefetch(spaces)
        assert [view.frequent(space)["max"].to_list() for space in spaces] == [
            [float("ABCD".index(space) + 1)] for space in spaces
        ]
