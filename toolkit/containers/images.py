"""Image names and the digests that they are pinned to: how `executors: {docker: {image: cuda}}` is
resolved.

Two files decide it. `containers/lock.yaml`, shipped with the toolkit, says what each image is built
from and pins its base and its packages by digest; it may pin published images as
`repository@sha256:...`. It cannot pin a whole image, which holds the toolkit and so this file. The
user's lock, written by `toolkit images build`, pins the images built on this machine by their ID.
Reading them contacts no container engine and no registry.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import BadInput, choices, nearest

LOCK_VARIABLE = "TOOLKIT_IMAGES"
"""The environment variable that names the user's lock file."""

ID = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class RecipePins:
    """The digests of a recipe's build."""

    seen: str
    """When and where it was built."""
    base: str
    """The ID of the base image that was built from the interpreter."""
    requirements: str
    """SHA-256 of the requirements file."""
    packages: str
    """The digest of the layer with the base and all packages, below the toolkit itself."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an image is built from."""

    containerfile: str
    """The Containerfile, in the folder `containers`."""
    requirements: str
    """The requirements with their hashes, in the same folder."""
    base: str
    """`rootfs`: built here from the running interpreter; else `repository@sha256:...`."""
    torch_cuda: str | None = None
    """The CUDA version that torch must be built for; None means that it must be a CPU build."""
    published: str | None = None
    """A published image, `repository@sha256:...`, for users who do not build their own."""
    pins: RecipePins | None = None
    """The digests of its last build; None if it was never built."""


@dataclass(frozen=True, kw_only=True)
class PinnedImage:
    """One image of the user's lock: an ID or a digest, and what it was built from."""

    image: str
    """`sha256:...` (an ID on this machine's engine) or `repository@sha256:...`."""
    toolkit: str
    """The version of the toolkit in it."""
    requirements: str
    """SHA-256 of the requirements file it was built with."""
    base: str
    """The base image that it was built on."""
    packages: str
    """The digest of its lower layer: the base and all packages."""
    plugins: tuple[str, ...] = ()
    """The plugins that `--with` added."""
    sif: str | None = None
    """The Apptainer image that was exported from it, if one was."""


def containers_folder() -> Path:
    """The folder with the Containerfiles: of the checkout, else of the installed package."""
    checkout = Path(__file__).parents[2] / "containers"
    if (checkout / "lock.yaml").exists():
        return checkout
    with as_file(files("toolkit") / "_images" / "containers") as folder:
        return folder


def read_recipes(folder: Path | None = None) -> dict[str, Recipe]:
    """The images that can be built, by name."""
    path = (folder or containers_folder()) / "lock.yaml"
    return {name: _recipe(path, name, entry) for name, entry in _load(path).items()}


def user_lock() -> Path:
    """The user's lock file: `$TOOLKIT_IMAGES`, else in the configuration folder of the user."""
    if named := os.environ.get(LOCK_VARIABLE):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "toolkit" / "images.yaml"


def read_lock(path: Path | None = None) -> dict[str, PinnedImage]:
    """The user's pinned images, by name; empty without a lock file."""
    path = path or user_lock()
    return {name: _pinned(path, name, entry) for name, entry in _load(path).items()}


def known_name(name: str) -> str:
    """The name, if a recipe or the user's lock has it: for the validators of params."""
    known = {*read_lock(), *read_recipes()}
    if name not in known:
        message = f"there is no image '{name}'. Images: {choices(known)}.{nearest(name, known)}"
        raise ValueError(message)
    return name


def image_reference(name: str, path: Path | None = None) -> str:
    """The image reference for an engine: the pin of `name`, or `name` itself if it is a pin."""
    if ID.fullmatch(name) or PINNED.fullmatch(name):
        return name
    locked, recipes = read_lock(path), read_recipes()
    if name in locked:
        return locked[name].image
    if name in recipes and (published := recipes[name].published):
        return published
    if name in recipes:
        raise BadInput(
            f"image '{name}' is not pinned on this machine: {path or user_lock()} does not name "
            f"it. Build it with `toolkit images build {name}`, or write a pin instead, "
            "`repository@sha256:DIGEST`."
        )
    known = sorted({*locked, *recipes})
    raise BadInput(
        f"there is no image '{name}'.{nearest(name, known)} Images: {choices(known)}; or write a "
        "pin, `repository@sha256:DIGEST` or `sha256:ID`. Tags are not accepted: they move."
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content or {}, dict):
        raise BadInput(f"{path}: must be a map of image names, not a {type(content).__name__}.")
    return dict(content or {})


def _recipe(path: Path, name: str, entry: Any) -> Recipe:
    try:
        pins = entry.get("pins")
        return Recipe(**{**entry, "pins": RecipePins(**pins) if pins else None})
    except (AttributeError, TypeError) as error:
        raise BadInput(f"{path}: {name}: {error}") from None


def _pinned(path: Path, name: str, entry: Any) -> PinnedImage:
    try:
        image = PinnedImage(**{**entry, "plugins": tuple(entry.get("plugins", ()))})
    except (AttributeError, TypeError) as error:
        raise BadInput(f"{path}: {name}: {error}") from None
    if not (ID.fullmatch(image.image) or PINNED.fullmatch(image.image)):
        raise BadInput(
            f"{path}: {name}.image: '{image.image}' is not a pin. Write `sha256:ID` of an image "
            "on this machine, or `repository@sha256:DIGEST`."
        )
    return image
