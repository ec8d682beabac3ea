"""The executor `apptainer` with a real Apptainer, as root, from an image file that `toolkit images
export` wrote. `nox -s containers` installs one (containers/apptainer.sh) where Debian's packages
can be had.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit_store import open_store

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

FOLDER = "TOOLKIT_TEST_APPTAINER"
QUICKLY = "-Xcompression-level 1"
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


@pytest.fixture
def apptainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program, first on the PATH."""
    if FOLDER not in os.environ:
        pytest.skip(f"no Apptainer of the tests' own ({FOLDER}); `nox -s containers` installs one")
    monkeypatch.setenv("PATH", f"{os.environ[FOLDER]}:{os.environ['PATH']}")
    assert shutil.which("apptainer") == f"{os.environ[FOLDER]}/apptainer"


@pytest.fixture(scope="session")
def locks_with_files() -> dict[Path, Path]:
    """Locks whose image has been exported: writing a file takes a minute or two."""
    return {}


@pytest.fixture
def exported(
    apptainer: None,
    engine: Any,
    image: Path,
    tmp_path_factory: pytest.TempPathFactory,
    toolkit: Any,
    locks_with_files: dict[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The CPU image as a file, which the lock names from then on; the lock."""
    if image not in locks_with_files:
        folder = tmp_path_factory.mktemp("sif")
        lock = Path(shutil.copy(image, folder))
        settings = {"TOOLKIT_IMAGES": str(lock), "APPTAINER_MKSQUASHFS_ARGS": QUICKLY}
        result = toolkit.run("images", "export", "cpu", folder / "cpu.sif", **settings)
        assert result.returncode == 0, result.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["cpu.sif", "images.yaml"]
        locks_with_files[image] = lock
    monkeypatch.setenv("TOOLKIT_IMAGES", str(locks_with_files[image]))
    return locks_with_files[image]


def test_runs_from_the_exported_file_leave_the_tables_of_a_local_run(
    exported: Path, toolkit: Any, toy: Any, local_tables: Any
) -> None:
    spec = toy()
    expected = local_tables(spec).fingerprint
    result = toolkit.run("run", spec, "--on", "apptainer")
    assert result.returncode == 0, result.stderr
    store = open_store(toolkit.store)
    assert store.fingerprint(store.run_states()[-1].steps) == expected
    (manifest,) = toolkit.store.glob("runs/*/manifest.json")
    pin = yaml.safe_load(exported.read_text())["cpu"]["image"]
    assert pin in manifest.read_text(), "the record names the image that the file was made from"


def test_a_container_sees_its_folders_and_nothing_of_the_store(
    exported: Path, toolkit: Any, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "1")
    spec = yaml.safe_load(toy(n=2).read_text())
    spec["stages"] = [{"id": "features", "uses": "extract.look"}]
    path, plugin = tmp_path / "look.yaml", tmp_path / "look.py"
    path.write_text(yaml.safe_dump(spec))
    plugin.write_text(f"PATHS = {[str(toolkit.store), str(tmp_path)]!r}\n{PLUGIN}")
    result = toolkit.run("run", path, "--on", "apptainer", "--plugin", plugin)
    assert result.returncode == 3
    assert "seen enough" in result.stderr
    log = next(toolkit.store.glob("runs/*/workers/apptainer-0.log")).read_text()
    line = next(text for text in log.splitlines() if text.startswith("FACTS"))
    facts = json.loads(line.removeprefix("FACTS"))
    assert facts["writable"] == ["/toolkit/jobs", "/tmp"]
    assert facts["prefix"] == "/opt/toolkit"
    assert not any(facts["sees"].values())
    assert "OF_THE_CALLER" not in facts["environment"]
