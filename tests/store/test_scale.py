"""What a large table costs: steps by an index, long rows a few at a time, each key looked at
once.
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import DataError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, database, indexed_columns, open_store
from toolkit_store import open as open_features
from toolkit_store.database import Database
from toolkit_store.write import repeats, rows


def acts(*samples: str, features: int = 2) -> pa.Table:
    fixed = {
        "space": "A",
        "position": 0,
        "features": list(range(features)),
        "values": [0.5] * features,
    }
    return pa.Table.from_pylist(
        [{**fixed, "sample": sample} for sample in samples], schema=arrow_schema("activations")
    )


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose tables count as large from three rows on."""
    monkeypatch.setattr(indexed_columns, "LARGE_FROM", 3)
    return open_store(tmp_path / "store", create=True)


def in_activations(result: Store, key: str) -> str:
    return result.database.plan("activations", f"step = '{key}'", ["sample"])


# --- steps ---


def test_steps_of_a_large_table_have_an_index(large: Store) -> None:
    for key in "abc":
        assert "ScalarIndexQuery" not in in_activations(large, key)
        large.commit(make_step(key), {"activations": acts(key)})
    large.index("abc")
    assert "ScalarIndexQuery: query=[step = a]@by_step(Bitmap)" in in_activations(large, "a")
    large.commit(make_step("d"), {"activations": acts("d")})
    assert not large.database.indexed("activations")
    large.compact()
    assert large.database.indexed("activations")
    assert [large.read("activations", [key])["sample"].to_pylist() for key in "abcd"] == [
        ["a"],
        ["b"],
        ["c"],
        ["d"],
    ]


def test_one_row_of_a_sample_is_found_by_its_space_too(large: Store) -> None:
    """Without the second index LanceDB reads the sample's row at every layer."""
    spaces = [acts("x", "y").set_column(0, "space", [[space] * 2]) for space in "AB"]
    with large.writer():
        for key, rows_of_one in zip("ab", spaces, strict=True):
            large.commit(make_step(key), {"activations": rows_of_one})
        large.index("ab")
        large.record_run(run="r", name="r", state="done", steps=["a", "b"])
    plan = large.database.plan("activations", "sample = 'x' AND space = 'B'", ["step"])
    assert "AND([sample = x]@by_sample(BTree),[space = B]@by_space(Bitmap))" in plan
    view = open_features(large.folder).run("r")
    assert view.sample("x", space="B")["feature"].to_list() == [0, 1]
    assert set(view.sample("x")["space"]) == {"A", "B"}


@pytest.mark.parametrize(
    ("name", "where", "index"),
    [
        ("samples", "sample = 'x'", "by_sample(BTree)"),
        ("features", "space = 'A'", "by_space(Bitmap)"),
    ],
)
def test_texts_and_statistics_of_a_large_table_are_found_by_an_index(
    large: Store, name: str, where: str, index: str
) -> None:
    """A question from another machine would else read the table from end to end."""
    fields = arrow_schema(name)
    texts = {"sample": ["x", "y", "z"], "space": ["A", "A", "B"], "group": ["", "g", ""]}
    columns = {
        field.name: texts[field.name]
        if field.name in texts
        else [[]] * 3
        if pa.types.is_list(field.type)
        else [0 if pa.types.is_integer(field.type) else None if field.nullable else "t"] * 3
        for field in fields
    }
    large.commit(make_step("k"), {name: pa.table(columns, schema=fields)})
    assert index not in large.database.plan(name, where, ["step"])
    large.compact()
    assert f"@{index}" in large.database.plan(name, where, ["step"])


@pytest.mark.slow
def test_joining_on_the_way_makes_the_index_too(large: Store) -> None:
    with large.writer():
        for number in range(70):
            large.commit(make_step(f"s{number}"), {"activations": acts(f"s{number}")})
    assert "@by_step(Bitmap)" in in_activations(large, "s1")
    assert large.check().problems == []


def test_a_commit_to_a_large_table_asks_for_its_own_key_only(
    large: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    large.commit(make_step("a"), {"activations": acts("a", "b", "c")})
    large.index(["a"])
    monkeypatch.setattr(
        Database, "count_by_step", lambda *_: pytest.fail("it read the steps of all rows")
    )
    asked: list[str] = []
    delete = Database.delete
    monkeypatch.setattr(
        Database,
        "delete",
        lambda self, name, where: (asked.append(where), delete(self, name, where)),
    )
    for writer in (large, open_store(large.folder)):  # who wrote last, and who has to look
        key = f"b{len(asked)}"
        assert writer.commit(make_step(key), {"activations": acts(key)})
    assert asked == ["step IN ('b0')", "step IN ('b1')"]


def test_what_was_cut_off_in_a_large_table_is_replaced(large: Store) -> None:
    large.commit(make_step("a"), {"activations": acts("a", "b", "c")})
    large.index(["a"])
    large.database.append(
        "activations",
        acts("cut", "off").append_column(
            pa.field("step", pa.string(), False), pa.array(["k", "k"])
        ),
    )
    large.commit(make_step("k"), {"activations": acts("whole")})
    assert large.read("activations", ["k"])["sample"].to_pylist() == ["whole"]
    assert large.orphans() == {}
    assert large.check().problems == []


def test_a_table_that_was_large_is_not_taken_for_known(
    large: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed_columns, "LARGE_FROM", 10)
    large.commit(make_step("a"), {"activations": acts("a", "b")})
    steps = ["k"] * 8 + ["m"]
    cut_off = acts(*(f"s{number}" for number in range(9))).append_column(
        pa.field("step", pa.string(), False), pa.array(steps)
    )
    large.database.append("activations", cut_off)
    for key in "km":  # after the first one it is small, and has rows that nobody asked for
        large.commit(make_step(key), {"activations": acts(key)})
    assert large.read("activations", ["k", "m"])["sample"].to_pylist() == ["k", "m"]
    assert large.orphans() == {}


# --- memory ---


def test_what_a_commit_leaves_in_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit makes files; LanceDB keeps their descriptions until a cache is full."""
    monkeypatch.setattr(database, "_WRITING_BYTES", 1 << 20)
    monkeypatch.setattr(database, "_WRITTEN_BYTES", 1 << 20)
    made = open_store(tmp_path / "store", create=True)
    with made.writer():
        for number in range(50):
            made.commit(make_step(f"k{number}"), {"activations": acts(f"s{number}")})
    assert 0 < made.database._session.size_bytes < 1.5 * (1 << 20)


# --- long rows ---


def test_postings_come_a_few_rows_at_a_time(tmp_path: Path) -> None:
    made = open_store(tmp_path / "store", create=True)
    made.commit(make_step("k"), {"activations": acts("s", features=1000)})
    made.index(["k"])
    sizes = [len(batch) for batch in made.database.batches("postings", None, ["feature", "values"])]
    assert sum(sizes) == 1000
    assert max(sizes) <= 256


# --- keys ---


def keys(*numbers: int) -> pa.Table:
    return pa.table(
        {
            "sample": [f"s{number // 3}" for number in numbers],
            "position": [number % 3 for number in numbers],
        }
    )


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=8))
def test_keys_that_come_twice_are_found_in_any_batch(batches: list[list[int]]) -> None:
    seen: set[int] = set()
    result = repeats.Keys("t")
    for batch in batches:
        twice = len(set(batch)) < len(batch) or seen & set(batch)
        if twice:
            with pytest.raises(
                DataError, match=r"the row sample='s\d+', position=\d occurs \d+ times in one step"
            ):
                result.add(keys(*batch))
            return
        result.add(keys(*batch))
        seen |= set(batch)


def test_the_key_that_comes_again_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BATCH_BYTES", 1)
    parts = [acts("a", "b"), acts("c"), acts("d", "b", "a")]
    with pytest.raises(
        DataError,
        match=r"space='A', sample='a', position=0 occurs 2 times in one step \(2 such rows\)",
    ):
        list(rows.batches("activations", parts, "k"))


def test_equal_hashes_of_one_kind_are_told_apart_by_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numpy as np

    second = repeats._hashes
    monkeypatch.setattr(
        repeats, "_hashes", lambda keys: (np.zeros(len(keys), np.uint64), second(keys)[1])
    )
    result = repeats.Keys("t")
    for start in range(0, 50, 10):
        result.add(keys(*range(start, start + 10)))
    with pytest.raises(DataError, match=r"the row sample='s12', position=1 occurs 2 times"):
        result.add(keys(60, 37, 61))


def test_no_batch_is_grouped_or_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a step of n batches costs n squared, and its keys stay in memory."""
    hashed: list[int] = []
    hashes = repeats._hashes
    monkeypatch.setattr(
        repeats, "_hashes", lambda keys: (hashed.append(len(keys)), hashes(keys))[1]
    )
    result, numbers = repeats.Keys("t"), list(range(64_000))
    random.Random(0).shuffle(numbers)
    for start in range(0, len(numbers), 1000):
        result.add(keys(*numbers[start : start + 1000]))
    assert sum(hashed) == len(numbers)
    assert sum(len(run[0]) for run in result._runs) == len(numbers)
    assert len(result._runs) <= 7
