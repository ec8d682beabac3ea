"""What ships: the wheel holds exactly the packages of the checkout, and nobody else provides
`toolkit`.

Runs in the sessions that built a wheel and installed it; they say where in TOOLKIT_WHEEL (and
TOOLKIT_SDIST).
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "TOOLKIT_WHEEL" not in os.environ, reason="no built wheel (TOOLKIT_WHEEL); nox builds one"
)

SOURCES = ("toolkit", "plugins", "store", "specs", "containers")
INCLUDED = {"specs/": "toolkit/specs/", "containers/": "toolkit/_images/containers/"}
"""Folders of the checkout that ship inside the package, and their names there."""
TOP_LEVEL = {
    "toolkit",
    "toolkit_store",
    "toolkit_apptainer",
    "toolkit_docker",
    "toolkit_hf",
    "toolkit_lab",
    "toolkit_local",
    "toolkit_measure",
    "toolkit_patch",
    "toolkit_play",
    "toolkit_ray",
    "toolkit_saes",
    "toolkit_samples",
    "toolkit_sinks",
    "toolkit_slurm",
    "toolkit_stats",
    "toolkit_tokens",
    "toolkit_toy",
    "toolkit_words",
}


def names_in_wheel() -> set[str]:
    with zipfile.ZipFile(os.environ["TOOLKIT_WHEEL"]) as wheel:
        return {name for name in wheel.namelist() if not name.endswith("/")}


def names_in_checkout(root: Path) -> set[str]:
    """Files that git tracks or would track, under their names in the wheel: without plugins/ or
    store/ in front, and specs/ inside the package.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [path for path in listed.stdout.splitlines() if (root / path).exists()]
    return {_name_in_wheel(path) for path in paths}


def _name_in_wheel(path: str) -> str:
    for folder, inside in INCLUDED.items():
        if path.startswith(folder):
            return inside + path.removeprefix(folder)
    return path if path.startswith("toolkit/") else path.split("/", 1)[1]


def test_wheel_holds_the_packages_and_nothing_else(root: Path) -> None:
    packaged = {name for name in names_in_wheel() if ".dist-info/" not in name}
    assert sorted(packaged) == sorted(names_in_checkout(root))


def test_top_level_names() -> None:
    assert {
        name.split("/")[0] for name in names_in_wheel() if ".dist-info/" not in name
    } == TOP_LEVEL


def test_packages_that_others_import_say_that_they_are_typed() -> None:
    assert {"toolkit/py.typed", "toolkit_store/py.typed"} <= names_in_wheel()


def test_wheel_carries_its_metadata() -> None:
    info = {name.split("/", 1)[1] for name in names_in_wheel() if ".dist-info/" in name}
    assert info == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_only_this_distribution_provides_the_packages() -> None:
    providers = metadata.packages_distributions()
    assert {name: providers.get(name) for name in TOP_LEVEL} == {
        name: ["sae-toolkit"] for name in TOP_LEVEL
    }


def test_entry_points_name_packages_of_the_wheel() -> None:
    points = metadata.distribution("sae-toolkit").entry_points
    (script,) = points.select(group="console_scripts")
    assert (script.name, script.value) == ("toolkit", "toolkit._cli:main")
    plugins = points.select(group="toolkit")
    assert {point.value for point in plugins} <= TOP_LEVEL
    assert all(point.value == f"toolkit_{point.name}" for point in plugins)


def test_the_installed_wheel_is_what_is_tested() -> None:
    import toolkit

    assert "site-packages" in Path(toolkit.__file__).parts


@pytest.mark.skipif("TOOLKIT_SDIST" not in os.environ, reason="no built sdist (TOOLKIT_SDIST)")
def test_sdist_can_be_tested_and_rebuilt() -> None:
    with tarfile.open(os.environ["TOOLKIT_SDIST"]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "noxfile.py",
        "constraints.txt",
        "LICENSE",
        "README.md",
        "specs/toy.yaml",
        "tests/conftest.py",
    } <= names
    assert not [
        name for name in names if name.startswith((".git/", ".nox/", "out/", "toolkit-runs/"))
    ]
