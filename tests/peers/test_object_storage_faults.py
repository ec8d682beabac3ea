"""A store in object storage that fails on purpose: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from toolkit.errors import StoreError
from toolkit.testing.fakes import make_step
from toolkit_store import Store, database, lance, open_store

HERE = Path(__file__).parent
FAULTS = 200
PATIENCE = 600.0
"""Seconds for which a command is issued again."""
ROUNDS = 60
"""Commits at most; so many are never needed."""


def module_here(name: str):
    """A module in this folder."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


here = module_here("test_object_storage")
faults = module_here("faults")
bucket = here.bucket
pytestmark = [pytest.mark.peer, pytest.mark.timeout(1800)]


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch):
    """A proxy before the server; the store sees nothing else, and waits seconds for an answer."""
    timeout = f"{faults.TIMEOUT_SECONDS:g} s"
    monkeypatch.setattr(database, "_RETRIES", {**database._RETRIES, "timeout": timeout})
    proxy = faults.FaultyProxy(os.environ["AWS_ENDPOINT_URL"], seed=1)
    with proxy.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield proxy


def committed(store: Store, uri: str, key: str) -> Store:
    """Commit a step, again and again as a user issues the same command again."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            store.commit(make_step(key), {"activations": here.rows(key)})
            return store
        except StoreError:
            store = reopened(uri)
    raise AssertionError(f"{key} was never committed")


def reopened(uri: str) -> Store:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            return open_store(uri)
        except StoreError:
            continue
    raise AssertionError("the store was never opened")


def test_nothing_is_lost_and_nothing_is_there_twice(bucket: str, proxy) -> None:
    store = open_store(bucket, create=True)
    proxy.share = 0.2
    keys: list[str] = []
    while sum(proxy.injected.values()) < FAULTS and len(keys) < ROUNDS:
        keys.append(f"k{len(keys)}")
        store = committed(store, bucket, keys[-1])
    proxy.share = 0.0
    assert sum(proxy.injected.values()) >= FAULTS
    assert set(proxy.injected) == set(faults.FAULTS)
    store = open_store(bucket)
    assert sorted(row.key for row in store.steps()) == sorted(keys)
    assert len(store.read("activations", keys)) == 4 * len(keys)
    assert store.check().problems == []


def test_lists_that_are_cut_off_stop_no_commit_and_no_read(bucket: str, proxy) -> None:
    """LanceDB's client does not repeat them; nothing here is issued twice."""
    proxy.cut_lists = 7
    store = open_store(bucket, create=True)
    keys = [f"k{number}" for number in range(6)]
    for key in keys:
        assert store.commit(make_step(key), {"activations": here.rows(key)})
    store.record_run(run="r", name="n", state="done", steps=keys)
    store = open_store(bucket, read_only=True)
    assert len(store.read("activations", keys)) == 4 * len(keys)
    assert [row.run for row in store.run_states()] == ["r"]
    proxy.cut_lists = 0
    assert proxy.injected["cut"] >= 5, proxy.injected
    assert store.check().problems == []


def test_lists_that_stay_cut_off_stop_a_command_in_time(
    bucket: str, proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "PATIENCE_SECONDS", 2.0)
    store = open_store(bucket, create=True)
    store.commit(make_step("k"), {"activations": here.rows("k")})
    proxy.cut_lists = 1
    begun = time.monotonic()
    with pytest.raises(StoreError, match="list response body"):
        store.database.version("activations")
    assert time.monotonic() - begun < 30.0
    proxy.cut_lists = 0
    assert len(store.read("activations", ["k"])) == 4
