"""Keeping a store: flipped bits are named, files are joined, unused indexes go,
float16.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import toolkit_store
from toolkit.errors import BadInput, DataError, StoreNotUsable
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, file_sizes, open_store
from toolkit_store.index import build as indexing


def acts(sample: str, value: float = 1.5) -> pa.Table:
    row = {
        "space": "A",
        "sample": sample,
        "position": 0,
        "features": [1, 2],
        "values": [value, 0.5],
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("activations"))


def filled(folder: Path, *keys: str, values: str = "float32") -> Store:
    store = open_store(folder, create=True, values=values)
    for key in keys:
        store.commit(make_step(key), {"activations": acts(f"sample of {key}")})
    store.index(keys)
    store.record_run(run="r", name="n", state="done", steps=keys)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path / "store", "k", "l")


# --- check ---


def test_a_sound_store_has_no_problems(store: Store) -> None:
    report = store.check()
    assert (report.problems, report.notes) == ([], [])
    assert report.files > 10
    assert report.bytes == sum(store.sizes().values()) - sum(
        hint.stat().st_size for hint in store.folder.rglob("latest_version_hint.json")
    )


def test_every_file_with_a_flipped_bit_is_named(store: Store) -> None:
    draw = random.Random(0)
    files = [
        path
        for path in (store.folder / "tables").rglob("*")
        if path.is_file() and path.suffix != ".json"
    ]
    for path in draw.sample(files, 12):
        sound = path.read_bytes()
        bit = draw.randrange(len(sound) * 8)
        path.write_bytes(
            bytes(
                byte ^ (1 << bit % 8 if index == bit // 8 else 0)
                for index, byte in enumerate(sound)
            )
        )
        problems = open_store(store.folder, read_only=True).check().problems
        assert len(problems) == 1
        assert problems[0].startswith(f"{path}: its SHA-256 is")
        path.write_bytes(sound)
    assert store.check().problems == []


def test_a_shortened_and_a_lost_file_are_named(store: Store) -> None:
    path = next((store.folder / "tables" / "activations.lance" / "data").iterdir())
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    assert (
        store.check()
        .problems[0]
        .startswith(f"{path}: it has {len(sound) - 1:,} bytes, {len(sound):,} were written")
    )
    path.unlink()
    assert open_store(store.folder).check().problems == [f"{path}: it is missing"]


def test_rows_that_are_not_what_the_ledger_says_are_reported(store: Store) -> None:
    store.database.delete("activations", "step = 'k'")
    assert store.check().problems == [
        "step k: the ledger says 1 rows in table 'activations', there are 0"
    ]


def test_files_of_a_cut_off_write_are_noted_and_taken_up(store: Store) -> None:
    rows = acts("never entered").append_column(
        pa.field("step", pa.string(), False), pa.array(["gone"])
    )
    store.database.append("activations", rows)
    report = store.check()
    assert report.problems == []
    assert report.notes == [
        "table 'activations': 3 files of a write that is in progress or was cut off"
    ]
    with (store.folder / "files" / "activations.jsonl").open("a") as file:
        file.write('{"file": "data/x')  # a kill while the record was written
    store.commit(make_step("m"), {"activations": acts("m")})
    assert open_store(store.folder).check().notes == []
    store.clean()
    assert open_store(store.folder).check().problems == []
    assert "data/x" not in (store.folder / "files" / "activations.jsonl").read_text()


# --- compact and gc ---


@pytest.mark.slow
def test_files_are_joined_as_they_grow_many(store: Store) -> None:
    with store.writer():
        for number in range(70):
            store.commit(make_step(f"s{number}"), {"activations": acts(f"s{number}")})
    stats = store.database._table("activations").stats()
    assert stats["fragment_stats"]["num_fragments"] < 64
    assert stats["num_rows"] == 72


@pytest.mark.slow
def test_compact_changes_nothing_that_is_read(store: Store) -> None:
    with store.writer():
        for number in range(10):
            store.commit(make_step(f"s{number}"), {"activations": acts(f"s{number}")})
    keys = [row.key for row in store.steps()]
    before = store.fingerprint(keys)
    with open_store(store.folder).reading():
        store.compact()  # somebody reads: old versions stay
    assert store.database.indexed("activations")
    assert store.compact().files > 0
    assert store.fingerprint(keys) == before
    assert store.check().problems == []


def test_large_files_of_postings_are_left_as_they_are_and_indexed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sizes, "LARGE_FILE", 1)
    for key in ("k", "l"):
        store.index([key])
        assert store.database.indexed("postings")
    stats = store.database._table("postings").stats()
    assert (stats["fragment_stats"]["num_fragments"], stats["num_rows"]) == (3, 6)
    assert open_store(store.folder).check().problems == []
    store.compact()
    assert store.database._table("postings").stats()["fragment_stats"]["num_fragments"] == 1


def test_files_that_were_joined_to_a_large_one_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large from when all rows are in one file; none has an index before, so that they are joined
    at once.
    """

    def in_one_file(table: Any) -> bool:
        return bool(table.stats()["fragment_stats"]["num_fragments"] == 1)

    store = open_store(tmp_path / "store", create=True)
    for key in ("k", "l"):
        store.commit(make_step(key), {"activations": acts(f"sample of {key}")})
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_compact", lambda *_, **__: None)
        store.index(["k"])
    files = store.folder / "tables" / "postings.lance" / "data"
    monkeypatch.setattr(file_sizes, "is_mostly_large", in_one_file)
    store.index(["l"])
    assert len(list(files.iterdir())) == 1


def test_gc_drops_indexes_of_no_run_and_they_come_back(store: Store) -> None:
    store.index(["k"])
    assert store.gc().rows == {"postings": 2, "feature_index": 1, "sample_index": 1}
    assert store.index(["k", "l"]) == 0
    assert store.index(["k"]) == 2
    assert toolkit_store.open(store.folder).run().top("A", 1)["sample"].to_list() == [
        "sample of k",
        "sample of l",
    ]


def test_scratch_files_of_the_killed_are_swept(store: Store) -> None:
    left = store.folder / "scratch" / "left"
    left.mkdir(parents=True)
    (left / "0.keys").write_bytes(b"x")
    with indexing._scratch(store.folder / "scratch") as folder:
        store.clean()
        assert folder.exists()
    assert not left.exists()


# --- how values are kept ---


def streams(*values: float) -> pa.Table:
    row = {
        "space": "raw",
        "sample": "s",
        "position": 3,
        "hookpoint": "resid_post.1",
        "values": list(values),
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("streams"))


def test_streams_are_kept_as_the_store_keeps_values(tmp_path: Path) -> None:
    store = open_store(tmp_path / "half", create=True, values="float16")
    store.commit(make_step("n"), {"streams": streams(0.1, 2.0)})
    assert (
        str(store.database._table("streams").schema.field("values").type.value_type) == "halffloat"
    )
    assert store.read("streams", ["n"])["values"].to_pylist()[0] == pytest.approx(
        [0.1, 2.0], rel=1e-3
    )
    with pytest.raises(DataError, match="A value of 70000 is too large for float16"):
        store.commit(make_step("m"), {"streams": streams(70_000.0)})


def test_values_as_float16(tmp_path: Path) -> None:
    store = filled(tmp_path / "half", "k", values="float16")
    store.commit(make_step("m"), {"activations": acts("m", 0.1)})
    assert (
        str(store.database._table("activations").schema.field("values").type.value_type)
        == "halffloat"
    )
    assert (
        str(store.database._table("postings").schema.field("values").type.value_type) == "halffloat"
    )
    again = open_store(store.folder)
    assert again.read("activations", ["k"]).equals(acts("sample of k"))
    assert again.read("activations", ["m"])["values"].to_pylist()[0][0] == pytest.approx(
        0.1, rel=1e-3
    )
    assert toolkit_store.open(store.folder).run().activations("A", 1)["value"].to_list() == [1.5]
    with pytest.raises(DataError, match="A value of 70000 is too large for float16"):
        again.commit(make_step("n"), {"activations": acts("n", 70_000.0)})


def test_choice_of_values_is_settled_when_a_store_is_made(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreNotUsable, match="keeps values as float32, not as float16"):
        open_store(store.folder, values="float16")
    with pytest.raises(BadInput, match="keep values as float16, float32, not as 'int8'"):
        open_store(tmp_path / "new", create=True, values="int8")
