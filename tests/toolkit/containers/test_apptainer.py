"""Workers in a real Apptainer, as root, from an image file that `toolkit images export` wrote:
started by the executor `apptainer`, and by the tasks of a Slurm cluster. `nox -s containers`
installs Apptainer (containers/apptainer.sh) where Debian's packages can be had, and starts a
cluster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit_store import open_store

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Executor:
    """An executor and its params."""

    name: str
    params: Mapping[str, Any]

    def write_to(self, spec: Path) -> None:
        """Add the params to a spec."""
        executors = {"executors": {self.name: dict(self.params)}}
        spec.write_text(spec.read_text() + yaml.safe_dump(executors))


PLUGIN = """
import json
import os
import sys
from pathlib import Path

from toolkit import hookimpl
from toolkit.parts import NoParams, StagePart


def writable(folder):
    try:
        Path(folder, "probe").touch()
        Path(folder, "probe").unlink()
    except OSError:
        return False
    return True


def look(work):
    folders = ("/toolkit/jobs", "/toolkit/inputs", "/toolkit/plugins/0", "/opt/toolkit", "/tmp")
    facts = {
        "writable": [folder for folder in folders if writable(folder)],
        "environment": dict(os.environ),
        "sees": {name: os.path.exists(name) for name in PATHS},
        "prefix": sys.prefix,
    }
    print("FACTS", json.dumps(facts), file=sys.stderr, flush=True)
    raise RuntimeError("seen enough")


@hookimpl
def toolkit_parts():
    yield StagePart(name="extract.look", help="Looks around.", params=NoParams, run=look,
                    reads=("samples",), writes=("activations", "spaces"))
"""


@pytest.fixture(params=["apptainer", "slurm"])
def on(request: pytest.FixtureRequest, exported: Path) -> Executor:
    """An executor whose workers run from the exported file, and its params."""
    if request.param == "apptainer":
        return Executor("apptainer", {})
    if "SLURM_CONF" not in os.environ:
        pytest.skip("SLURM_CONF names no cluster; `nox -s containers` starts one")
    sif = yaml.safe_load(exported.read_text())["cpu"]["sif"]
    return Executor("slurm", {"workers": 1, "poll": 1, "leave": 1, "sif": sif})


def test_runs_from_the_exported_file_leave_the_tables_of_a_local_run(
    on: Executor, exported: Path, toolkit: Any, toy: Any, local_tables: Any
) -> None:
    spec = toy()
    expected = local_tables(spec).fingerprint
    on.write_to(spec)
    result = toolkit.run("run", spec, "--on", on.name)
    assert result.returncode == 0, result.stderr
    store = open_store(toolkit.store)
    assert store.fingerprint(store.run_states()[-1].steps) == expected
    if on.name == "slurm":
        return
    (manifest,) = toolkit.store.glob("runs/*/manifest.json")
    pin = yaml.safe_load(exported.read_text())["cpu"]["image"]
    assert pin in manifest.read_text(), "the record names the image that the file was made from"


def test_a_container_sees_its_folders_and_nothing_of_the_store(
    on: Executor, toolkit: Any, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "1")
    spec = yaml.safe_load(toy(n=2).read_text())
    spec["stages"] = [{"id": "features", "uses": "extract.look"}]
    path, plugin = tmp_path / "look.yaml", tmp_path / "look.py"
    path.write_text(yaml.safe_dump(spec))
    on.write_to(path)
    plugin.write_text(f"PATHS = {[str(toolkit.store), str(tmp_path)]!r}\n{PLUGIN}")
    result = toolkit.run("run", path, "--on", on.name, "--plugin", plugin)
    assert result.returncode == 3
    assert "seen enough" in result.stderr
    log = next(toolkit.store.glob(f"runs/*/workers/{on.name}-0.log")).read_text()
    line = next(text for text in log.splitlines() if text.startswith("FACTS"))
    facts = json.loads(line.removeprefix("FACTS"))
    assert facts["writable"] == ["/toolkit/jobs", "/tmp"]
    assert facts["prefix"] == "/opt/toolkit"
    assert not any(facts["sees"].values())
    assert "OF_THE_CALLER" not in facts["environment"]
