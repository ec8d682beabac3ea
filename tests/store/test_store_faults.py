"""The store under accidents: readers during writes, kills at any moment, a full disk. This file is
also the program that is killed: while it commits, makes indexes and joins files.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest

from toolkit.errors import StoreError, StoreNotUsable
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, locks, open_store
from toolkit_store import open as open_features
from toolkit_store.index.postings import number_key, space_key
from toolkit_store.lance import lancedb

KEYS = [f"step{i:02}" for i in range(20)]
INDEX = [number_key(KEYS), space_key(number_key(KEYS), "s")]
TOLD_LATER = "-"
KILLS = int(os.environ.get("TOOLKIT_CHAOS_KILLS", "100"))


def mixed() -> list[str]:
    """What a killed process does: commit the steps, and after every fifth make an index of those so
    far and join files.
    """
    out: list[str] = []
    for number, key in enumerate(KEYS, 1):
        out += [key, *([f"index {number}", "compact"] if number % 5 == 0 else [])]
    return out


def commit(store: Store, key: str, rows: int = 5) -> bool:
    """A step whose rows follow from its key."""
    values = [float(i) for i in range(rows)]
    samples = [f"{key}-{i:06}" for i in range(rows)]
    meta = pa.table({"sample": samples, "key": ["k"] * rows, "number": values})
    entries = {
        "space": ["s"] * rows,
        "sample": samples,
        "position": range(rows),
        "features": [[1, 2]] * rows,
        "values": [[0.5, 0.1]] * rows,
    }
    acts = pa.table(entries, schema=arrow_schema("activations"))
    row = make_step(key)
    return store.commit(row, {"sample_meta": meta, "activations": acts})


def do(store: Store, task: str) -> bool:
    """One of the things that a child is told to do."""
    if task == "compact":
        return bool(store.compact().files)
    if task == "watch":
        return watch(store)
    if task.startswith("index "):
        return bool(store.index(KEYS[: int(task.removeprefix("index "))], run="r"))
    return commit(store, task)


def watch(store: Store) -> bool:
    """Read until every step is there: what the ledger has must be there in full, each time, and
    answered by questions.
    """
    seen = 0
    while seen < len(KEYS):
        rows = store.steps()
        assert len(rows) >= seen
        seen = len(rows)
        for row in rows:
            assert len(store.read("sample_meta", [row.key])) == row.tables["sample_meta"] == 5
        if rows:
            assert len(open_features(store.uri).run("r").activations("s", 2)) >= 5 * seen
    return True


def child(folder: Path | str, *keys: str) -> subprocess.Popen[str]:
    """A process that loads, says ready, waits for a line, commits the keys and prints how many were
    new.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", __file__, str(folder), *keys]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def start(process: subprocess.Popen[str], folder: Path | None = None) -> None:
    """Let it go, in that folder if it was not told before."""
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()


def main(folder: str, *keys: str) -> None:
    if folder == TOLD_LATER:
        lancedb()
    else:
        open_store(folder, create=True).has(["load lancedb"])
    print("ready", flush=True)
    line = sys.stdin.readline().strip()
    if folder == TOLD_LATER:
        do_telling(open_store(line, create=True), keys)
    else:
        store = open_store(folder)
        print(sum(do(store, key) for key in keys), flush=True)


def do_telling(store: Store, tasks: Sequence[str]) -> None:
    """Do what has not been done, and say before each task of what kind it is."""
    for task in tasks:
        kind = task.split()[0] if task.startswith(("index", "compact")) else "commit"
        if not is_done(store, task):
            print(kind, flush=True)
            do(store, task)
    print("end", flush=True)


def is_done(store: Store, task: str) -> bool:
    if task == "compact":
        return False
    if task.startswith("index "):
        number = number_key(KEYS[: int(task.removeprefix("index "))])
        return store.has([number, space_key(number, "s")]) == {number, space_key(number, "s")}
    return task in store.has([task])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = open_store(tmp_path_factory.mktemp("undisturbed"), create=True)
    for task in mixed():
        do(store, task)
    return {**store.fingerprint(KEYS), "index": str(store.fingerprint(INDEX))}


@pytest.mark.slow
def test_two_processes_lose_and_double_nothing(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    processes = [child(tmp_path / "store", *keys) for keys in (KEYS, KEYS[::-1])]
    for process in processes:
        start(process)
    new = [int(process.communicate(timeout=60)[0]) for process in processes]
    store = open_store(tmp_path / "store")
    assert sum(new) == len(KEYS) == len(store.steps())
    assert store.fingerprint(KEYS) == undisturbed_rows(undisturbed)
    assert store.orphans() == {}


def undisturbed_rows(result: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in result.items() if name != "index"}


@pytest.mark.slow
def test_two_write_while_two_read(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    check_two_and_two(tmp_path / "store", undisturbed)


@pytest.mark.slow
def test_two_write_while_two_read_at_a_uri(
    tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_two_and_two((tmp_path / "store").as_uri(), undisturbed)


def check_two_and_two(where: Path | str, undisturbed: dict[str, str]) -> None:
    store = open_store(where, create=True)
    store.record_run(run="r", name="n", state="running")
    tasks = (KEYS[::2], [*KEYS[1::2], "index 10", "compact"], ["watch"], ["watch"])
    processes = [child(where, *keys) for keys in tasks]
    for process in processes:
        start(process)
    for process in processes:
        process.communicate(timeout=90)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert store.fingerprint(KEYS) == undisturbed_rows(undisturbed)
    assert store.check().problems == []


@pytest.mark.slow
def test_writer_waits_and_says_for_whom_and_since_when(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    hold = (
        f"with t.open_store({store.uri!r}).writer(): print('held', flush=True); "
        "sys.stdin.readline()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"import sys, toolkit_store as t\n{hold}"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as other:
        assert other.stdout
        other.stdout.readline()
        heard: list[str] = []
        with (
            pytest.raises(
                StoreError, match=rf"in use by process {other.pid} on .*, still after 0\.2 s"
            ),
            store.writer(wait_s=0.2, on_wait=heard.append),
        ):
            pass
        assert len(heard) == 1
        assert f"process {other.pid} on" in heard[0]
        reports: list[str] = []
        with (
            mock.patch.object(locks, "_TELL_EVERY_S", 0.2),
            mock.patch.object(locks, "_POLL_S", 0.01),
            store.writer(
                on_wait=lambda message: reports.append(message) or tell_thrice(reports, other)
            ),
        ):
            assert commit(store, "after the wait")
        assert re.search(rf"^Waiting for process {other.pid} on .* since 20\d\d-", reports[0])
        assert len(reports) == 3
    with store.writer(wait_s=5), open_store(store.folder).writer(wait_s=0):
        assert commit(store, "k")


def tell_thrice(reports: list[str], other: subprocess.Popen[bytes]) -> None:
    if len(reports) == 3:
        other.kill()


def kill_often(place: Path, undisturbed: dict[str, str], kills: int, seed: int) -> Counter[str]:
    """Start, kill after a random moment, start again with the same tasks, and in a new folder once
    everything is in.

    In what the kills landed: a moment is drawn from a third of what all tasks take, so that each
    folder has a few.
    """
    draw, landed, number = random.Random(seed), Counter[str](), 0
    whole = seconds_of(place / "undisturbed")
    waiting = child(TOLD_LATER, *mixed())
    while landed.total() < kills:
        process, waiting = waiting, child(TOLD_LATER, *mixed())
        start(process, place / str(number))
        time.sleep(draw.uniform(0, whole / 3))
        process.kill()
        last = process.communicate(timeout=60)[0].split()[-1:]
        if last and last != ["end"]:
            landed[last[0]] += 1
        if all_is_in(place / str(number)) or landed.total() == kills:
            check_killed(place / str(number), undisturbed)
            number += 1
    waiting.kill()
    waiting.communicate(timeout=60)
    return landed


def seconds_of(folder: Path) -> float:
    """How long all tasks take when nobody kills."""
    process = child(TOLD_LATER, *mixed())
    start(process, folder)
    begun = time.monotonic()
    process.communicate(timeout=120)
    assert process.returncode == 0
    return time.monotonic() - begun


def all_is_in(folder: Path) -> bool:
    try:
        return open_store(folder, read_only=True).has([*KEYS, *INDEX]) == {*KEYS, *INDEX}
    except StoreNotUsable:
        return False  # killed before it was made


def check_killed(folder: Path, undisturbed: dict[str, str]) -> None:
    """After all those kills a process that is left alone finishes, and nothing is lost, doubled or
    left over.
    """
    process = child(folder, *mixed())
    start(process)
    process.communicate(timeout=120)
    assert process.returncode == 0
    store = open_store(folder)
    for clean in (lambda: None, store.clean):
        clean()
        assert {**store.fingerprint(KEYS), "index": str(store.fingerprint(INDEX))} == undisturbed
        assert store.check().problems == []
    assert store.orphans() == {}
    assert [row.key for row in store.steps()] == KEYS
    assert [path for path in (store.folder / "scratch").iterdir() if path.is_dir()] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_lease_at_a_uri_outlives_kills_of_its_holder(
    tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = (tmp_path / "store").as_uri()
    for seconds in (0.3, 0.8):
        process = child(where, *KEYS)
        start(process)
        time.sleep(seconds)
        process.kill()
        process.communicate(timeout=60)
    process = child(where, *KEYS)
    start(process)
    process.communicate(timeout=200)
    store = open_store(where, read_only=True)
    assert process.returncode == 0
    assert store.fingerprint(KEYS) == undisturbed_rows(undisturbed)
    assert store.check().problems == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_chaos_of_many_kills(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    landed = kill_often(tmp_path, undisturbed, KILLS, seed=KILLS)
    assert landed.total() == KILLS
    if KILLS >= 30:
        assert min(landed[kind] for kind in ("commit", "index", "compact")) > 0, landed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_full_disk_is_reported_and_survived(small_disk: Path, tmp_path: Path) -> None:
    store, calm = (
        open_store(small_disk / "store", create=True),
        open_store(tmp_path / "calm", create=True),
    )
    commit(store, "first")
    filler = fill_disk(small_disk, 48 * 1024)
    with pytest.raises(
        StoreError,
        match=r"The store could not take step big: .* free space and issue the same command again",
    ):
        commit(store, "big", 20_000)
    assert store.has(["first", "big"]) == {"first"}
    assert store.read("sample_meta", ["first", "big"]).num_rows == 5
    filler.unlink()
    assert commit(store, "big", 20_000)
    for key, rows in (("first", 5), ("big", 20_000)):
        commit(calm, key, rows)
    assert store.fingerprint(["first", "big"]) == calm.fingerprint(["first", "big"])


def test_a_table_of_another_version_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    """Its columns are named, and nobody is told to free space."""
    store = open_store(tmp_path / "store", create=True)
    commit(store, "first")
    table = lancedb().connect(store.folder / "tables").open_table("sample_meta")
    table.drop_columns(["number"])
    table.add_columns({"extra": "1"})
    other = open_store(store.folder)
    message = r"^Table 'sample_meta' of the store at .* lacks number and also has extra: another"
    with pytest.raises(StoreNotUsable, match=message), other.writer():
        pass
    with pytest.raises(StoreNotUsable, match=message):
        open_store(store.folder, read_only=True).read("sample_meta", ["first"])
    with pytest.raises(StoreError, match="lacks number") as error:
        commit(store, "second")
    assert "free space" not in str(error.value)


def fill_disk(disk: Path, left: int) -> Path:
    """A file that takes all but so many bytes."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - left))
    return filler


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 48])
def test_full_disk_while_postings_are_made(small_disk: Path, tmp_path: Path, left: int) -> None:
    store, calm = (
        open_store(small_disk / "store", create=True),
        open_store(tmp_path / "calm", create=True),
    )
    for opened in (store, calm):
        commit(opened, "big", 10_000)
    filler = fill_disk(small_disk, left * 1024)
    with pytest.raises(StoreError, match=r"free space and issue the same command again"):
        store.index(["big"])
    assert store.read("activations", ["big"]).num_rows == 10_000
    assert store.check().problems == []
    filler.unlink()
    index = [number_key(["big"]), space_key(number_key(["big"]), "s")]
    assert store.index(["big"]) + len(store.index_steps(index)) >= len(index)
    calm.index(["big"])
    assert store.fingerprint(["big", *index]) == calm.fingerprint(["big", *index])
    store.clean()
    assert store.check().problems == []


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 48])
def test_full_disk_while_files_are_joined(small_disk: Path, left: int) -> None:
    store = open_store(small_disk / "store", create=True)
    keys = [f"k{number}" for number in range(8)]
    for key in keys:
        commit(store, key, 2000)
    before = store.fingerprint(keys)
    filler = fill_disk(small_disk, left * 1024)
    with pytest.raises(
        StoreError,
        match=r"could not be maintained: .* free space and issue the same command again",
    ):
        store.compact()
    assert store.fingerprint(keys) == before
    assert store.check().problems == []
    filler.unlink()
    assert store.compact().files > 0
    assert open_store(store.folder).fingerprint(keys) == before
    assert open_store(store.folder).check().problems == []


def test_read_only_folder_is_reported_and_can_be_read(small_disk: Path) -> None:
    commit(open_store(small_disk / "store", create=True), "first")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        StoreError,
        match=r"cannot be written to: Read-only file system\. .* reading commands still work",
    ):
        open_store(small_disk / "store")
    reader = open_store(small_disk / "store", read_only=True)
    assert reader.read("sample_meta", ["first"]).num_rows == 5
    assert reader.check().problems == []
    assert len(open_features(small_disk / "store").store.steps()) == 1
    with pytest.raises(StoreError, match="opened for reading only"):
        commit(reader, "second")


if __name__ == "__main__":
    main(*sys.argv[1:])
