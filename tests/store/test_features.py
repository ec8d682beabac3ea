"""Questions to a store: each answer with an index and without one, against a dictionary of
dictionaries.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings

import toolkit_store
from toolkit.errors import BadInput, DataError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import RunView, Store, open_store
from toolkit_store.filters import holds
from toolkit_store.index import postings, scratch
from toolkit_store.query import by_index

Model = dict[tuple[str, str, int], dict[int, float]]
"""(space, sample, position) -> feature -> value."""
Rows = Mapping[tuple[str, str, int], Mapping[int, float]]


def arrow(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(name))


def acts(rows: Rows) -> pa.Table:
    return arrow(
        "activations",
        [
            {
                "space": space,
                "sample": sample,
                "position": at,
                "features": list(result),
                "values": list(result.values()),
            }
            for (space, sample, at), result in rows.items()
        ],
    )


def samples(*names: str, pieces: Sequence[str] = ("a", "b", "c")) -> pa.Table:
    fixed = {
        "cluster": "c",
        "text": "abc",
        "token_ids": [1, 2, 3],
        "pieces": list(pieces),
        "spans": [],
        "prompt_hash": "h",
    }
    return arrow(
        "samples", [{"sample": name, "unit": f"unit of {name}", **fixed} for name in names]
    )


def spaces(*names: str, width: int = 8) -> pa.Table:
    fixed = {
        "model": "m",
        "revision": "1",
        "hookpoint": "resid_post.1",
        "sae": "s",
        "sae_hash": "h",
        "recipe": "relu",
    }
    return arrow(
        "spaces",
        [{"space": name, "address": f"m/{name}", "width": width, **fixed} for name in names],
    )


def write(store: Store, steps: Mapping[str, Rows]) -> list[str]:
    for key, rows in steps.items():
        store.commit(make_step(key), {"activations": acts(rows)})
    return list(steps)


def views(store: Store, keys: Sequence[str]) -> Iterator[RunView]:
    """The run before it has an index, while it runs, and after."""
    store.record_run(run="r", name="n", state="running")
    yield toolkit_store.open(store.folder).run("r")
    store.index(keys, run="r")
    store.record_run(run="r", name="n", state="done", steps=keys)
    yield toolkit_store.open(store.folder).run("r")


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of 3 entries, 5 entries sorted at a time, 4 read: all that large data does, with
    little.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (postings, by_index):
            patch.setattr(module, "BLOCK", 3)
        patch.setattr(scratch, "AT_ONCE", 5)
        patch.setattr(scratch, "_READ_AT_ONCE", 4)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create=True)


def rows_of(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.rows()


# --- against a model ---

VALUES = st.sampled_from([0.25, 0.5, 1.0, 2.0, 100.0])
ENTRIES = st.dictionaries(
    st.integers(0, 5) | st.sampled_from([70_000, (1 << 24) + 1]), VALUES, max_size=5
)
PLACES = st.tuples(
    st.sampled_from(["A", "it's"]),
    st.sampled_from(["s1", "s2", "é'"]),
    st.integers(0, 2) | st.just(4000),
)
STEPS = st.lists(st.dictionaries(PLACES, ENTRIES, max_size=8), min_size=1, max_size=3)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(STEPS)
def test_answers_are_those_of_a_dictionary(steps: list[Model]) -> None:
    check_answers(steps)


@pytest.mark.slow
def test_more_than_a_block_is_asked_for() -> None:
    check_answers([{("A", f"s{number}", 0): {1: float(number % 4)} for number in range(25)}])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_answers_are_those_of_a_dictionary_at_length(steps: list[Model]) -> None:
    check_answers(steps)


def check_answers(steps: list[Model]) -> None:
    model: Model = {}
    for rows in steps:
        for place, result in rows.items():
            kept = model.setdefault(place, {})
            kept.update(
                {feature: max(value, kept.get(feature, 0)) for feature, value in result.items()}
            )
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        store = open_store(folder, create=True)
        keys = write(store, {f"k{number}": rows for number, rows in enumerate(steps)})
        for view in views(store, keys):
            for space in {space for space, _, _ in model}:
                compare(view, model, space)


def compare(view: RunView, model: Model, space: str) -> None:
    activations = {
        (sample, at): result for (name, sample, at), result in model.items() if name == space
    }
    fired = {feature for result in activations.values() for feature in result}
    counts = {
        feature: (
            len({sample for (sample, _), result in activations.items() if feature in result}),
            max_of(activations, feature),
        )
        for feature in fired
    }
    ordered = sorted(
        ((feature, *count) for feature, count in counts.items()), key=lambda row: (-row[1], row[0])
    )
    assert rows_of(view.frequent(space)) == ordered
    assert rows_of(view.frequent(space, 2)) == [row for row in ordered if row[1] >= 2]
    assert view.looked_at(space)[0] == len({sample for sample, _ in activations})
    for feature in (*sorted(fired)[-3:], 7):
        entries = sorted(
            (sample, at, result[feature])
            for (sample, at), result in activations.items()
            if feature in result
        )
        assert rows_of(view.activations(space, feature)) == entries
        hardest = sorted(entries, key=lambda row: (-row[2], row[0], row[1]))
        for k in (2, 20):
            assert rows_of(view.top(space, feature, k).drop("unit")) == hardest[:k]
        assert rows_of(view.coactive(space, feature)) == coactive_counts(activations, feature)
    for sample in {sample for sample, _ in activations}:
        active = [
            (space, at, *entry)
            for (name, at), result in activations.items()
            if name == sample
            for entry in result.items()
        ]
        by_strength = sorted(active, key=lambda row: (row[1], -row[3], row[2]))
        assert rows_of(view.sample(sample, space=space)) == by_strength
        assert rows_of(view.sample(sample, 1, space)) == [row for row in by_strength if row[1] == 1]


def max_of(activations: Mapping[tuple[str, int], Mapping[int, float]], feature: int) -> float:
    return max(result[feature] for result in activations.values() if feature in result)


def coactive_counts(
    activations: Mapping[tuple[str, int], Mapping[int, float]], feature: int
) -> list[tuple[Any, ...]]:
    sets: dict[int, set[tuple[str, int]]] = {}
    for place, result in activations.items():
        for other in result:
            sets.setdefault(other, set()).add(place)
    mine = sets.pop(feature, set())
    rows = [
        (other, len(mine & result), len(result), len(mine & result) / len(mine | result))
        for other, result in sets.items()
    ]
    return sorted((row for row in rows if row[1]), key=lambda row: (-row[3], -row[1], row[0]))


# --- the index ---

TWO = {("A", "s1", 0): {1: 1.0, 2: 2.0}, ("A", "s2", 1): {1: 3.0}, ("B", "s1", 0): {1: 5.0}}


def test_scalar_indexes_are_used(store: Store) -> None:
    store.index(write(store, {"k": TWO}))
    by_place = store.database.plan(
        "postings", f"place = {postings.lookup_number('k', 1)}", ["values"]
    )
    assert "ScalarIndexQuery: query=[place =" in by_place
    first, last = postings.lookup_range("k")
    assert "ScalarIndexQuery" in store.database.plan(
        "postings", f"place >= {first} AND place <= {last}", ["values"]
    )
    by_sample = store.database.plan("activations", "sample = 's1' AND space = 'A'", ["values"])
    assert "ScalarIndexQuery: query=[sample = s1]@by_sample(BTree)" in by_sample


def test_rows_with_a_feature_are_found_without_an_index(store: Store) -> None:
    store.index(write(store, {"k": TWO}))
    assert "ScalarIndexQuery" not in store.database.plan(
        "activations", holds("features", 2), ["values"]
    )
    assert store.database.rows("activations", holds("features", 2), ["sample"])[
        "sample"
    ].to_pylist() == ["s1"]
    assert len(store.database.rows("activations", holds("features", 7))) == 0


def test_index_is_made_once_and_shared(store: Store) -> None:
    keys = write(store, {"k": TWO, "l": {("A", "s3", 0): {1: 9.0}}})
    assert store.index(keys, run="one") == 3
    assert store.index(keys[::-1], run="two") == 0
    assert store.index(["k"]) == 3  # other steps, another index
    assert store.index(["unknown"]) == 0
    assert [row.key for row in store.steps()] == ["k", "l"]


def test_rows_that_come_after_the_index_are_found_too(store: Store) -> None:
    store.index(write(store, {"k": TWO}))
    more = write(store, {"l": {("A", "s3", 0): {1: 9.0}}})
    assert not store.database.indexed("activations")
    store.index(["k", *more])
    assert store.database.indexed("activations")
    assert store.database.indexed("postings")
    store.record_run(run="r", name="n", state="done", steps=["k", "l"])
    assert rows_of(toolkit_store.open(store.folder).run().activations("A", 1)) == [
        ("s1", 0, 1.0),
        ("s2", 1, 3.0),
        ("s3", 0, 9.0),
    ]


def test_places_that_are_shared_by_chance_are_told_apart(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postings, "lookup_range", lambda step: (0, (1 << 40) - 1))
    monkeypatch.setattr(by_index, "lookup_range", postings.lookup_range)
    monkeypatch.setattr(
        by_index, "lookup_number", lambda step, feature, block=0: feature << 16 | block
    )
    keys = write(store, {"k": TWO})
    *_, view = views(store, keys)
    assert rows_of(view.activations("B", 1)) == [("s1", 0, 5.0)]
    assert rows_of(view.coactive("A", 1)) == [(2, 1, 1, 0.5)]


def test_positions_must_not_be_negative(store: Store) -> None:
    with pytest.raises(DataError, match="column 'position': -1 is negative"):
        store.index(write(store, {"k": {("A", "s", -1): {1: 1.0}}}))


def test_lists_must_be_as_long_as_each_other(store: Store) -> None:
    rows = acts(TWO).to_pylist()
    rows[0]["values"] = [1.0]
    store.commit(make_step("k"), {"activations": arrow("activations", rows)})
    with pytest.raises(DataError, match="lists of different lengths"):
        store.index(["k"])


def test_keys_that_do_not_fit_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match="need more than 64 bits together"):
        store.index(
            write(store, {"k": {("A", f"s{i}", 2**31 - 1): {2**32 - 1: 1.0} for i in range(5)}})
        )


# --- the other questions ---


def test_top_names_the_unit_and_tokens_the_pieces(store: Store) -> None:
    store.commit(make_step("k"), {"activations": acts(TWO), "samples": samples("s1", "s2")})
    for view in views(store, ["k"]):
        assert rows_of(view.top("A", 1)) == [
            ("s2", 1, 3.0, "unit of s2"),
            ("s1", 0, 1.0, "unit of s1"),
        ]
        assert rows_of(view.tokens("A", 1, "s2")) == [(0, "a", None), (1, "b", 3.0), (2, "c", None)]
        assert rows_of(view.tokens("A", 2, "s2")) == [(0, "a", None), (1, "b", 0.0), (2, "c", None)]
        with pytest.raises(BadInput, match="Run r has no sample 's9'"):
            view.tokens("A", 1, "s9")


def test_values_of_several_samples_are_read_at_once(store: Store) -> None:
    store.commit(make_step("k"), {"activations": acts(TWO), "samples": samples("s1", "s2")})
    elsewhere = make_step("other", run="another")
    store.commit(elsewhere, {"activations": acts({("A", "s1", 2): {1: 9.0}})})
    for view in views(store, ["k"]):
        one = [("s1", 0, 1.0), ("s2", 1, 3.0)]
        assert rows_of(view.values("A", 1, ["s2", "s1", "s9"])) == one
        assert rows_of(view.values("A", 7, ["s2"])) == [("s2", 1, 0.0)]
        assert rows_of(view.values("A", 1, [])) == []


def test_a_feature_is_named_as_on_the_command_line(store: Store) -> None:
    sae = "layer_20/width_16k/average_l0_71"
    row = {
        **spaces("A", width=16_384).to_pylist()[0],
        "model": "google/gemma-2-2b",
        "sae": sae,
        "hookpoint": "resid_post.20",
    }
    there = arrow("spaces", [row | {"address": f"google/gemma-2-2b/resid_post.20/{sae}"}])
    store.commit(make_step("k"), {"activations": acts(TWO), "spaces": there})
    for view in views(store, ["k"]):
        for address in (
            "20/1",
            "L20-1",
            "A:1",
            f"google/gemma-2-2b/resid_post.20/{sae}:1",
            "gemma-2-2b/20-gemmascope-res-16k/1",
        ):
            assert view.feature(address) == ("A", 1)
        assert view.top(*view.feature("20/1"))["value"].to_list() == [3.0, 1.0]
        with pytest.raises(BadInput, match=r"no space at layer 3\. Layers: 20"):
            view.feature("3/1")
        with pytest.raises(BadInput, match="its width is 16384"):
            view.feature("20/16384")


def test_unknown_names_are_reported(store: Store, tmp_path: Path) -> None:
    features = toolkit_store.open(store.folder)
    with pytest.raises(BadInput, match="holds no runs yet"):
        features.run()
    for view in views(store, write(store, {"k": TWO})):
        for ask in (view.activations, view.top, view.coactive):
            with pytest.raises(BadInput, match=r"Run r has no space 'C'\. Spaces: A, B"):
                ask("C", 1)
        assert view.sample("nobody").is_empty()
    with pytest.raises(BadInput, match=r"There is no run 'rr' in .*Did you mean 'r'"):
        features.run("rr")


@pytest.mark.parametrize("feature", [-1, 1 << 32])
def test_numbers_that_no_feature_has_are_refused(store: Store, feature: int) -> None:
    for view in views(store, write(store, {"k": TWO})):
        for ask in (
            view.activations,
            view.top,
            view.entries,
            view.coactive,
            partial(view.tokens, sample="s1"),
            view.effects,
        ):
            with pytest.raises(
                BadInput, match=f"There is no feature {feature}: features are numbered from 0"
            ):
                ask("A", feature)


def test_fewer_rows_than_none_are_refused(store: Store) -> None:
    for view in views(store, write(store, {"k": TWO})):
        for ask in (view.top, view.coactive, view.similar):
            with pytest.raises(BadInput, match="k=-1: the number of rows must be 0 or more"):
                ask("A", 1, -1)
        with pytest.raises(BadInput, match="k=-1: the number of rows"):
            view.sql("SELECT 1 AS x", -1)
        assert view.top("A", 1, 0).is_empty()


def test_partial_run_has_the_steps_it_committed_and_those_it_is_told_of(store: Store) -> None:
    write(store, {"k": TWO})
    store.commit(
        make_step("other", run="before"), {"activations": acts({("A", "s9", 0): {1: 4.0}})}
    )
    store.record_run(run="r", name="n", state="running")
    features = toolkit_store.open(store.folder)
    assert features.run().partial
    assert features.run().activations("A", 1)["sample"].to_list() == ["s1", "s2"]
    assert features.run(steps=["other"]).activations("A", 1)["sample"].to_list() == [
        "s1",
        "s2",
        "s9",
    ]


def test_features_and_effects(store: Store) -> None:
    stats = arrow(
        "features",
        [
            {"space": "A", "feature": 1, "stat": stat, "group": "", "number": 1.0, "text": None}
            for stat in ("d", "q")
        ],
    )
    fixed = {"screen": "c", "space": "A", "outcome": "o", "probability": 0.5, "effect": 0.1}
    effects = arrow(
        "effects",
        [
            {**fixed, "feature": number, "sample": sample, "arm": "up"}
            for number in (1, 2)
            for sample in ("*", "s1")
        ],
    )
    store.commit(make_step("k", stage="compare"), {"features": stats})
    store.commit(make_step("l", stage="patch"), {"effects": effects})
    store.record_run(run="r", name="n", state="done", steps=["k", "l"])
    view = toolkit_store.open(store.folder).run()
    assert view.features()["stat"].to_list() == ["d", "q"]
    assert view.features("A", "q")["stage"].to_list() == ["compare"]
    assert view.features("B").is_empty()
    assert (
        view.features(stat="q")
        .drop("stage")
        .equals(view.features().filter(pl.col("stat") == "q").drop("stage"))
    )
    assert view.effects()["feature"].to_list() == [1, 2]
    assert rows_of(view.effects("A", 2, "up", samples=True).select("sample", "stage")) == [
        ("s1", "patch")
    ]


def test_similar_reads_decoder_rows_in_ranges(store: Store) -> None:
    rows = np.array([[1, 0], [2, 0.1], [0, 3], [-1, 0], [0, 0]], np.float32)
    store.commit(make_step("k"), {"spaces": spaces("A", width=5)})
    store.record_run(run="r", name="n", state="done", steps=["k"])
    view = toolkit_store.open(store.folder).run()
    result = view.similar("A", 0, 3, rows)
    assert result["feature"].to_list() == [1, 2, 4]
    assert result["cosine"][0] == pytest.approx(2 / np.hypot(2, 0.1))
    assert view.similar("A", 0, 3, lambda first, last: rows[first:last]).equals(result)
    with pytest.raises(BadInput, match=r"no feature 5 in space 'A'; its width is 5 \(0 to 4\)"):
        view.similar("A", 5, rows=rows)
    with pytest.raises(BadInput, match="decoder rows of the space are needed"):
        view.similar("A", 0)
    with pytest.raises(BadInput, match="does not say how wide space 'B' is"):
        view.similar("B", 0, rows=lambda first, last: rows[first:last])


# --- SQL ---


@pytest.fixture
def features(store: Store) -> toolkit_store.Features:
    store.commit(
        make_step("k"),
        {"activations": acts(TWO), "samples": samples("s1", "s2"), "spaces": spaces("A", "B")},
    )
    store.commit(make_step("l"), {"spaces": spaces("A")})
    store.commit(make_step("foreign", run="x"), {"samples": samples("s3")})
    store.record_run(run="r", name="n", state="done", steps=["k", "l"])
    return toolkit_store.open(store.folder)


def test_sql_sees_the_rows_of_the_run(features: toolkit_store.Features) -> None:
    assert features.sql("SELECT sample FROM samples ORDER BY sample;")["sample"].to_list() == [
        "s1",
        "s2",
    ]
    assert features.sql("SELECT count(*) AS n FROM spaces")["n"].to_list() == [
        2
    ]  # facts are counted once
    counted = (
        "WITH a AS (SELECT space, position FROM activations WHERE sample = 's1') SELECT space FROM "
        "a ORDER BY space LIMIT 1"
    )
    assert features.sql(counted)["space"].to_list() == ["A"]
    joined = (
        'SELECT a.sample, "unit" FROM activations a JOIN samples s ON a.sample '
        "= "
        "s.sample WHERE "
        "a.space = 'B' -- done"
    )
    assert rows_of(features.sql(joined)) == [("s1", "unit of s1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Only SELECT is allowed"),
        ("DROP TABLE samples", "Only SELECT is allowed"),
        ("/* SELECT */ DELETE FROM samples", "Only SELECT is allowed"),
        ("SELECT 1; DROP TABLE samples", "One statement at a time"),
        ("SELECT * FROM read_csv('/etc/passwd')", "no function 'read_csv'."),
        ("SELECT * FROM READ_Parquet ('x')", "no function 'READ_Parquet'."),
        ("SELECT * FROM \"read_csv\"('/etc/passwd')", "functions are written without quotes"),
        ("SELECT * FROM passwd", "polars cannot run this statement"),
        ("SELECT * FROM '/etc/passwd'", "polars cannot run this statement"),
        ("SELECT nothing FROM samples", "polars cannot run this statement"),
        ("SELECT 'unclosed", "At character 8 of the statement"),
    ],
)
def test_sql_refuses(features: toolkit_store.Features, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        features.sql(text)


# --- whoever asks ---


def test_questions_from_threads_and_from_a_running_loop_are_answered(store: Store) -> None:
    store.record_run(run="r", name="n", state="done", steps=write(store, {"k": TWO}))
    view = toolkit_store.open(store.folder).run()
    expected = view.activations("A", 1).rows()

    async def ask() -> list[tuple[Any, ...]]:
        return view.activations("A", 1).rows()

    assert asyncio.run(ask()) == expected
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: view.activations("A", 1).rows(), range(8))) == [expected] * 8
    assert view.activations("A", 1).rows() == expected
