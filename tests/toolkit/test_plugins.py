"""Loading plugins: what is refused, with which words, and what comes of a right one."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit._cli import check
from toolkit._cli.plugins import command
from toolkit._plugins import loading as _plugins
from toolkit._plugins.loading import load_parts
from toolkit._plugins.registry import Parts
from toolkit.errors import BadInput, PluginError

HEAD = """
from toolkit import hookimpl
from toolkit.parts import *
from toolkit.parts import Params

class Own(Params):
    n: int = 1

def run(work): yield from ()
"""


def scratch(folder: Path, body: str, name: str = "mine") -> Path:
    file = folder / f"{name}.py"
    file.write_text(HEAD + body)
    return file


def offering(*parts: str) -> str:
    return "@hookimpl\ndef toolkit_parts():\n" + "".join(f"    yield {part}\n" for part in parts)


def refused(*files: Path) -> str:
    with pytest.raises(PluginError) as caught:
        load_parts(files)
    return str(caught.value)


class Found:
    """Distributions made up for a test, each with entry points."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.syspath_prepend(str(folder))

    def add(self, distribution: str, plugin: str, body: str) -> None:
        module = f"{distribution}_{plugin}_{self.folder.name}".replace("-", "_")
        (self.folder / f"{module}.py").write_text(HEAD + body)
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(f"[toolkit]\n{plugin} = {module}\n")


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Found(tmp_path, monkeypatch)


# --- right ones -----------------------------------------------------------------------------------


def test_the_built_in_parts_are_found() -> None:
    parts = load_parts()
    assert parts.get("stage", "extract.hash").name == "extract.hash"
    assert parts.owner(parts.get("model", "toy")).name == "toy"
    assert parts.versions()["toy"].startswith("sae-toolkit ")
    assert [part.name for part in parts.of("stage")] == sorted(
        part.name for part in parts.of("stage")
    )


def test_a_scratch_plugin_is_known_by_its_hash(tmp_path: Path) -> None:
    file = scratch(tmp_path, offering("SourcePart(name='mine', help='x', params=Own, run=run)"))
    parts = load_parts([file])
    assert (
        parts.versions()["mine"] == "file sha256:" + parts.owner(parts.get("source", "mine")).sha256
    )  # type: ignore[operator]
    assert parts.get("source", "mine").params.__module__.startswith("toolkit_scratch_")
    file.write_text(file.read_text() + "# changed\n")
    assert load_parts([file]).versions() != parts.versions()
    assert load_parts([file]).versions() == load_parts([file]).versions()


def test_a_distribution_is_named_with_its_version(found: Found) -> None:
    found.add("toolkit-own", "own", offering("SourcePart(name='own', help='x', run=run)"))
    assert load_parts().versions()["own"] == "toolkit-own 1.2"


@pytest.mark.slow
def test_loading_is_light() -> None:
    code = (
        "import sys; from toolkit._plugins.loading import load_parts; load_parts(); "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": _path()},
    )
    assert not {"torch", "lancedb", "pyarrow", "transformers"} & set(done.stdout.split())


def _path() -> str:
    return ":".join(str(Path(entry).absolute()) for entry in sys.path if entry)


def test_disabled_by_environment(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    found.add("toolkit-own", "own", "raise OSError('broken')")
    monkeypatch.setenv("TOOLKIT_DISABLE_PLUGINS", "own, toy")
    assert not {"own", "toy"} & set(load_parts().versions())
    assert "toy" in load_parts(disabled=["own"]).versions()


# --- asking for what does not exist ---------------------------------------------------------------


def test_an_unknown_part() -> None:
    with pytest.raises(BadInput) as caught:
        load_parts().get("stage", "extract.hsh")
    text = str(caught.value)
    assert text.startswith(
        "There is no stage part 'extract.hsh'. Did you mean 'extract.hash'? Installed: "
    )
    assert text.endswith("See: toolkit plugins")


def test_a_part_of_another_kind() -> None:
    with pytest.raises(
        BadInput, match=r"There is no sink part 'count'. 'count' is a source part. Installed: "
    ):
        load_parts().get("sink", "count")


def test_an_unknown_kind() -> None:
    with pytest.raises(
        BadInput,
        match=r"There is no kind of part 'stge'. Did you mean 'stage'[?] Kinds: environment, ",
    ):
        load_parts().of("stge")


def test_nobody_owns_a_strangers_part() -> None:
    part = load_parts().get("sink", "json")
    with pytest.raises(BadInput, match=r"No installed plugin offers the sink part 'json'"):
        Parts([]).owner(part)


# --- wrong ones -----------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    text = refused(tmp_path / "none.py")
    assert (
        text == f"--plugin {tmp_path / 'none.py'}: cannot be read: No such file or "
        f"directory. "
        f"Give the path of a "
        f"Python file."
    )


def test_not_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "its name must end in .py" in refused(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.py")
    assert "pipe.py is a named pipe, not a file" in refused(tmp_path / "pipe.py")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            "import no_such_module_here",
            "ModuleNotFoundError: No module named 'no_such_module_here'",
        ),
        ("def (", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_scratch_file_that_fails(body: str, error: str, tmp_path: Path) -> None:
    file = scratch(tmp_path, body)
    text = refused(file)
    assert f"Plugin 'mine' (from {file}) could not be imported: {error}" in text
    assert f"Leave out --plugin {file}, or repair it." in text
    assert refused(file) == text


def test_params_of_a_type_that_is_not_defined_are_refused_by_name(tmp_path: Path) -> None:
    """Params are built when a spec uses them, so that a plugin with a mistake stops no other."""
    part = "SourcePart(name='mine', help='x', params=Mine, run=run)"
    file = scratch(tmp_path, "class Mine(Params):\n    n: 'Intt' = 1\n" + offering(part))
    assert load_parts([file]).get("source", "mine").name == "mine"
    spec = tmp_path / "spec.yaml"
    stages = "stages: [{id: s, uses: extract.hash, with: {width: 8, active: 1, batch: 6}}]\n"
    head = "version: 1\nname: x\nmodel: {uses: toy}\nsaes: {uses: toy}\nsamples: {uses: mine}\n"
    spec.write_text(head + stages)
    result = CliRunner().invoke(check.command, [str(spec), "--plugin", str(file)])
    assert isinstance(result.exception, PluginError)
    assert "'mine': its params class Mine cannot be used: `Mine` is" in str(result.exception)


def test_an_installed_plugin_that_fails_to_import(found: Found) -> None:
    found.add("toolkit-own", "own", "import no_such_module_here")
    assert refused() == (
        "Plugin 'own' (from toolkit-own 1.2) could not be imported: ModuleNotFoundError: No module "
        "named 'no_such_module_here'. Disable it with TOOLKIT_DISABLE_PLUGINS=own, or repair it."
    )


def test_two_distributions_with_one_plugin_name(found: Found) -> None:
    found.add("toolkit-own", "own", "")
    found.add("toolkit-other", "own", "")
    text = refused()
    assert "Two distributions offer a plugin named 'own': " in text
    assert "toolkit-own 1.2" in text
    assert "toolkit-other 1.2" in text
    assert "own" not in load_parts(disabled=["own"]).versions()


def test_two_plugins_with_one_part(found: Found) -> None:
    found.add("toolkit-own", "own", offering("SourcePart(name='count', help='x', run=run)"))
    text = refused()
    assert "Plugin 'own' (from toolkit-own 1.2) and plugin 'toy' (from sae-toolkit " in text
    assert (
        "both offer the source part 'count'. Disable it with TOOLKIT_DISABLE_PLUGINS=own, or "
        "disable it with" in text
    )


def test_one_plugin_with_a_part_twice(tmp_path: Path) -> None:
    part = "SourcePart(name='mine', help='x', run=run)"
    assert "offers the source part 'mine' twice" in refused(scratch(tmp_path, offering(part, part)))


def test_a_scratch_plugin_named_as_an_installed_one(tmp_path: Path) -> None:
    file = scratch(tmp_path, offering("SourcePart(name='mine', help='x', run=run)"), "toy")
    assert (
        f"Plugin 'toy' (from {file}) is already loaded under the name 'toy'. Leave out --plugin"
        in refused(file)
    )


def test_the_same_file_twice(tmp_path: Path) -> None:
    file = scratch(tmp_path, offering("SourcePart(name='mine', help='x', run=run)"))
    assert "is already loaded under the name 'mine'" in refused(file, file)


HOOKS = [
    (
        "@hookimpl\ndef toolkit_prts():\n    return ()",
        "there is no hook 'toolkit_prts'. Did you mean 'toolkit_parts'?",
    ),
    (
        "@hookimpl(optionalhook=True)\ndef toolkit_prts():\n    return ()",
        "there is no hook 'toolkit_prts'.",
    ),
    (
        "def toolkit_parts():\n    return ()",
        "toolkit_parts lacks @hookimpl, so it would never be called.",
    ),
    (
        "@hookimpl\ndef toolkit_parts(config=None):\n    return ()",
        "has parameters with defaults, which never get a value: config.",
    ),
    ("@hookimpl\ndef toolkit_parts(config):\n    return ()", "does not fit the hookspecs: "),
    (
        "@hookimpl(wrapper=True)\ndef toolkit_parts():\n    return (yield)",
        "toolkit_parts is a wrapper, but hooks only collect.",
    ),
    (
        "@hookimpl\ndef toolkit_parts():\n    raise KeyError('x')",
        "failed to name its parts: KeyError: 'x'. Leave out --plugin",
    ),
    ("@hookimpl\ndef toolkit_parts():\n    return 3", "failed to name its parts: TypeError: "),
    (
        "@hookimpl\ndef toolkit_parts():\n    yield 'count'",
        "toolkit_parts gave str instead of a part. Parts: EnvironmentPart, ",
    ),
    ("", "offers no parts. Implement toolkit_parts with @hookimpl: see toolkit new-plugin."),
]


@pytest.mark.parametrize(("body", "message"), HOOKS)
def test_hooks_that_do_not_fit(body: str, message: str, tmp_path: Path) -> None:
    text = refused(scratch(tmp_path, body))
    assert message in text
    assert "Plugin 'mine' (from " in text


STAGE = (
    "StagePart(name='{name}', help='x', params=Own, run=run, reads={reads}, writes={writes}, "
    "steps=Steps(size={split}))"
)
PARTS = [
    (
        STAGE.format(name="hash", reads=(), writes=(), split=None),
        "the name of a stage part is a prefix and a word",
    ),
    (
        STAGE.format(name="extract.", reads=(), writes=(), split=None),
        "Prefixes: examine., extract., compare., patch., play., measure., track., attribute., "
        "trace., words.",
    ),
    (
        STAGE.format(name="extract.a", reads=("sampels",), writes=(), split=None),
        "reads names 'sampels', which is not a table.",
    ),
    (
        STAGE.format(name="extract.a", reads=("sampels",), writes=(), split=None),
        "Did you mean 'samples'? Tables: ",
    ),
    (
        STAGE.format(name="extract.a", reads=(), writes=("steps",), split=None),
        "writes names 'steps', which is not a table.",
    ),
    (
        STAGE.format(name="extract.a", reads=(), writes="'samples'", split=None),
        "must be a tuple of table names; write ('samples',).",
    ),
    (
        "StagePart(name='extract.a', help='x', run=run, reads=(), writes=(), uses_model=True, "
        "replaces_model='streams')",
        "replaces_model names 'streams': it must be one of the part's `optional` tables, and the "
        "part must have uses_model.",
    ),
    (
        "StagePart(name='extract.a', help='x', run=run, reads=(), writes=(), "
        "optional=('streams',), replaces_model='streams')",
        "it must be one of the part's `optional` tables",
    ),
    (
        STAGE.format(name="extract.a", reads=(), writes=(), split="'m'"),
        "steps.size names 'm', which is not a field of its params.",
    ),
    (
        "SourcePart(name='Mine', help='x', run=run)",
        "source part 'Mine': a name consists of lower-case letters",
    ),
    (
        "SourcePart(name='mine', help=' ', run=run)",
        "source part 'mine': its help must be a single line.",
    ),
    ("SourcePart(name='mine', help='x\\ny', run=run)", "its help must be a single line."),
    ("SourcePart(name='mine', help='x', run=run, version='')", "its version is empty."),
    (
        "SourcePart(name='mine', help='x', run=run, params=dict)",
        "params must be a class derived from toolkit.parts.Params.",
    ),
    ("Part(name='mine', help='x')", "toolkit_parts gave Part instead of a part."),
]


@pytest.mark.parametrize(("part", "message"), PARTS)
def test_parts_that_do_not_fit(part: str, message: str, tmp_path: Path) -> None:
    assert message in refused(
        scratch(tmp_path, "from toolkit.parts import Part\n" + offering(part))
    )


# --- a checkout that nobody installed, and the command --------------------------------------------


def test_an_installed_toolkit_does_not_read_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plugins, "_is_installed", lambda: True)
    assert _plugins._checkout_entry_points() == []


def test_names_are_listed_without_importing(found: Found) -> None:
    found.add("toolkit-own", "own", "raise OSError('broken')")
    assert {"own", "toy"} <= set(_plugins.plugin_names())
    assert any(entry.name == "own" for entry in importlib.metadata.entry_points(group="toolkit"))


def test_the_command_lists_parts(tmp_path: Path) -> None:
    file = scratch(tmp_path, offering("SourcePart(name='mine', help='My own.', run=run)"))
    shown = CliRunner().invoke(command, ["--plugin", str(file)], catch_exceptions=False).output
    assert "toy  (sae-toolkit " in shown
    assert "source mine  My own." in shown
    listed = json.loads(
        CliRunner()
        .invoke(command, ["--json", "--plugin", str(file)], catch_exceptions=False)
        .output
    )
    (mine,) = (plugin for plugin in listed if plugin["name"] == "mine")
    assert mine["parts"] == [{"kind": "source", "name": "mine", "version": "1", "help": "My own."}]
    assert mine["origin"] == f"file sha256:{mine['sha256']}"
