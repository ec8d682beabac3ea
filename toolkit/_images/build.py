"""Builds an image with the engine's builder from a folder of wheels, without a package index, and
makes it reproducible.

The engine's builder stamps layers with the time of the build. The file system that it made is
therefore exported, rewritten with fixed times, and loaded: two builds from the same inputs have the
same ID. There are two layers: the base with all packages, whose digest `containers/lock.yaml`
pins, and above it the toolkit itself with the plugins that were added.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from toolkit._images.archive import Archived, image_archive, source_date_epoch, split_layers
from toolkit._images.base import UID, write_base
from toolkit._images.labels import LABEL, image_labels, revision_of
from toolkit._images.wheelhouse import (
    CHECKOUT,
    check_plugins,
    file_sha256,
    fill_wheelhouse,
    plugin_wheels,
    toolkit_wheel,
)
from toolkit.containers.images import PinnedImage, Recipe, containers_folder, read_lock, user_lock
from toolkit.errors import BadInput, StepFailed
from toolkit.version import VERSION

if TYPE_CHECKING:
    from docker import DockerClient

BUILD_STAGE = f"{LABEL}.stage=build"
"""A label of the stage in which a Containerfile installs: it is larger than the image itself."""
TOOLKIT_FILES = "opt/toolkit/own-files.txt"
"""A file in which the last build step lists the files of the toolkit and of added plugins."""
Say = Callable[[str], None]


def build_image(
    client: DockerClient,
    name: str,
    recipe: Recipe,
    *,
    say: Say,
    base: str | None = None,
    wheelhouse: Path | None = None,
    wheel: Path | None = None,
    plugins: Sequence[str] = (),
) -> PinnedImage:
    """Build one image, load it into the engine and return its pin."""
    source_date_epoch()
    check_plugins(plugins)
    with tempfile.TemporaryDirectory(prefix="toolkit-image-") as scratch:
        folder = Path(scratch)
        base_image = _base(client, base or recipe.base, folder, say)
        revision = revision_of(CHECKOUT) if wheel is None else None
        context = _context(recipe, folder, say, wheelhouse, wheel, plugins)
        say(f"building {name}")
        built = _build(client, recipe, context, base_image)
        say(f"writing {name} with fixed times")
        requirements = file_sha256(context / "requirements.txt")
        config = _config(image_labels(name, recipe, requirements, plugins, revision))
        image = _reproducible(client, built, f"sae-toolkit/{name}:{VERSION}", config, folder)
    pinned = PinnedImage(
        image=image.id,
        toolkit=VERSION,
        requirements=requirements,
        base=base_image,
        packages=image.layers[0],
        plugins=tuple(plugins),
    )
    _check_against_lock(name, recipe, pinned, say)
    return pinned


def _check_against_lock(name: str, recipe: Recipe, image: PinnedImage, say: Say) -> None:
    """Refuse packages that differ from those of `containers/lock.yaml`, if comparable."""
    pins = recipe.pins
    if pins is None:
        return
    if image.base != pins.base:
        say(
            f"the base {image.base} is not the one that containers/lock.yaml pins ({pins.seen}): "
            "its Python or libraries differ. The packages are not compared."
        )
    elif image.requirements != pins.requirements:
        say(
            f"{recipe.requirements} is newer than the pins in containers/lock.yaml: packages are "
            f"not compared. To pin them, set in that file: requirements {image.requirements}, "
            f"packages {image.packages}."
        )
    elif image.packages != pins.packages:
        raise StepFailed(
            f"{name}: base and packages have the digest {image.packages}; containers/lock.yaml "
            f"pins {pins.packages} ({pins.seen}). The same wheels gave different files: the "
            "Containerfile, finish.py or the engine's builder has changed. If that is intended, "
            f"write the new digest to containers/lock.yaml at {name}.pins.packages."
        )
    else:
        say("base and packages have the digests that containers/lock.yaml pins")


def write_lock(name: str, image: PinnedImage, path: Path | None = None) -> Path:
    """Pin an image in the user's lock."""
    from toolkit._run.atomic import write_text

    path = path or user_lock()
    images = {**read_lock(path), name: image}
    rows = {key: _without_empty(asdict(pinned)) for key, pinned in sorted(images.items())}
    write_text(path, yaml.safe_dump(rows, sort_keys=True))
    return path


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
    return {key: value for key, value in lists.items() if value not in (None, [])}


def _base(client: DockerClient, base: str, folder: Path, say: Say) -> str:
    """The base image's reference for FROM: a pin, or the ID of a base image built here."""
    if base != "rootfs":
        return base
    say("making the base image from this machine's Python")
    archive = folder / "base.tar"
    id = write_base(archive, "sae-toolkit/base:local")
    _load(client, archive, id)
    return id


def _context(
    recipe: Recipe,
    folder: Path,
    say: Say,
    wheelhouse: Path | None,
    wheel: Path | None,
    plugins: Sequence[str],
) -> Path:
    """Make the folder that the builder sees: only wheels, requirements and the last step."""
    source, context = containers_folder(), folder / "context"
    requirements = source / recipe.requirements
    context.mkdir()
    wheels = wheelhouse or folder / "wheels"
    say(f"collecting the wheels of {recipe.requirements}")
    fill_wheelhouse(wheels, requirements)
    shutil.copytree(wheels, context / "wheelhouse", copy_function=_link_or_copy)
    installer = next((context / "wheelhouse").glob("pip-*.whl"))
    installer.rename(context / "wheelhouse" / "pip.whl")
    wheel_folder = context / "own"
    wheel_folder.mkdir()
    if wheel is not None:
        shutil.copy(wheel, wheel_folder)
    else:
        toolkit_wheel(wheel_folder)
    plugin_wheels(wheel_folder, plugins)
    shutil.copy(requirements, context / "requirements.txt")
    shutil.copy(source / recipe.containerfile, context / "Containerfile")
    shutil.copy(source / "finish.py", context)
    (context / "expected_cuda").write_text(recipe.torch_cuda or "none")
    return context


def _link_or_copy(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy(source, target)


def _build(client: DockerClient, recipe: Recipe, context: Path, base: str) -> str:
    """Run the engine's builder without a network and without its cache: cached layers would make
    two builds equal even if they are not reproducible. Returns the image's ID.
    """
    from docker.errors import APIError, BuildError

    try:
        image, _ = client.images.build(
            path=str(context),
            dockerfile="Containerfile",
            buildargs={"BASE": base},
            network_mode="none",
            nocache=True,
            rm=True,
            forcerm=True,
            pull=False,
        )
    except BuildError as error:
        lines = [str(entry.get("stream") or entry.get("error") or "") for entry in error.build_log]
        tail = "".join(lines).strip().splitlines()[-8:]
        raise StepFailed(
            f"{recipe.containerfile}: the build failed: {error.msg}\n" + "\n".join(tail)
        ) from None
    except APIError as error:
        raise BadInput(f"{recipe.containerfile}: the engine refused: {error.explanation}") from None
    finally:
        client.images.prune(filters={"dangling": True, "label": BUILD_STAGE})
    return str(image.id)


def _config(labels: dict[str, str]) -> dict[str, Any]:
    """The image's configuration: its user, its command and its labels."""
    return {
        "User": f"{UID}:{UID}",
        "WorkingDir": "/tmp",
        "Env": [
            "PATH=/opt/toolkit/bin:/usr/bin:/bin",
            "LANG=C.UTF-8",
            "PYTHONDONTWRITEBYTECODE=1",
            "HF_HUB_DISABLE_TELEMETRY=1",
        ],
        "Cmd": ["toolkit", "--help"],
        "Labels": labels,
    }


def _reproducible(
    client: DockerClient, built: str, tag: str, config: dict[str, Any], folder: Path
) -> Archived:
    """Load the built file system with fixed times, in two layers."""
    exported, below, above = (folder / f"{name}.tar" for name in ("exported", "below", "above"))
    with _container(client, built) as container, exported.open("wb") as file:
        for piece in container.export():
            file.write(piece)
    split_layers(exported, below, above, TOOLKIT_FILES)
    exported.unlink()
    archive = folder / "image.tar"
    with below.open("rb") as lower, above.open("rb") as upper:
        image = image_archive(archive, tag, [lower, upper], config)
    below.unlink()
    above.unlink()
    _load(client, archive, image.id)
    client.images.remove(built, force=True)
    return image


@contextmanager
def _container(client: DockerClient, image: str) -> Iterator[Any]:
    container = client.containers.create(image, ["true"], network_mode="none")
    try:
        yield container
    finally:
        container.remove(force=True)


def _load(client: DockerClient, archive: Path, id: str) -> None:
    """Load an archive, and check that the engine has the image under the ID that pins it."""
    from docker.errors import ImageNotFound

    with archive.open("rb") as file:
        client.images.load(file)
    archive.unlink()
    try:
        client.images.get(id)
    except ImageNotFound:
        raise BadInput(
            f"The engine loaded an image under another ID than {id}, the digest of its "
            "configuration. An engine with containerd's image store does that: images cannot be "
            'pinned by ID there. Switch it off: `"features": {"containerd-snapshotter": false}` '
            "in the engine's daemon.json, then restart the engine."
        ) from None
