"""Image names, pins and locks: read without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.errors import BadInput
from toolkit.images import image_reference, read_lock, read_recipes

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
    return {"image": image, "toolkit": "0.1.0", "requirements": "c" * 64, "base": "rootfs"}


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
        ("- cpu\n", "must be a map of image names; it is a list"),
        ("cpu: [1\n", "cannot be read as YAML"),
        ("cpu: 5\n", "cpu: "),
        ("cpu: {image: x}\n", "missing 3 required keyword-only arguments"),
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
    from toolkit.images import containers_folder

    for recipe in recipes.values():
        assert (containers_folder() / recipe.containerfile).exists()
        lines = (containers_folder() / recipe.requirements).read_text().splitlines()
        names = [line for line in lines if "==" in line]
        hashes = [line for line in lines if "--hash=sha256:" in line]
        assert len(names) == len(hashes) > 40
    assert recipes["cuda"].torch_cuda == "13.0"
    assert recipes["cpu"].torch_cuda is None


def test_images_list_contacts_no_engine(
    toolkit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("TOOLKIT_IMAGES", str(tmp_path / "images.yaml"))
    result = toolkit.run("images", "list")
    assert "cpu" in result.stdout
    assert "cuda" in result.stdout


def test_without_an_engine_building_says_where_it_was_looked_for(
    toolkit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    result = toolkit.run("images", "build", "cpu")
    assert result.returncode == 2
    assert f"No container engine answers at unix://{tmp_path}/none.sock." in result.stderr
    assert "`--on local`" in result.stderr
