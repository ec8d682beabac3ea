"""A record loads no code: scratch plugins of a run are named again, and are the recorded ones."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import pytest

from toolkit._plugins.recorded import check_recorded
from toolkit._run.run_folder import resume_command
from toolkit.errors import BadInput, PluginError
from toolkit_store import open_store
from toolkit_store.interchange import export_run, import_run, run_tables

PLUGIN = "from pathlib import Path\nPath(__file__).with_name('was-loaded').touch()\n"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "plug.py"
    path.write_text(PLUGIN)
    return path


def recorded(path: Path) -> dict[str, str]:
    return {
        "toolkit-stats": "sae-toolkit 0.1.0",
        path.stem: f"file sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
    }


def test_installed_plugins_need_not_be_named() -> None:
    check_recorded("r", {"toolkit-stats": "sae-toolkit 0.1.0"}, [])


def test_a_scratch_plugin_is_named_again(plugin: Path) -> None:
    origins = recorded(plugin)
    check_recorded("r", origins, [plugin])
    with pytest.raises(BadInput, match=r"Run r used the scratch plugin 'plug' .*: --plugin FILE"):
        check_recorded("r", origins, [])


def test_a_scratch_plugin_must_be_the_recorded_one(plugin: Path) -> None:
    origins = recorded(plugin)
    plugin.write_text(PLUGIN + "x = 1\n")
    with pytest.raises(BadInput, match=r"plug\.py has SHA-256 .*, and run r used a file with"):
        check_recorded("r", origins, [plugin])
    plugin.unlink()
    with pytest.raises(PluginError, match="cannot be read: No such file"):
        check_recorded("r", origins, [plugin])


def test_the_command_that_continues_a_run_names_its_scratch_plugins(
    plugin: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "store" / "runs" / "toy-1"
    folder.mkdir(parents=True)
    manifest = {"plugins": recorded(plugin), "plugin_files": [str(plugin)]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store = ["--store", str(tmp_path / "store")]
    words = shlex.split(resume_command("toy-1", tmp_path / "store"))
    assert words == ["toolkit", "run", "toy-1", "--plugin", str(plugin), *store]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"plugin_files": []}))
    words = shlex.split(resume_command("toy-1", tmp_path / "store"))
    assert words == ["toolkit", "run", "toy-1", "--plugin", "plug.py", *store]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_imported_run_loads_no_plugin_file(toolkit, toy, plugin, command):
    """The manifest of the export is whoever's who made it."""
    spec = toy()
    run = json.loads(toolkit.run("check", spec, "--json").stdout)["run"]
    assert toolkit.run("run", spec).returncode == 0
    store = open_store(toolkit.store, read_only=True)
    export = toolkit.store.parent / "export"
    export_run(run_tables(store, run), "parquet", export)
    manifest = json.loads((export / "manifest.json").read_text())
    manifest["plugin_files"] = [str(plugin)]
    (export / "manifest.json").write_text(json.dumps(manifest))
    other = toolkit.store.parent / "other"
    assert import_run(open_store(other, create=True), "parquet", export) == run
    kept = json.loads((other / "runs" / run / "manifest.json").read_text())
    assert kept == manifest | {"plugin_files": []}
    result = toolkit.run(command, run, "--store", other)
    assert result.returncode == 0, result.stderr
    if command == "run":
        message = "stage samples: 1 of the reused steps were imported, not computed here (parquet "
        assert message in result.stderr
    assert not plugin.with_name("was-loaded").exists()
    manifest["plugins"] |= recorded(plugin)
    folder = other / "runs" / run
    (folder / "manifest.json").write_text(json.dumps(manifest))
    result = toolkit.run(command, run, "--store", other)
    assert result.returncode == 2
    assert "used the scratch plugin 'plug'" in result.stderr
    assert not plugin.with_name("was-loaded").exists()
    manifest.pop("spec")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    result = toolkit.run(command, run, "--store", other)
    assert result.returncode == 2
    assert "its manifest has no 'spec'" in result.stderr
