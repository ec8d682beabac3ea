"""A file that is not what was written, or a record that is not: told by name, and never joined or
derived from.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from toolkit.errors import StoreError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, locks, open_store
from toolkit_store.database import Database
from toolkit_store.upkeep import lance_manifest as manifest
from toolkit_store.upkeep.file_record import FileRecord, every

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
        store._files.hold("activations", every)
    path.unlink()
    with pytest.raises(StoreError, match=rf"{path}: it is missing"):
        store._files.hold("activations", every)


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


def test_only_files_that_are_read_are_held(store: Store) -> None:
    flip(data_file(store))
    store._keeper.hold_steps("activations", ["l"])
    with pytest.raises(StoreError, match="its SHA-256 is"):
        store._keeper.hold_steps("activations", ["k"])


def test_a_manifest_says_which_files_a_version_has(store: Store) -> None:
    store.index(["k", "l"])
    store.commit(make_step("m"), {"activations": acts("m")})
    store.database.delete("activations", "step = 'k'")
    table = store.folder / "tables" / "activations.lance"
    found = manifest.read(table / str(manifest.newest(manifest.manifests(table))))
    assert (found.version, found.rows) == (store.database.version("activations"), 2)
    assert [(fragment.rows, fragment.removed) for fragment in found.fragments] == [(2, 1), (1, 0)]
    assert {path.name for path in (table / "_indices").iterdir()} >= set(found.indexes)
    assert len(found.indexes) == 1
    names = [name for fragment in found.fragments for name in fragment.files]
    assert [name.split("/")[0] for name in names] == ["data", "_deletions", "data"]
    assert all((table / name).is_file() for name in names)
    newest = (table / str(manifest.newest(manifest.manifests(table)))).read_bytes()
    for cut in (b"", b"LANC" * 8, newest[:90]):
        (table / "x").write_bytes(cut)
        with pytest.raises(ValueError, match="is not a manifest of LanceDB"):
            manifest.read(table / "x")


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


def test_the_record_of_a_table_without_rows_of_a_step_is_made(store: Store) -> None:
    """What a kill left that an earlier release did not expect."""
    rows = samples("s").append_column(pa.field("step", pa.string(), False), pa.array(["gone"]))
    store.database.append("samples", rows)
    assert store.check().problems == []
    store.commit(make_step("m"), {"samples": samples("m")})
    assert open_store(store.folder).check().problems == []


@pytest.mark.parametrize("line", [0, 2, -1])
def test_a_line_that_cannot_be_read_is_a_problem(store: Store, line: int) -> None:
    lines = record(store).read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"sha256"', b'"sha25v"')
    record(store).write_bytes(b"".join(lines))
    again = open_store(store.folder)
    wanted = f"{record(store)}: line {line % len(lines) + 1} cannot be read"
    assert again.check().problems[0] == wanted
    with pytest.raises(StoreError, match=wanted):
        again.commit(make_step("m"), {"activations": acts("m")})


def test_a_record_that_ends_too_early_is_a_problem(store: Store) -> None:
    lines = record(store).read_bytes().splitlines(keepends=True)
    last = next(
        at for at, line in enumerate(lines) if manifest.version_of(json.loads(line)["file"]) == 1
    )
    record(store).write_bytes(b"".join(lines[: last + 1]))
    assert open_store(store.folder).check().problems == [
        f"{record(store)}: it ends before 2 rows, which the ledger says table 'activations' has"
    ]


def test_a_file_that_the_last_version_needs_must_be_in_the_record(store: Store) -> None:
    path = data_file(store)
    content = record(store).read_text()
    record(store).write_text(content.replace(path.name, path.name.replace("0", "2", 1)))
    again, what = (
        open_store(store.folder),
        f"{path}: {record(store)} does not have it, though it has what refers to it",
    )
    assert again.check().problems == [what]
    for write in (again.compact, partial(again.commit, make_step("m"), {"activations": acts("m")})):
        with pytest.raises(StoreError, match=what):
            write()


def test_the_last_version_must_be_there(store: Store) -> None:
    """LanceDB goes back to the one before without a word."""
    table = store.folder / "tables" / "steps.lance"
    name = str(manifest.newest(manifest.manifests(table)))
    (table / name).unlink()
    again, what = (
        open_store(store.folder),
        f"{table / name}: it is missing: it is the last version of the table that is recorded",
    )
    assert again.check().problems == [what]
    with pytest.raises(StoreError, match=what):
        again.commit(make_step("m"), {"activations": acts("m")})


def test_manifests_are_recorded_last(store: Store) -> None:
    """So a record that was cut off while it was written lacks nothing that its last version needs."""
    names = [json.loads(line)["file"] for line in record(store).read_text().splitlines()]
    at = next(place for place, name in enumerate(names) if name.startswith("_versions/"))
    assert any(name.startswith("data/") for name in names[:at])
    whole = record(store).read_bytes()
    for size in range(0, len(whole), 7):
        record(store).write_bytes(whole[:size])
        faults = FileRecord(store.folder / "tables", store.folder / "files").faults(
            "activations", lambda: True
        )
        assert list(faults) == []


def test_a_kill_between_removing_old_versions_and_recording_it_is_no_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._files, "renew", lambda table: None)
    with store.writer():
        store.database.tidy("activations")
        store._keeper.drop_old(settling=False)
    again = open_store(store.folder)
    assert again.check().problems == []
    assert again.commit(make_step("m"), {"activations": acts("m")})
    assert again.compact().files > 0
    assert again.check().problems == []


# --- readers beside joining ---


def test_readers_read_while_files_are_joined(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    tidy = Database.tidy

    def beside(self: Database, name: str) -> None:
        tidy(self, name)
        with locks._file_lock(
            store.folder / "locks" / "readers.lock", locks.fcntl.LOCK_SH, 0
        ):  # waits for nobody
            read.append(name)

    monkeypatch.setattr(Database, "tidy", beside)
    store.compact()
    store.clean()
    store.index(["k", "l"])
    assert read.count("activations") == 3
    assert read.count("postings") == 3
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
