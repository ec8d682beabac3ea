"""A new plugin of any kind is right as it is written: it passes its contract, and it installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.toolkit.conftest import Toolkit, toolkit  # noqa: F401
from toolkit._cli.new_plugin import command
from toolkit._plugins.loading import load_parts
from toolkit._plugins.scaffold import KINDS, package_files, write_plugin
from toolkit._spec.load import load_spec
from toolkit.errors import BadInput
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded import check_loaded
from toolkit.testing.promises import Broken


@pytest.mark.slow
def test_every_kind_passes_its_contract_test(tmp_path: Path) -> None:
    folders = [write_plugin(f"own-{kind}", kind, tmp_path) for kind in KINDS]
    paths = os.pathsep.join([*map(str, folders), *map(os.path.abspath, filter(None, sys.path))])
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --import-mode=importlib\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(KINDS)} passed" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_plugin_loads_as_a_stranger(kind: str, tmp_path: Path) -> None:
    folder = write_plugin(f"mine-{kind}", kind, tmp_path)
    (plugin,) = (
        info
        for info in load_parts([folder / f"toolkit_mine_{kind}" / "__init__.py"]).plugins
        if info.file
    )
    (part,) = plugin.parts
    assert part.name.endswith(f"mine-{kind}")


def loaded(kind: str, folder: Path, wrong: tuple[str, str] = ("", "")) -> tuple[Any, Any]:
    """The part of a new plugin, with something in its file replaced, and what it loads."""
    file = write_plugin(f"mine-{kind}", kind, folder) / f"toolkit_mine_{kind}" / "__init__.py"
    assert wrong[0] in file.read_text()
    file.write_text(file.read_text().replace(*wrong) if wrong[0] else file.read_text())
    (plugin,) = (info for info in load_parts([file]).plugins if info.file)
    (part,) = plugin.parts
    return part, part.load(part.params(), SilentReporter())


def test_a_new_model_and_a_new_sae_fit_together(tmp_path: Path) -> None:
    (_, model), (_, (sae,)) = loaded("model", tmp_path), loaded("sae", tmp_path)
    rows = model.run([model.encode("a text").ids], [sae.hookpoint])[sae.hookpoint][0]
    assert sae.decode(sae.encode(rows)).shape == rows.shape == (6, model.width)
    replies = model.generate([[1, 2]], max_tokens=3)
    assert len(replies[0].ids) == 3


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (
            "model",
            ('f"resid_post.{layer}", stream', 'f"resid_post.{layer + 1}", stream'),
            "an edit at resid_post.0 does not change",
        ),
        (
            "model",
            ("stream.cumsum(1) / seen", "stream.mean(1, keepdim=True)"),
            "depends on the other texts of its batch or on the padding",
        ),
        ("sae", (").relu()", ")"), "encode returned activations below zero"),
        ("sae", ("rows.float()", "rows"), "encode does not take bfloat16"),
    ],
)
def test_what_a_new_plugin_loads_is_checked(
    kind: str, wrong: tuple[str, str], message: str, tmp_path: Path
) -> None:
    part, _ = loaded(kind, tmp_path, wrong)
    assert "check_loaded(part)" in package_files("mine", kind)["tests/test_contract.py"]
    with pytest.raises(Broken, match=message):
        check_loaded(part)


@pytest.mark.parametrize("kind", KINDS)
def test_example_spec_names_the_part(kind: str, tmp_path: Path) -> None:
    folder = write_plugin("mine", kind, tmp_path)
    if (folder / "example.yaml").exists():
        assert load_spec(folder / "example.yaml").spec.name == "mine"
        assert "mine" in (folder / "example.yaml").read_text().split("uses: ", 1)[1]


def test_the_command_says_what_comes_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command, ["poker", "--kind", "source", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "pip install --no-deps --no-build-isolation -e ." in result.output
    assert sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    ) == sorted(f"toolkit-poker/{name}" for name in package_files("poker", "source"))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("Poker", "source", "'Poker' is not a plugin name. Use lower-case letters"),
        ("../up", "source", "is not a plugin name"),
        ("a--b", "source", "is not a plugin name"),
        ("poker", "sorce", "There is no kind 'sorce'. Did you mean 'source'?"),
        ("toy", "source", "A plugin named 'toy' is installed already."),
    ],
)
def test_bad_names(name: str, kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        write_plugin(name, kind, tmp_path)
    assert message in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_existing_work_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "toolkit-poker").mkdir()
    write_plugin("poker", "sink", tmp_path)
    with pytest.raises(BadInput, match=r"exists and is not empty. Choose another name"):
        write_plugin("poker", "sink", tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BadInput, match=r"cannot be written: Not a directory. Choose another folder with --out"
    ):
        write_plugin("poker", "sink", tmp_path / "file")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pip_installs_every_kind_and_their_tests_pass_as_they_are(tmp_path: Path) -> None:
    folders = [write_plugin(f"my-{kind}", kind, tmp_path) for kind in sorted(KINDS)]
    target = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, *map(str, folders)], check=True, timeout=280)
    paths = os.pathsep.join([str(target), *map(os.path.abspath, filter(None, sys.path))])
    env = {**os.environ, "PYTHONPATH": paths}
    code = (
        "from toolkit._plugins.loading import load_parts; print(*sorted(load_parts().versions()))"
    )
    listed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert {f"my-{kind}" for kind in KINDS} <= set(listed.stdout.split()), listed.stderr
    for folder in folders:
        pytest_here = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--import-mode=importlib",
            "--rootdir",
            str(folder),
        ]
        done = subprocess.run(
            [*pytest_here, str(folder / "tests")],
            env=env,
            capture_output=True,
            text=True,
            cwd=folder,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["environment", "parser", "measure"])
def test_a_new_game_parser_or_measure_is_used_at_once(
    kind: str,
    toolkit: Toolkit,  # noqa: F811
    tmp_path: Path,
) -> None:
    """As a scratch file, with the example that comes with it."""
    folder = write_plugin("mine", kind, tmp_path)
    file = folder / "toolkit_mine" / "__init__.py"
    done = toolkit.run("run", folder / "example.yaml", "--plugin", file)
    assert done.returncode == 0, done.stderr
    shown = json.loads(toolkit.run("show", "mine", "--json").stdout)
    assert shown["rows"]["games"] >= 2
    assert shown["rows"]["rounds"] >= 2
    assert kind != "measure" or shown["rows"]["measures"] == 2
