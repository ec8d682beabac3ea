"""Every kind of stored file, damaged in every way: no answer changes unnoticed, and each damage has
a sentence with the way back.

A file is damaged, the store opened anew and asked. An answer that differs from the sound one is
allowed only where `Store.check` names the file; nothing is ever written from it.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import toolkit_store
from toolkit.errors import ToolkitError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store

DAMAGES = int(os.environ.get("TOOLKIT_CHAOS_DAMAGES", "339"))
MARKER, HINT = "toolkit-store.json", "latest_version_hint.json"
"""What a store is known by, of which each value is checked; and what saves LanceDB a listing, and
is not trusted."""


def flipped(content: bytes, draw: random.Random) -> bytes:
    bit = draw.randrange(len(content) * 8)
    return bytes(
        byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(content)
    )


WAYS_BACK = (
    "(?i)put the file back from a copy|put back the file from a copy|put them "
    "back from a copy|--store"
)
WAYS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "a bit flipped": flipped,
    "cut": lambda content, draw: content[: draw.randrange(len(content))],
    "emptied": lambda content, draw: b"",
    "deleted": lambda content, draw: None,
}


def acts(*samples: str) -> pa.Table:
    rows = [
        {
            "space": "A",
            "sample": name,
            "position": index,
            "features": [1, 2],
            "values": [1.5 + index, 0.5],
        }
        for index, name in enumerate(samples)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("activations"))


def samples(*names: str) -> pa.Table:
    fixed = {"cluster": "c", "text": "abc", "token_ids": [1], "pieces": ["abc"], "spans": []}
    rows = [{"sample": name, "unit": f"u{name}", **fixed, "prompt_hash": "h"} for name in names]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with files of every kind."""
    store = open_store(tmp_path_factory.mktemp("sound") / "store", create=True)
    for key in ("k", "l", "m"):
        store.commit(
            make_step(key), {"samples": samples(f"{key}1"), "activations": acts(f"{key}1")}
        )
    store.index(["k", "l", "m"])
    orphans = acts("cut off", "gone").append_column(
        pa.field("step", pa.string(), False), pa.array(["cut off", "gone"])
    )
    store.database.append("activations", orphans)
    store._keeper.delete("activations", "step = 'gone'")
    store._files.note("activations")
    store.commit(make_step("n"), {"activations": acts("n1", "n2")})
    store.record_run(run="r", name="n", state="done", steps=["k", "l", "m", "n"])
    return store


def kind_of(store: Store, path: Path) -> str:
    parts = path.relative_to(store.folder).parts
    return parts[2] if parts[0] == "tables" and len(parts) > 2 else parts[0]


def stored(store: Store) -> list[Path]:
    return sorted(
        path
        for folder in ("tables", "files", "toolkit-store.json")
        for path in (
            [store.folder / folder] if "." in folder else (store.folder / folder).rglob("*")
        )
        if path.is_file()
    )


def answers(folder: Path) -> str:
    """What is read: rows, entries of features, of a sample, the ledger."""
    run = toolkit_store.open(folder).run("r")
    return json.dumps(
        [
            run.top("A", 1).to_dicts(),
            run.activations("A", 2).to_dicts(),
            run.sample("n1").to_dicts(),
            run.directory("A").sort("feature").to_dicts(),
            run.store.read("samples", ["k", "l", "m"]).to_pylist(),
            sorted(row.key for row in run.steps),
        ],
        default=str,
    )


def damages(store: Store, count: int) -> Iterator[tuple[Path, str]]:
    """Each kind of file in each way first, then others by chance."""
    draw = random.Random(count)
    everything = [(path, how) for path in stored(store) for how in WAYS]
    draw.shuffle(everything)
    seen: set[tuple[str, str]] = set()
    ordered = sorted(
        everything,
        key=lambda damage: (
            (kind_of(store, damage[0]), damage[1]) in seen
            or seen.add((kind_of(store, damage[0]), damage[1])) is not None
        ),
    )
    yield from ordered[:count]


def problems_of(folder: Path) -> list[str]:
    """What `toolkit store check` names; a store that cannot be opened or read names itself."""
    try:
        return list(open_store(folder, read_only=True).check().problems)
    except ToolkitError as error:
        return [str(error)]


def check_damage(store: Store, path: Path, how: str, sound: str, draw: random.Random) -> None:
    content = path.read_bytes()
    spoilt = WAYS[how](content, draw)
    try:
        if spoilt is None:
            path.unlink()
        else:
            path.write_bytes(spoilt)
        problems = problems_of(store.folder)
        where = f"{path.relative_to(store.folder)} {how}"
        if path.name == HINT or spoilt == content:
            assert problems == [], where
        elif path.name == MARKER:
            assert all(str(store.folder) in problem for problem in problems), (where, problems)
        else:
            assert any(str(path) in problem for problem in problems), (where, problems)
        assert problems or answer_of(store.folder) == sound, where
        assert_nothing_is_written_from_it(store, problems, where)
    finally:
        path.write_bytes(content)


def answer_of(folder: Path) -> str:
    try:
        return answers(folder)
    except ToolkitError as error:
        return f"refused: {error}"


def assert_nothing_is_written_from_it(store: Store, problems: list[str], where: str) -> None:
    """A damaged store is never compacted, so that no damage gets a hash of its own."""
    if not problems:
        return
    before = {path: path.stat().st_mtime_ns for path in stored(store)}
    with pytest.raises(ToolkitError, match=WAYS_BACK):
        open_store(store.folder).compact()
    assert {path: path.stat().st_mtime_ns for path in stored(store)} == before, where


def test_kinds_of_files(store: Store) -> None:
    kinds = {kind_of(store, path) for path in stored(store)}
    assert kinds >= {
        "data",
        "_versions",
        "_deletions",
        "_indices",
        "files",
        "toolkit-store.json",
    }, kinds


@pytest.mark.parametrize(
    "count", [28, pytest.param(DAMAGES, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_no_damage_changes_an_answer_unnoticed(store: Store, count: int) -> None:
    sound, draw, done = answers(store.folder), random.Random(count), 0
    assert problems_of(store.folder) == []
    while done < count:
        for path, how in damages(store, count - done):
            check_damage(store, path, how, sound, draw)
            done += 1
    assert done == count
    assert problems_of(store.folder) == []
    assert answers(store.folder) == sound
