"""The store under accidents: writers beside readers, kills at any moment, a full disk. This file is also the program that is
killed: while it commits, makes indexes and joins files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from toolkit.errors import StoreError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store
from toolkit_store import open as open_features
from toolkit_store.postings import number_key, space_key

KEYS = [f"step{i:02}" for i in range(20)]
INDEX = [number_key(KEYS), space_key(number_key(KEYS), "s")]
KILLS = int(os.environ.get("TOOLKIT_CHAOS_KILLS", "100"))


def mixed() -> list[str]:
    """What a killed process does: commit the steps, and after every fifth make an index of those so far and join files."""
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
    """Read until every step is there: what the ledger has must be there in full, each time, and answered by questions."""
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
    """A process that loads, says ready, waits for a line, commits the keys and prints how many were new."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", __file__, str(folder), *keys]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def main(folder: str, *keys: str) -> None:
    store = open_store(folder, create=True)
    store.has(["load lancedb"])
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(do(store, key) for key in keys), flush=True)


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


def undisturbed_rows(found: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if name != "index"}


@pytest.mark.slow
def test_two_write_while_two_read(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    check_two_and_two(tmp_path / "store", undisturbed)


@pytest.mark.slow
def test_two_write_while_two_read_at_a_uri(tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_writer_waits_tells_who_and_gives_up(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    hold = f"with t.open_store({store.uri!r}).writer(): print('held', flush=True); sys.stdin.readline()"
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
            pytest.raises(StoreError, match=rf"in use by process {other.pid} on .*, still after 0\.2 s"),
            store.writer(wait_s=0.2, on_wait=heard.append),
        ):
            pass
        assert len(heard) == 1
        assert f"process {other.pid} on" in heard[0]
        other.kill()
    with store.writer(wait_s=5), open_store(store.folder).writer(wait_s=0):
        assert commit(store, "k")


def kill_until_done(folder: Path, kills: int, seed: int) -> None:
    """Start, kill after a random moment, start again with the same keys; the last one may finish."""
    draw = random.Random(seed)
    waiting = [child(folder, *mixed())]
    for number in range(kills + 1):
        process = waiting.pop()
        start(process)
        if number < kills:
            waiting.append(child(folder, *mixed()))
            time.sleep(draw.uniform(0.005, 1.5))
            process.kill()
        process.communicate(timeout=60)
    assert process.returncode == 0


def check_killed(tmp_path: Path, undisturbed: dict[str, str], kills: int) -> None:
    kill_until_done(tmp_path / "store", kills, seed=kills)
    store = open_store(tmp_path / "store")
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
    check_killed(tmp_path, undisturbed, KILLS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_is_told_and_survived(small_disk: Path, tmp_path: Path) -> None:
    store, calm = open_store(small_disk / "store", create=True), open_store(tmp_path / "calm", create=True)
    commit(store, "first")
    filler = small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 48 * 1024))
    with pytest.raises(StoreError, match=r"The store could not take step big: .* free space and issue the same command again"):
        commit(store, "big", 20_000)
    assert store.has(["first", "big"]) == {"first"}
    assert store.read("sample_meta", ["first", "big"]).num_rows == 5
    filler.unlink()
    assert commit(store, "big", 20_000)
    for key, rows in (("first", 5), ("big", 20_000)):
        commit(calm, key, rows)
    assert store.fingerprint(["first", "big"]) == calm.fingerprint(["first", "big"])


def test_read_only_folder_is_told_and_can_be_read(small_disk: Path) -> None:
    commit(open_store(small_disk / "store", create=True), "first")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"cannot be written to: Read-only file system\. .* reading commands still work"):
        open_store(small_disk / "store")
    reader = open_store(small_disk / "store", read_only=True)
    assert reader.read("sample_meta", ["first"]).num_rows == 5
    assert reader.check().problems == []
    assert len(open_features(small_disk / "store").store.steps()) == 1
    with pytest.raises(StoreError, match="opened for reading only"):
        commit(reader, "second")


if __name__ == "__main__":
    main(*sys.argv[1:])
