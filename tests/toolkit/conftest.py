"""Running the real command in its own process: what tests of runs, kills and interrupts need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from toolkit._cli import main
from toolkit_store import open_store

TOY = {
    "version": 1,
    "name": "toy",
    "seed": 7,
    "model": {"uses": "toy", "with": {"salt": 1}},
    "saes": {"uses": "toy", "with": {"salt": 2}},
    "samples": {"uses": "count", "with": {"n": 24}},
    "stages": [
        {"id": "features", "uses": "extract.hash", "with": {"width": 32, "active": 3, "batch": 6}},
        {"id": "groups", "uses": "compare.means", "needs": ["features"]},
    ],
}


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Path]:
    """Writes the toy spec with changes: `toy(n=8, features={"seconds": 1})`."""

    def write(name: str = "toy.yaml", n: int = 24, **stages: Any) -> Path:
        spec = yaml.safe_load(yaml.safe_dump(TOY))
        spec["samples"]["with"]["n"] = n
        for stage in spec["stages"]:
            stage.setdefault("with", {}).update(stages.get(stage["id"], {}))
        path = tmp_path / name
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        return path

    return write


NVIDIA_SMI = """#!/bin/sh
i=0
while [ $i -lt COUNT ]; do
  echo "$i, GPU-uuid-$i, 00000000:0$i:00.0, Test GPU, 999.1, 81920, 81000"
  i=$((i + 1))
done
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[[int], str]:
    """Writes a stand-in for the driver's tool that lists so many GPUs; gives a PATH with it."""

    def write(count: int) -> str:
        folder = tmp_path / "driver"
        folder.mkdir(exist_ok=True)
        tool = folder / "nvidia-smi"
        tool.write_text(NVIDIA_SMI.replace("COUNT", str(count)))
        tool.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return write


class Toolkit:
    """Starts `toolkit` commands; every process it started is dead when the test ends."""

    def __init__(self, store: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.store, self.capture = store, capture
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *args: str | Path, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "toolkit", *map(str, args)],
            env={**os.environ, "TOOLKIT_STORE": str(self.store), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """The command in this process, which has lancedb loaded already: the same code, a second or
        two sooner.
        """
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"TOOLKIT_STORE": str(self.store), **env}.items():
                patch.setenv(name, value)
            code = 0
            try:
                main([*map(str, args)])
            except SystemExit as done:
                code = int(done.code or 0)
        out, err = self.capture.readouterr()
        return subprocess.CompletedProcess(args, code, out, err)


@pytest.fixture
def toolkit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Toolkit]:
    """The command with a store of its own."""
    command = Toolkit(tmp_path / "store", capfd)
    yield command
    for process in command.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class LocalTables(NamedTuple):
    """What a local run that nobody disturbs leaves."""

    keys: list[str]
    """Of its steps."""
    fingerprint: dict[str, str]
    """Of their tables."""


@pytest.fixture(scope="session")
def known_local_tables() -> dict[str, LocalTables]:
    """The tables of local runs so far, by what was run."""
    return {}


@pytest.fixture
def local_tables(
    toolkit: Toolkit,
    tmp_path_factory: pytest.TempPathFactory,
    known_local_tables: dict[str, LocalTables],
) -> Callable[..., LocalTables]:
    """Gives the tables that a local run of a spec leaves. Specs that differ in executors alone, or
    in how long a sample takes, have the same keys and share one run.
    """

    def tables(path: Path, *words: str | Path) -> LocalTables:
        spec = yaml.safe_load(path.read_text())
        spec.pop("executors", None)
        for stage in spec["stages"]:
            stage.get("with", {}).pop("seconds", None)
        text = yaml.safe_dump(spec, sort_keys=False)
        what = f"{text}{words}"
        if what not in known_local_tables:
            folder = tmp_path_factory.mktemp("local")
            (folder / path.name).write_text(text)
            where = {"TOOLKIT_STORE": str(folder / "store")}
            done = toolkit.run("run", folder / path.name, *words, **where)
            assert done.returncode == 0, done.stderr
            store = open_store(folder / "store")
            keys = store.run_states()[0].steps
            known_local_tables[what] = LocalTables(keys, store.fingerprint(keys))
        return known_local_tables[what]

    return tables
