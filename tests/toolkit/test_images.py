"""Image names, pins and locks: read without an engine."""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import replace
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit._images.archive import LayerWriter, image_archive, split_layers
from toolkit._images.build import _check_against_lock
from toolkit._images.labels import OCI, image_labels, revision_of
from toolkit.containers.images import ID as ID_PATTERN
from toolkit.containers.images import (
    PinnedImage,
    RecipePins,
    containers_folder,
    image_reference,
    read_lock,
    read_recipes,
)
from toolkit.errors import BadInput, StepFailed
from toolkit.version import VERSION

ID = "sha256:" + "a" * 64
PUBLISHED = "registry.example/sae-toolkit/cuda@sha256:" + "b" * 64


@pytest.fixture
def lock(tmp_path: Path) -> Any:
    def write(**images: Any) -> Path:
        path = tmp_path / "images.yaml"
        path.write_text(yaml.safe_dump(images))
        return path

    return write


def pinned(image: str = ID) -> dict[str, Any]:
    return {
        "image": image,
        "toolkit": "0.1.0",
        "requirements": "c" * 64,
        "base": ID,
        "packages": ID,
    }


def test_a_name_means_the_pin_in_the_users_lock(lock: Any) -> None:
    assert image_reference("cuda", lock(cuda=pinned())) == ID


@pytest.mark.parametrize("pin", [ID, PUBLISHED])
def test_a_pin_is_taken_as_it_is(pin: str, lock: Any) -> None:
    assert image_reference(pin, lock()) == pin


def test_an_image_that_nobody_built_names_the_command_that_builds_it(lock: Any) -> None:
    with pytest.raises(BadInput, match=r"not pinned on this machine.*toolkit images build cpu"):
        image_reference("cpu", lock())


@pytest.mark.parametrize("name", ["cpuu", "python:3.11", "latest"])
def test_tags_and_unknown_names_are_refused(name: str, lock: Any) -> None:
    with pytest.raises(BadInput, match=rf"no image '{name}'.*Images: cpu, cuda.*Tags are not"):
        image_reference(name, lock())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- cpu\n", "must be a map of image names, not a list"),
        ("cpu: [1\n", "cannot be read as YAML"),
        ("cpu: 5\n", "cpu: "),
        ("cpu: {image: x}\n", "missing 4 required keyword-only arguments"),
        (yaml.safe_dump({"cpu": pinned("python:3.11")}), "'python:3.11' is not a pin"),
    ],
)
def test_a_damaged_lock_is_refused_with_its_path(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_lock(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_the_shipped_recipes_name_files_that_ship_and_pin_every_requirement() -> None:
    recipes = read_recipes()
    assert sorted(recipes) == ["cpu", "cuda"]
    for recipe in recipes.values():
        assert (containers_folder() / recipe.containerfile).exists()
        lines = (containers_folder() / recipe.requirements).read_text().splitlines()
        names = [line for line in lines if "==" in line]
        hashes = [line for line in lines if "--hash=sha256:" in line]
        assert len(names) == len(hashes) > 40
    assert recipes["cuda"].torch_cuda == "13.0"
    assert recipes["cpu"].torch_cuda is None


def exported(path: Path, **files: str) -> Path:
    """A file system as an engine exports it: here a package and the toolkit's own files."""
    shipped = ["opt/own/a.py", "opt/own-files.txt"]
    written = {"opt/pack/b.py": "b", "opt/own/a.py": "a", **files}
    written["opt/own-files.txt"] = "\n".join(shipped) + "\n"
    with tarfile.open(path, "w") as tar:
        for name in ("opt", "opt/own", "opt/pack", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for number, (name, text) in enumerate(written.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uname = len(text), 1000 + number, "someone"
            tar.addfile(entry, BytesIO(text.encode()))
    return path


def layers_of(folder: Path, **files: str) -> tuple[Path, Path]:
    folder.mkdir()
    below, above = folder / "below.tar", folder / "above.tar"
    split_layers(exported(folder / "x.tar", **files), below, above, "opt/own-files.txt")
    return below, above


def test_the_layer_of_packages_is_the_same_for_every_version_of_the_toolkit(
    tmp_path: Path,
) -> None:
    below, above = layers_of(tmp_path / "one")
    newer = layers_of(tmp_path / "two", **{"opt/own/a.py": "another version"})
    assert newer[0].read_bytes() == below.read_bytes()
    assert newer[1].read_bytes() != above.read_bytes()
    other = layers_of(tmp_path / "three", **{"opt/pack/b.py": "another package"})
    assert other[0].read_bytes() != below.read_bytes()
    with tarfile.open(below) as lower, tarfile.open(above) as upper:
        assert lower.getnames() == ["opt", "opt/pack", "opt/pack/b.py", "tmp"]
        assert upper.getnames() == ["opt", "opt/own", "opt/own-files.txt", "opt/own/a.py"]
        assert {entry.mtime for entry in [*lower, *upper]} == {0}


def built(**fields: str) -> PinnedImage:
    return PinnedImage(**{**pinned(), **fields})


SEEN = RecipePins(seen="2026-01-01, here", base=ID, requirements="c" * 64, packages=ID)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "base and packages have the digests that containers/lock.yaml pins"),
        ({"base": "sha256:" + "e" * 64}, "is not the one that containers/lock.yaml pins"),
        ({"requirements": "d" * 64}, "is newer than the pins"),
    ],
)
def test_a_build_is_compared_with_the_shipped_lock(fields: dict[str, str], message: str) -> None:
    recipe = replace(read_recipes()["cpu"], pins=SEEN)
    lines: list[str] = []
    _check_against_lock("cpu", recipe, built(**fields), lines.append)
    assert len(lines) == 1
    assert message in lines[0]


def test_packages_that_are_not_those_of_the_shipped_lock_are_refused() -> None:
    recipe = replace(read_recipes()["cpu"], pins=SEEN)
    other = built(packages="sha256:" + "e" * 64)
    with pytest.raises(StepFailed, match=r"cpu: base and packages .* pins sha256:a+ .2026-01-01"):
        _check_against_lock("cpu", recipe, other, lambda text: None)


def test_the_shipped_lock_pins_digests_that_were_seen() -> None:
    pins = {name: recipe.pins for name, recipe in read_recipes().items() if recipe.pins}
    assert "cpu" in pins
    for pin in pins.values():
        assert ID_PATTERN.fullmatch(pin.base)
        assert ID_PATTERN.fullmatch(pin.packages)
        assert ID_PATTERN.fullmatch(f"sha256:{pin.requirements}")
        assert pin.seen[:4].isdigit()


def committed(folder: Path) -> str:
    """A Git repository of one file; its commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (folder / "a.py").write_text("1")
    for words in (["init", "-q"], ["add", "a.py"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_the_revision_is_the_commit_of_an_unchanged_checkout(tmp_path: Path) -> None:
    assert revision_of(tmp_path) is None, "no repository"
    commit = committed(tmp_path)
    assert revision_of(tmp_path) == commit
    inside = tmp_path / "inside"
    inside.mkdir()
    assert revision_of(inside) is None, "another repository around it"
    (tmp_path / "a.py").write_text("2")
    assert revision_of(tmp_path) is None, "files that no commit has"


def test_an_image_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    labels = image_labels("cuda", read_recipes()["cuda"], "d" * 64, ["./mine"], "c0ffee")
    oci = {name.removeprefix(f"{OCI}."): text for name, text in labels.items() if OCI in name}
    assert oci.pop("description")
    assert oci == {
        "title": "sae-toolkit cuda",
        "version": VERSION,
        "revision": "c0ffee",
        "licenses": "Apache-2.0",
        "created": "2023-11-14T22:13:20Z",
    }
    assert labels["io.sae-toolkit.torch-cuda"] == "13.0"
    assert labels["io.sae-toolkit.plugins"] == "./mine"
    unknown = image_labels("cpu", read_recipes()["cpu"], "d" * 64, [], None)
    assert f"{OCI}.revision" not in unknown


def test_the_source_is_the_one_that_the_package_names(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Message()
    package["Project-URL"] = "Documentation, https://example.org/docs"
    package["Project-URL"] = "Source, https://example.org/source"
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: package)
    labels = image_labels("cpu", read_recipes()["cpu"], "d" * 64, [], None)
    assert labels[f"{OCI}.source"] == "https://example.org/source"


def test_source_date_epoch_is_when_an_image_was_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(name: str) -> tuple[str, dict[str, Any]]:
        layer = BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            LayerWriter(tar).file("etc/a", b"a")
        layer.seek(0)
        id = image_archive(tmp_path / name, "x:1", [layer], {"Labels": {}}).id
        with tarfile.open(tmp_path / name) as tar:
            config = tar.extractfile(f"{id.removeprefix('sha256:')}.json")
            assert config is not None
            return id, json.loads(config.read())

    id, config = written("old.tar")
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert written("again.tar")[0] == id
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    later, config = written("new.tar")
    assert config["created"] == config["history"][0]["created"] == "2023-11-14T22:13:20Z"
    assert later != id


def test_images_list_contacts_no_engine(
    toolkit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("TOOLKIT_IMAGES", str(tmp_path / "images.yaml"))
    result = toolkit.run("images", "list")
    pins = read_recipes()["cpu"].pins
    assert pins is not None
    assert f"cpu: base {pins.base}" in result.stdout
    assert f"cpu: base with packages {pins.packages} (2026-" in result.stdout
    assert "cuda" in result.stdout


def test_without_an_engine_building_says_where_it_was_looked_for(
    toolkit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    result = toolkit.run("images", "build", "cpu")
    assert result.returncode == 2
    assert f"No container engine answers at unix://{tmp_path}/none.sock." in result.stderr
    assert "`--on local`" in result.stderr
