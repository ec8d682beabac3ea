"""A file that is not what was written, or a record that is not: told by name, and never joined or
derived from.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from toolkit.errors import StoreError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, file_record, locks, open_store
from toolkit_store.database import Database
from toolkit_store.file_record import FileRecord
from toolkit_store.lance import lance_faults

VALUE = 1.5


def acts(sample: str) -> pa.Table:
    row = {
        "space": "A",
        "sample": sample,
        "position": 0,
        "features": [1, 2],
        "values": [VALUE, 0.5],
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("activations"))


def samples(*names: str) -> pa.Table:
    fixed = {
        "cluster": "c",
        "text": "abc",
        "token_ids": [1],
        "pieces": ["abc"],
        "spans": [],
        "prompt_hash": "h",
    }
    rows = [{"sample": name, "unit": f"unit of {name}", **fixed} for name in names]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "store", create=True)
    for key in ("k", "l"):
        store.commit(make_step(key), {"activations": acts(f"sample of {key}")})
    return store


def data_file(store: Store, table: str = "activations") -> Path:
    return sorted(
        (store.folder / "tables" / f"{table}.lance" / "data").iterdir(),
        key=lambda path: path.stat().st_mtime_ns,
    )[0]


def flip(path: Path, what: bytes = struct.pack("<f", VALUE)) -> bytes:
    """Turn one bit of a value over; what the file was."""
    sound = path.read_bytes()
    at = sound.index(what) + len(what) - 2
    path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x20]) + sound[at + 1 :])
    return sound


def values(store: Store) -> set[float]:
    return {
        value
        for row in store.read("activations", ["k", "l"])["values"].to_pylist()
        for value in row
    }


# --- a manifest that LanceDB panics at ---


def last_manifest(store: Store, table: str) -> Path:
    folder = store.folder / "tables" / f"{table}.lance"
    name = file_record.newest(file_record._manifests(folder))
    assert name is not None
    return folder / name


def spoil_types(manifest: Path) -> None:
    """Make each `string` of the schema a type that LanceDB does not know: its Rust code panics."""
    content = manifest.read_bytes()
    assert b"string" in content
    manifest.write_bytes(content.replace(b"string", b"striog"))


def asked(store: Store) -> None:
    store.read("activations", ["k"])
    store.run_states()


def written(store: Store) -> None:
    store.record_run(run="r", name="n", state="failed", steps=["k"])
    store.commit(make_step("m"), {"activations": acts("m")})


@pytest.mark.parametrize("table", ["activations", "steps", "runs"])
def test_a_panic_is_an_error_that_names_the_file(store: Store, table: str) -> None:
    store.record_run(run="r", name="n", state="done", steps=["k"])
    manifest = last_manifest(store, table)
    spoil_types(manifest)
    again = open_store(store.folder)
    with pytest.raises(StoreError, match="LanceDB panicked") as caught:
        asked(again)
    assert f"{manifest}: its SHA-256 is" in str(caught.value)
    assert "put them back from a copy" in str(caught.value)
    assert any(str(manifest) in problem for problem in open_store(store.folder).check().problems)
    with pytest.raises(StoreError, match=re.escape(str(manifest))):
        written(again)


def test_an_error_that_is_none_of_lance_passes() -> None:
    with pytest.raises(KeyError), lance_faults():
        raise KeyError("x")
    with pytest.raises(KeyboardInterrupt), lance_faults():
        raise KeyboardInterrupt


# --- a flipped bit ---


def fill_up(store: Store) -> None:
    """Until small files are joined."""
    with store.writer():
        for number in range(70):
            store.commit(make_step(f"s{number}"), {"activations": acts(f"s{number}")})


DEEDS: dict[str, Callable[[Store], object]] = {
    "compact": Store.compact,
    "clean": Store.clean,
    "gc": Store.gc,
    "index": lambda store: store.index(["k", "l"]),
    "commits": fill_up,
}


@pytest.mark.parametrize(
    "deed", [pytest.param(deed, marks=[pytest.mark.slow] * (deed == "commits")) for deed in DEEDS]
)
def test_a_flipped_bit_is_not_written_on(store: Store, deed: str) -> None:
    path = data_file(store)
    sound = flip(path)
    with pytest.raises(
        StoreError, match=rf"{path}: its SHA-256 is .*Put the file back from a copy of the store"
    ):
        DEEDS[deed](open_store(store.folder))
    assert store.check().problems[0].startswith(f"{path}: its SHA-256 is")
    assert (
        store.index_steps([row.key for row in store._steps(None) if row.part == "store.index"])
        == []
    )
    path.write_bytes(sound)
    again = open_store(store.folder)
    DEEDS[deed](again)
    assert again.check().problems == []
    assert values(again) == {VALUE, 0.5}


def test_units_are_not_derived_from_a_damaged_file(store: Store) -> None:
    store.commit(
        make_step("m"), {"samples": samples("sample of k"), "activations": acts("sample of m")}
    )
    path = data_file(store, "samples")
    flip(path, b"unit of")
    with pytest.raises(StoreError, match=rf"{path}: its SHA-256 is"):
        store.index(["k", "m"])


def test_an_index_is_not_derived_from_a_file_that_is_gone_or_shorter(store: Store) -> None:
    path = data_file(store)
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    with pytest.raises(StoreError, match=rf"{path}: it has {len(sound) - 1:,} bytes"):
        store.verify("activations")
    path.unlink()
    with pytest.raises(StoreError, match=rf"{path}: it is missing"):
        store.verify("activations")


def test_orphans_are_not_removed_from_a_damaged_table(store: Store) -> None:
    """A flipped key makes a step's rows look like nobody's."""
    path = data_file(store)
    sound = flip(path, b"sample of k")
    rows = acts("cut off").append_column(pa.field("step", pa.string(), False), pa.array(["gone"]))
    store.database.append("activations", rows)
    with pytest.raises(StoreError, match=rf"{path}: its SHA-256 is"):
        store.clean()
    assert store.orphans() == {"activations": 1}
    path.write_bytes(sound)
    assert store.clean().rows == {"activations": 1}


def test_a_file_is_hashed_again_when_it_has_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    entry = file_record._entry
    monkeypatch.setattr(file_record, "_entry", lambda path: hashed.append(path.name) or entry(path))
    other = open_store(store.folder)
    other.verify("activations")
    assert len(hashed) == len(other._files.known("activations"))
    other.verify("activations")
    assert len(hashed) == len(other._files.known("activations"))
    flip(data_file(store))
    with pytest.raises(StoreError, match="its SHA-256 is"):
        other.verify("activations")


# --- the record ---


def record(store: Store, table: str = "activations") -> Path:
    return store.folder / "files" / f"{table}.jsonl"


@pytest.mark.parametrize("table", ["activations", "steps", "runs"])
def test_a_record_that_is_gone_is_a_problem_and_not_made_anew(store: Store, table: str) -> None:
    store.record_run(run="r", name="n", state="running")
    sound = record(store, table).read_bytes()
    record(store, table).unlink()
    again = open_store(store.folder)
    assert again.check().problems == [
        f"{record(store, table)}: the record of the table's files is gone"
    ]
    with pytest.raises(
        StoreError, match=r"the record of the table's files is gone\. Nothing is written"
    ):
        again.compact()
    write: Callable[[], object] = partial(again.record_run, run="r", name="n", state="done")
    if table != "runs":
        write = partial(again.commit, make_step("m"), {"activations": acts("m")})
    with pytest.raises(
        StoreError, match=r"the record of the table's files is gone\. Nothing is written"
    ):
        write()
    assert not record(store, table).exists()
    record(store, table).write_bytes(sound)
    assert open_store(store.folder).check().problems == []


def test_a_ledger_that_is_gone_with_its_record_is_a_problem(store: Store) -> None:
    store.record_run(run="r", name="n", state="done", done=2, steps=["k", "l"])
    shutil.rmtree(store.folder / "tables" / "steps.lance")
    record(store, "steps").unlink()
    again = open_store(store.folder)
    assert f"{record(store, 'steps')}: the record of the table's files is gone" in (
        again.check().problems
    )
    with pytest.raises(StoreError, match="the record of the table's files is gone"):
        again.commit(make_step("m"), {"activations": acts("m")})


def test_the_record_of_a_table_without_rows_of_a_step_is_made(store: Store) -> None:
    """What a kill left that an earlier release did not expect."""
    rows = samples("s").append_column(pa.field("step", pa.string(), False), pa.array(["gone"]))
    store.database.append("samples", rows)
    assert store.check().problems == []
    store.commit(make_step("m"), {"samples": samples("m")})
    assert open_store(store.folder).check().problems == []


def seal(content: bytes) -> bytes:
    return content[: content.index(b"\n") + 1]


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "emptied": (lambda content: b"", "its first line cannot be read"),
    "cut after its first line": (seal, r"it is cut off: [\d,]+ bytes are missing"),
    "cut after a line": (
        lambda content: content[: content.rindex(b"\n", 0, -1) + 1],
        r"it is cut off: [\d,]+ bytes are missing",
    ),
    "without its first line": (
        lambda content: content.removeprefix(seal(content)),
        "its first line cannot be read",
    ),
    "with another hash": (
        lambda content: content.replace(b'"sha256": "', b'"sha256": "0', 2)[: len(content)],
        "its first line",
    ),
    "with another name": (
        lambda content: content.replace(b"data/", b"date/", 1),
        "its SHA-256 is not the one in its first line",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_record_that_is_not_as_it_was_written_is_a_problem(store: Store, how: str) -> None:
    """Also with a flipped value: the record that would name it must not be trusted."""
    spoil, what = SPOILT[how]
    sound, path = record(store).read_bytes(), data_file(store)
    value = flip(path)
    record(store).write_bytes(spoil(sound))
    again = open_store(store.folder)
    (problem,) = again.check().problems
    assert re.match(f"{record(store)}: {what}", problem)
    for write in (
        again.compact,
        again.clean,
        partial(again.commit, make_step("m"), {"activations": acts("m")}),
    ):
        with pytest.raises(StoreError, match=f"{record(store)}: {what}"):
            write()
    record(store).write_bytes(sound)
    path.write_bytes(value)
    assert open_store(store.folder).check().problems == []


def test_a_table_that_is_gone_is_a_problem(store: Store) -> None:
    """With its record or without: nothing is written next to it, so no run says that it is done."""
    shutil.rmtree(store.folder / "tables" / "activations.lance")
    assert "it is missing" in open_store(store.folder).check().problems[0]
    with pytest.raises(StoreError, match="it is missing"):
        open_store(store.folder).record_run(run="r", name="n", state="done")
    record(store).unlink()
    assert open_store(store.folder).check().problems == [
        f"{record(store)}: the record of the table's files is gone"
    ]
    with pytest.raises(StoreError, match="the record of the table's files is gone"):
        open_store(store.folder).record_run(run="r", name="n", state="done")


def test_the_last_version_must_be_there(store: Store) -> None:
    """LanceDB goes back to the one before without a word."""
    table = store.folder / "tables" / "steps.lance"
    name = str(file_record.newest(file_record._manifests(table)))
    (table / name).unlink()
    again, what = (
        open_store(store.folder),
        f"{table / name}: it is missing: it is the last version of the table that is recorded",
    )
    assert what in again.check().problems
    with pytest.raises(StoreError, match=what):
        again.commit(make_step("m"), {"activations": acts("m")})


def test_a_record_that_was_cut_off_while_it_grew_is_as_it_was_before(store: Store) -> None:
    before = record(store).read_bytes()
    store.commit(make_step("m"), {"activations": acts("m")})
    after = record(store).read_bytes()
    assert after.startswith(before[len(seal(before)) :], len(seal(before)))
    for size in range(len(before), len(after), 7):
        record(store).write_bytes(seal(before) + after[len(seal(before)) : size])
        files = FileRecord(store.folder / "tables", store.folder / "files")
        assert list(files.faults("activations", lambda: True)) == []
        assert len(files.unrecorded("activations")) == 3
    assert open_store(store.folder).commit(make_step("n"), {"activations": acts("n")})
    assert open_store(store.folder).check().problems == []


def test_a_kill_between_removing_old_versions_and_recording_it_is_no_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._files, "renew", lambda table: None)
    with store.writer():
        store.database.compact("activations")
        store._keeper.drop_old(reindexing=False)
    again = open_store(store.folder)
    assert again.check().problems == []
    assert again.commit(make_step("m"), {"activations": acts("m")})
    assert again.compact().files > 0
    assert again.check().problems == []


# --- reading while files are joined ---


def test_readers_read_while_files_are_joined(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    compact = Database.compact

    def read_while_compacting(self: Database, name: str) -> None:
        compact(self, name)
        with locks._file_lock(
            store.folder / "locks" / "readers.lock", locks.fcntl.LOCK_SH, 0
        ):  # waits for nobody
            read.append(name)

    monkeypatch.setattr(Database, "compact", read_while_compacting)
    store.compact()
    store.clean()
    store.index(["k", "l"])
    assert read.count("activations") == 3
    assert read.count("postings") == 1
    assert values(store) == {VALUE, 0.5}


def test_old_versions_go_once_nobody_reads(store: Store) -> None:
    table = store.folder / "tables" / "activations.lance" / "data"
    with open_store(store.folder).reading():
        store.compact()
        assert len(list(table.iterdir())) == 3
        with pytest.raises(locks.InUse, match="still after 0 s"):
            store.clean(wait_s=0)
    store.compact()
    assert len(list(table.iterdir())) == 1
    assert store.check().problems == []
