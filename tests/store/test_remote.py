"""A store at a URI: made, refused, written by one at a time without file locks, and asked like any
other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import toolkit_store
from toolkit.errors import BadInput, StoreError, StoreNotUsable
from toolkit.tables import STORE_FORMAT, arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, local_part, locks, open_store, remote
from toolkit_store.database import Database
from toolkit_store.lance import Patience

ROWS = [
    {"space": "A", "sample": "s1", "position": 0, "features": [1, 2], "values": [1.0, 2.0]},
    {"space": "A", "sample": "s2", "position": 1, "features": [1], "values": [3.0]},
]


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "bucket" / "a-store").as_uri()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times a hundredth as long."""
    for name, seconds in (("BEAT_S", 0.05), ("EXPIRES_S", 1.0), ("POLL_S", 0.01)):
        monkeypatch.setattr(remote, name, seconds)


def fill(store: Store) -> None:
    store.commit(
        make_step("k"), {"activations": pa.Table.from_pylist(ROWS, arrow_schema("activations"))}
    )
    store.record_run(run="r", name="n", state="running")


# --- reading and writing ---


def test_answers_are_those_of_a_store_in_a_folder(uri: str, tmp_path: Path) -> None:
    stores = open_store(uri, create=True), open_store(tmp_path / "folder", create=True)
    for store in stores:
        fill(store)
    for _ in range(2):  # without an index, then with it
        there, here = (toolkit_store.open(store.uri).run() for store in stores)
        assert (
            there.top("A", 1).rows()
            == here.top("A", 1).rows()
            == [("s2", 1, 3.0, None), ("s1", 0, 1.0, None)]
        )
        assert there.sample("s1").rows() == here.sample("s1").rows()
        assert there.frequent("A").rows() == here.frequent("A").rows()
        for store in stores:
            store.index(["k"])
            store.record_run(run="r", name="n", state="done", steps=["k"])
    assert stores[0].fingerprint(["k"]) == stores[1].fingerprint(["k"])


def test_what_others_commit_is_seen_at_once(uri: str) -> None:
    store = open_store(uri, create=True)
    reader = open_store(uri, read_only=True)
    assert reader.steps() == []
    fill(store)
    assert [row.key for row in reader.steps()] == ["k"]
    assert len(reader.read("activations", ["k"])) == 2


def test_orphans_are_removed_and_damage_is_noticed(uri: str) -> None:
    store = open_store(uri, create=True)
    fill(store)
    store.database.append(
        "activations",
        pa.Table.from_pylist([{**ROWS[0], "step": "cut"}], arrow_schema("activations", step=True)),
    )
    assert store.orphans() == {"activations": 1}
    assert dict(store.gc().rows) == {"activations": 1}
    assert store.compact().rows == {}
    assert store.sizes()["activations"] > 0
    result = store.check()
    assert (result.problems, result.files) == ([], 0)
    assert "no record of sizes and hashes" in result.notes[0]
    store.database.delete("activations", "sample = 's1'")
    assert store.check().problems == [
        "step k: the ledger says 2 rows in table 'activations', there are 1"
    ]


def test_local_part_is_for_writers_and_is_the_same_store(uri: str) -> None:
    with pytest.raises(StoreNotUsable, match=r"There is no store at file:///.*Check --store"):
        open_store(uri, read_only=True)
    assert not local_part(uri).exists()
    fill(open_store(uri, create=True))
    assert (local_part(uri) / "runs").is_dir()
    assert open_store(local_part(uri), read_only=True).uri == uri
    assert [row.run for row in toolkit_store.open(local_part(uri)).runs()] == ["r"]


def test_who_was_held_up_writes_no_rows_that_others_read(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its rows, another process takes the lease, commits the very step and enters it."""
    monkeypatch.setattr(remote, "BEAT_S", 60.0)  # as of a process that is suspended
    late, rows = (
        open_store(uri, create=True),
        pa.Table.from_pylist(ROWS, arrow_schema("activations")),
    )
    locks._leases.clear()  # the next store is another process
    other = open_store(uri)

    def slow() -> Iterator[pa.Table]:
        monkeypatch.setattr(remote, "EXPIRES_S", 0.2)
        with other.writer():
            monkeypatch.setattr(remote, "EXPIRES_S", 30.0)
            assert other.commit(make_step("k"), {"activations": rows})
        monkeypatch.setattr(remote, "EXPIRES_S", 0.2)
        yield rows

    with pytest.raises(StoreError, match=r"The lease of the store at .* is lost"):
        late.commit(make_step("k"), {"activations": slow()})
    assert other.read("activations", ["k"]).num_rows == len(ROWS)
    assert other.check().problems == []


def test_rows_beyond_those_of_the_ledger_are_refused(uri: str) -> None:
    """What a write leaves that lands after all: never a result of twice the rows."""
    store = open_store(uri, create=True)
    fill(store)
    store.database.append(
        "activations",
        pa.Table.from_pylist([{**ROWS[0], "step": "k"}], arrow_schema("activations", step=True)),
    )
    with pytest.raises(
        StoreError,
        match=r"Table 'activations' in .* holds 3 rows of these steps, and "
        r"the "
        r"ledger "
        r"says 2\. `toolkit",
    ):
        store.read("activations", ["k"])
    assert store.check().problems == [
        "step k: the ledger says 2 rows in table 'activations', there are 3"
    ]


# --- what cannot be used ---


def test_foreign_tables_are_left_alone(uri: str) -> None:
    Database(uri).connection.create_table("thesis", data=[{"x": 1}])
    with pytest.raises(
        StoreNotUsable, match="is not a store: it has no table 'toolkit_store' and holds thesis"
    ):
        open_store(uri, create=True)


def test_another_format_is_refused(uri: str) -> None:
    open_store(uri, create=True)
    Database(uri).connection.open_table(remote.TABLE).update(
        values={"format": STORE_FORMAT + 1, "made_by": "sae-toolkit 9"}
    )
    with pytest.raises(
        StoreNotUsable,
        match=rf"has format {STORE_FORMAT + 1}; .* created by sae-toolkit 9\. Use that version",
    ):
        open_store(uri)


def test_choice_of_values_is_settled_when_a_store_is_made(uri: str) -> None:
    store = open_store(uri, create=True, values="float16")
    fill(store)
    assert store.read("activations", ["k"])["values"].to_pylist() == [[1.0, 2.0], [3.0]]
    with pytest.raises(StoreNotUsable, match="keeps values as float16, not as float32"):
        open_store(uri, values="float32")
    with pytest.raises(BadInput, match="float16, float32, not as 'int8'"):
        open_store(uri, values="int8")


@pytest.mark.parametrize("uri", ["s3://bucket/a%20b", "s3://bucket/a b", "s3://bucket/a?region=x"])
def test_letters_that_are_read_in_two_ways_are_refused(uri: str) -> None:
    with pytest.raises(StoreNotUsable, match=r"Give --store a URI without blanks, %, \? and #"):
        open_store(uri, create=True)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("s3://KEY:word@bucket/store", "URI of the store holds credentials"),
        ("://bucket/store", "begins with no scheme"),
        ("memory://store", "memory of one process"),
        ("s3:/bucket/store", "write two slashes, s3://bucket/store, .* its absolute path"),
        (Path("s3://bucket/store"), "write two slashes"),
    ],
)
def test_a_uri_that_is_not_meant_is_refused_before_anything_is_written(
    where: str | Path, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreNotUsable, match=message) as refused:
        open_store(where, create=True)
    assert "word" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_user_of_a_uri_is_no_password() -> None:
    """In a URI of Azure the container is before the @."""
    remote.check_uri("abfss://container@account.dfs.core.windows.net/store")


def test_what_cannot_be_reached_is_reported() -> None:
    with pytest.raises(
        StoreNotUsable,
        match=r"The store at nowhere://x cannot be reached: .*Valid schemes: "
        r".*s3.*\. "
        r"Begin --store with "
        r"one of",
    ):
        open_store("nowhere://x", create=True)


# --- the lease ---


def taken(uri: str, wait_s: float) -> remote.HeldLease:
    return remote._taken(Database(uri), wait_s, None)


def test_one_of_those_who_saw_the_same_gets_the_lease(uri: str) -> None:
    open_store(uri, create=True)
    databases = [Database(uri) for _ in range(4)]
    tables = [database.connection.open_table(remote.TABLE) for database in databases]
    seen = remote._seen(tables[0])
    got: list[remote.HeldLease | None] = []

    def reach(database: Database, table: object) -> None:
        got.append(remote._try(database, table, seen, Patience()))

    threads = [
        threading.Thread(target=reach, args=pair) for pair in zip(databases, tables, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holds = [hold for hold in got if hold is not None]
    assert len(holds) == 1
    holds[0].let_go()
    taken(uri, 0).let_go()


def test_a_store_that_another_process_makes_just_then_is_opened(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Database.names

    def made_meanwhile(database: Database) -> list[str]:
        if not names(database):
            remote._made(Database(uri), "float32")
        return names(database)

    monkeypatch.setattr(Database, "names", made_meanwhile)
    assert open_store(uri, create=True).steps() == []


def test_a_store_whose_creation_was_cut_off_is_made_again(uri: str, tmp_path: Path) -> None:
    """Its first file is there, its manifest is not: another process is creating it, or died."""
    data = tmp_path / "bucket" / "a-store" / f"{remote.TABLE}.lance" / "data"
    data.mkdir(parents=True)
    (data / "half.lance").write_bytes(b"LANC")
    with pytest.raises(remote.NoStore, match="There is no store at"):
        open_store(uri)
    store = open_store(uri, create=True)
    fill(store)
    assert len(store.steps()) == 1
    assert len(open_store(uri).read("activations", ["k"])) == 2


class LostAnswers:
    """A table whose changes are made, and answered as if they were not."""

    def __init__(self, table: Any, answer: str | None) -> None:
        self._table, self._answer = table, answer

    def update(self, **change: Any) -> Any:
        self._table.update(**change)
        if self._answer is not None:
            raise RuntimeError(self._answer)
        return SimpleNamespace(rows_updated=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


@pytest.mark.parametrize("answer", [None, "HTTP error 500", "Retryable commit conflict"])
def test_a_lease_whose_taking_was_not_answered_is_held(uri: str, answer: str | None) -> None:
    open_store(uri, create=True)
    database = Database(uri)
    table = database.connection.open_table(remote.TABLE)
    lost = LostAnswers(table, answer)
    hold = remote._try(database, lost, remote._seen(table), Patience())
    assert hold is not None
    hold.check()
    hold.let_go()
    taken(uri, 0).let_go()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_holder_that_lives_keeps_the_lease(uri: str) -> None:
    open_store(uri, create=True)
    hold = taken(uri, 0)
    with pytest.raises(
        StoreError, match=r"in use by process \d+ on .*, still after 1 s\..*free 1 s after that"
    ):
        taken(uri, 1)
    hold.check()
    hold.let_go()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_holder_that_is_silent_loses_the_lease_and_finds_out(uri: str) -> None:
    store = open_store(uri, create=True)
    silent = taken(uri, 0)
    silent._end.set()  # as when its process is stopped
    holder, heard = remote._seen(silent._table).holder, list[str]()
    with store.writer(wait_s=20, on_wait=heard.append):
        assert heard == [f"Waiting for {holder} to finish with the store at {uri}"]
        fill(store)
    with pytest.raises(
        StoreError, match=r"The lease of the store at .* is lost: it could not be renewed"
    ):
        silent.check()
    silent.let_go()
    taken(uri, 0).let_go()


@pytest.mark.usefixtures("quick")
def test_nothing_is_entered_without_the_lease(uri: str) -> None:
    store = open_store(uri, create=True)
    with store.writer():
        hold = store._lease._hold
        assert isinstance(hold, remote.HeldLease)
        table = store.database.connection.open_table(remote.TABLE)
        table.update(values={"epoch": 99, "holder": "somebody"})
        while not hold._lost:
            time.sleep(0.01)
        with pytest.raises(StoreError, match=r"The lease of the store at .* is lost"):
            fill(store)
    assert store.steps() == []
