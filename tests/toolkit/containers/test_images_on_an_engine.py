"""Images on a real engine: the same bytes on every build, no root, no compiler, pinned by ID."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit._images.archive import creation_time
from toolkit._images.build import build_image, write_lock
from toolkit._images.labels import OCI, revision_of
from toolkit._images.verify import problems_of
from toolkit._images.wheelhouse import CHECKOUT
from toolkit.containers.images import containers_folder, read_lock, read_recipes
from toolkit.errors import StepFailed
from toolkit.version import VERSION

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]


def _wheel() -> Path | None:
    named = os.environ.get("TOOLKIT_WHEEL")
    return Path(named) if named else None


def test_two_builds_have_the_same_digest(engine: Any, image: Path, wheelhouse: Path) -> None:
    again = build_image(
        engine,
        "cpu",
        read_recipes()["cpu"],
        say=lambda text: None,
        wheelhouse=wheelhouse,
        wheel=_wheel(),
    )
    assert again == read_lock(image)["cpu"]


def test_an_image_is_what_its_pin_says(engine: Any, image: Path) -> None:
    pinned = read_lock(image)["cpu"]
    assert problems_of(engine, "cpu", pinned) == []
    older = replace(pinned, toolkit="0.0.9")
    assert "it holds toolkit 0.0.9" in problems_of(engine, "cpu", older)[0]
    gone = replace(pinned, image="sha256:" + "0" * 64)
    assert "is not on this engine" in problems_of(engine, "cpu", gone)[0]
    other = replace(pinned, packages="sha256:" + "0" * 64)
    assert "its lower layer is not sha256:000" in problems_of(engine, "cpu", other)[0]


def test_the_commands_list_verify_and_refuse(
    engine: Any, image: Path, toolkit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image))
    pin = read_lock(image)["cpu"].image
    assert pin in toolkit.run("images", "list").stdout
    verified = toolkit.run("images", "verify")
    assert (verified.returncode, verified.stdout) == (0, f"cpu  {pin}  as pinned\n")
    refused = toolkit.run("images", "export", "cpu", tmp_path / "cpu.zip")
    assert refused.returncode == 2
    assert "name a file that ends in .tar (Docker) or .sif (Apptainer)" in refused.stderr


def test_base_and_packages_are_those_of_the_shipped_lock(engine: Any, image: Path) -> None:
    """Where the interpreter is the one that they were built from: the digests are equal."""
    pins, pinned = read_recipes()["cpu"].pins, read_lock(image)["cpu"]
    assert pins is not None
    layers = engine.images.get(pinned.image).attrs["RootFS"]["Layers"]
    assert (len(layers), layers[0]) == (2, pinned.packages)
    if (pinned.base, pinned.requirements) != (pins.base, pins.requirements):
        pytest.skip(
            "another interpreter or newer requirements than containers/lock.yaml pins. Seen here: "
            f"base {pinned.base}, requirements {pinned.requirements}, packages {pinned.packages}"
        )
    assert pinned.packages == pins.packages


def test_an_image_has_the_labels_of_the_open_container_initiative(engine: Any, image: Path) -> None:
    built = engine.images.get(read_lock(image)["cpu"].image)
    assert built.attrs["Created"].startswith(creation_time().removesuffix("Z"))
    labels = {name: built.labels.get(f"{OCI}.{name}") for name in ("title", "version", "created")}
    assert labels == {"title": "sae-toolkit cpu", "version": VERSION, "created": creation_time()}
    assert built.labels[f"{OCI}.licenses"] == "Apache-2.0"
    revision = revision_of(CHECKOUT) if _wheel() is None else None
    assert built.labels.get(f"{OCI}.revision") == revision


def test_the_bill_of_materials_has_every_requirement_in_its_version(
    engine: Any, image: Path
) -> None:
    output = engine.containers.run(
        read_lock(image)["cpu"].image,
        ["cat", "/opt/toolkit/sbom.cdx.json"],
        network_mode="none",
        remove=True,
    )
    bill = json.loads(output)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    listed = {one["purl"].partition("@")[0]: one["version"] for one in bill["components"]}
    lines = (containers_folder() / "requirements-cpu.txt").read_text().splitlines()
    required = [line.split()[0].split("==") for line in lines if "==" in line]
    assert len(required) > 40
    assert {name: listed.get(f"pkg:pypi/{name}") for name, _ in required} == dict(required)
    assert listed["pkg:pypi/sae-toolkit"] == VERSION


def test_an_image_runs_without_root_and_says_what_is_in_it(engine: Any, image: Path) -> None:
    script = (
        "import json, os, shutil, pathlib, toolkit\n"
        "bill = json.loads(pathlib.Path('/opt/toolkit/sbom.cdx.json').read_text())\n"
        "print(json.dumps({'uid': os.getuid(), 'compilers': [shutil.which(n) for n in "
        "('cc', 'gcc', 'make')], 'names': [one['name'] for one in bill['components']],\n"
        " 'dates': sorted({int(p.stat().st_mtime) for p in pathlib.Path('/opt').rglob('*')})}))\n"
    )
    output = engine.containers.run(
        read_lock(image)["cpu"].image, ["python", "-c", script], network_mode="none", remove=True
    )
    facts = json.loads(output)
    assert facts["uid"] == 10001
    assert facts["compilers"] == [None, None, None]
    assert {"torch", "lancedb", "sae-toolkit"} <= set(facts["names"])
    assert facts["dates"] == [0]


def test_a_cpu_build_of_torch_never_slips_into_the_cuda_image(
    engine: Any, wheelhouse: Path, image: Path
) -> None:
    """The recipe of the CUDA image with the CPU wheels: its last step refuses."""
    recipes = read_recipes()
    mixed = replace(recipes["cuda"], requirements=recipes["cpu"].requirements)
    with pytest.raises(StepFailed, match=r"is built for CUDA none, not for 13\.0"):
        build_image(
            engine,
            "cuda",
            mixed,
            say=lambda text: None,
            wheelhouse=wheelhouse,
            wheel=_wheel(),
        )


PLUGIN = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"
[project]
name = "toolkit-mine"
version = "1.0"
[project.entry-points.toolkit]
mine = "toolkit_mine"
[tool.hatch.build.targets.wheel]
packages = ["toolkit_mine"]
"""


def test_an_image_is_built_with_a_users_plugin(
    engine: Any,
    wheelhouse: Path,
    image: Path,
    tmp_path: Path,
    toolkit: Any,
    toy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the plugin; a host that does not have it is told so before anything runs."""
    package = tmp_path / "mine"
    (package / "toolkit_mine").mkdir(parents=True)
    (package / "pyproject.toml").write_text(PLUGIN)
    (package / "toolkit_mine" / "__init__.py").write_text(
        "from toolkit import hookimpl\n"
        "from toolkit.parts import NoParams, ReportSection\n\n\n"
        "@hookimpl\ndef toolkit_parts():\n"
        "    yield ReportSection(name='mine', help='Mine.', title='Mine', reads=(), "
        "run=lambda inputs: [])\n"
    )
    pinned = build_image(
        engine,
        "cpu",
        read_recipes()["cpu"],
        say=lambda text: None,
        wheelhouse=wheelhouse,
        wheel=_wheel(),
        plugins=[str(package)],
    )
    assert pinned.plugins == (str(package),)
    assert pinned.image != read_lock(image)["cpu"].image
    assert pinned.packages == read_lock(image)["cpu"].packages
    output = engine.containers.run(
        pinned.image, ["toolkit", "plugins"], network_mode="none", remove=True
    )
    assert b"mine" in output
    lock = tmp_path / "images.yaml"
    write_lock("cpu", pinned, lock)
    monkeypatch.setenv("TOOLKIT_IMAGES", str(lock))
    result = toolkit.run("run", toy(), "--on", "docker")
    assert result.returncode == 2
    assert "plugin mine is toolkit-mine 1.0 there and not installed here" in result.stderr
