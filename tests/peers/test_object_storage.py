"""A store in object storage, as moto serves it: `pip install "moto[server]"`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

import toolkit_store
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import local_part, open_store

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

COMMITS = 6
WRITER = """
import sys
sys.path[:] = sys.argv[1].split(":")
import test_object_storage as here
getattr(here, sys.argv[4])(sys.argv[2], sys.argv[3])
"""


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server of its own, with one bucket."""
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip('needs moto: pip install "moto[server]"')
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        (tmp_path / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
    ):
        try:
            address = _address(server, tmp_path / "server.log")
            urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"))
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "test")
            monkeypatch.setenv("AWS_REGION", "us-east-1")
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
            monkeypatch.chdir(tmp_path)
            yield "s3://bucket/a/store"
        finally:
            server.terminate()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    while server.poll() is None:
        if result := re.search(r"Running on (http://[0-9.:]+)", log.read_text()):
            return result.group(1)
    raise AssertionError(f"moto did not start: {log.read_text()}")


def rows(key: str) -> pa.Table:
    results = [
        {
            "space": "A",
            "sample": f"{key}-{n}",
            "position": n,
            "features": [1, n + 2],
            "values": [1.0, 2.0],
        }
        for n in range(4)
    ]
    return pa.Table.from_pylist(results, arrow_schema("activations"))


def write(uri: str, name: str) -> None:
    """What each of the processes does."""
    store = open_store(uri, create=True)
    for number in range(COMMITS):
        store.commit(make_step(f"{name}{number}"), {"activations": rows(f"{name}{number}")})


def compact(uri: str, name: str) -> None:
    """A process that compacts while the others write."""
    store = open_store(uri, create=True)
    for _ in range(COMMITS):
        store.compact()


def test_two_processes_write_a_third_compacts_and_every_question_is_answered(
    bucket: str, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-c",
        WRITER,
        ":".join([str(Path(__file__).parent), *sys.path]),
        bucket,
    ]
    processes = [
        subprocess.Popen([*command, name, task], env=dict(os.environ))
        for name, task in (("a", "write"), ("b", "write"), ("c", "compact"))
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0, 0]
    keys = [f"{name}{number}" for name in "ab" for number in range(COMMITS)]
    store = open_store(bucket)
    assert [row.key for row in store.steps()] == keys
    store.index(keys, run="r")
    store.record_run(run="r", name="n", state="done", steps=keys)
    view = toolkit_store.open(bucket).run()
    assert len(view.activations("A", 1)) == 4 * len(keys)
    assert view.frequent("A").rows()[0] == (1, 4 * len(keys), 1.0)
    assert view.sample("b3-2").rows() == [("A", 2, 4, 2.0), ("A", 2, 1, 1.0)]
    store.gc()
    assert store.check().problems == []
    assert len(store.read("activations", keys)) == 4 * len(keys)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "server.log",
        str(local_part(bucket)),
    ]
