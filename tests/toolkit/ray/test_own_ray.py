"""A Ray that a run starts for itself: it answers nobody else, its token is nowhere, and it reports
nothing to its makers.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from toolkit_store import open_store

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]


def without_ray() -> dict[str, str]:
    """This environment without any of Ray's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


TELL_TOKEN = """
import os, sys
from toolkit._cli import main

try:
    main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as file:
        file.write(os.environ["RAY_AUTH_TOKEN"])
"""


def test_a_run_on_a_ray_of_its_own_leaves_the_tables_of_a_local_run_and_its_token_nowhere(
    toolkit, spec, local_tables, tmp_path
):
    """Without RAY_ADDRESS Ray starts on this machine. Its token is neither in the run's folder, nor
    in the store, nor in what the command prints.
    """
    path, told = spec(seconds=0.0, workers=1, gpus=0), tmp_path / "token"
    ended = subprocess.run(
        [sys.executable, "-c", TELL_TOKEN, str(told), "run", str(path), "--on", "ray"],
        env={**without_ray(), "TOOLKIT_STORE": str(toolkit.store)},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert b"Warning" not in ended.stderr
    token = told.read_bytes()
    assert len(token) == 64
    assert token not in ended.stdout + ended.stderr
    files = [file for file in toolkit.store.glob("**/*") if file.is_file()]
    assert {"events.jsonl", "manifest.json"} <= {file.name for file in files}
    for file in files:
        assert token not in file.read_bytes(), file
    keys, fingerprint = local_tables(path)
    store = open_store(toolkit.store)
    assert store.fingerprint(keys) == fingerprint
    assert {row.key for row in store.steps()} == set(keys)


# A worker overwrites its environment with its title, `ray::...`: the remote call asks one.
OWN = """
import os, psutil, subprocess, sys
from toolkit_ray._connection import connect

ray = connect()
from ray._common.usage import usage_lib

print("enabled:", usage_lib.usage_stats_enabled())
started = psutil.Process().children(recursive=True)
servers = [child for child in started if not child.cmdline()[0].startswith("ray::")]
for name in ("RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_REPORT_URL"):
    print("servers:", {server.environ().get(name) for server in servers})
actor = ray.remote(lambda: os.environ.get("RAY_USAGE_STATS_ENABLED"))
print("actor:", ray.get(actor.remote()))

address = ray.get_runtime_context().gcs_address
print("own:", ray.get(ray.remote(lambda: 42).remote()), os.environ["RAY_AUTH_TOKEN"] != "")
for token in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
    other = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    joining = f"import ray; ray.init(address='{address}', logging_level='ERROR')"
    ended = subprocess.run([sys.executable, "-c", joining], env={**other, **token})
    print("other:", ended.returncode)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[str]:
    """What a process prints of a Ray that it has started for itself."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OWN],
        env={**without_ray(), "HOME": str(tmp_path_factory.mktemp("home"))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_ray_of_its_own_reports_no_usage(told):
    """Ray turns reports off by itself when it is started like this; the address of reports shows
    that the toolkit's settings reach its servers.
    """
    lines = ["enabled: False", "servers: {'0'}", "servers: {'http://127.0.0.1:9/'}", "actor: 0"]
    assert told[:4] == lines


def test_a_ray_of_its_own_answers_nobody_without_its_token(told):
    """Another process of the machine reaches its servers, and is refused."""
    assert told[4:] == ["own: 42 True", "other: 1", "other: 1"]
