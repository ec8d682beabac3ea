"""`toolkit images`: build the images that stages run in, pin them, check and export them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit.containers.images import PinnedImage, Recipe

_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)
Value = TypeVar("Value")


@click.group("images")
def command() -> None:
    """Build, list, verify and export the container images that stages run in."""


@command.command("build")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--base", metavar="REPOSITORY@sha256:DIGEST", help="A pinned base image.")
@click.option(
    "--wheelhouse", type=_FOLDER, help="A folder of wheels, to which missing ones are downloaded."
)
@click.option(
    "--wheel", type=_EXISTING, help="The wheel of the toolkit. Default: built from the checkout."
)
@click.option(
    "--with",
    "plugins",
    multiple=True,
    metavar="PKG",
    help="A plugin to install in the image: a folder, a wheel or a package name.",
)
def build(
    names: tuple[str, ...],
    base: str | None,
    wheelhouse: Path | None,
    wheel: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """Build images (default: cpu) and pin them, by ID, in the user's lock file."""
    from toolkit._images.build import build_image, write_lock
    from toolkit.containers.engines import connect, explained
    from toolkit.containers.images import PINNED, read_recipes
    from toolkit.errors import BadInput

    if base is not None and not (base == "rootfs" or PINNED.fullmatch(base)):
        raise BadInput(f"--base: '{base}' is not a pin. Write REPOSITORY@sha256:DIGEST.")
    recipes = read_recipes()
    recipe_of = {name: _named(recipes, name) for name in names or ("cpu",)}
    with closing(connect()) as client, explained(), _terminable():
        for name, recipe in recipe_of.items():
            image = build_image(
                client,
                name,
                recipe,
                say=lambda text: echo(text, err=True),
                base=base,
                wheelhouse=wheelhouse,
                wheel=wheel,
                plugins=plugins,
            )
            path = write_lock(name, image)
            echo(f"{name}  {image.image}  pinned in {path}")


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it removes its temporary files."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_images(as_json: bool) -> None:
    """Show what can be built and what is pinned. Contacts no engine."""
    from toolkit._cli._text import columns
    from toolkit.containers.images import read_lock, read_recipes, user_lock

    recipes, locked = read_recipes(), read_lock()
    rows: list[dict[str, Any]] = [
        {
            "image": name,
            "pinned": locked[name].image if name in locked else None,
            "toolkit": locked[name].toolkit if name in locked else None,
            "base": (locked[name].base if name in locked else recipes[name].base),
            "packages": locked[name].packages if name in locked else None,
            "recipe_pins": _recipe_pins(recipes.get(name)),
            "plugins": list(locked[name].plugins) if name in locked else [],
        }
        for name in sorted({*recipes, *locked})
    ]
    if as_json:
        echo(json.dumps(rows, indent=1))
        return
    heads = ("IMAGE", "PINNED AS", "TOOLKIT", "PLUGINS")
    body = [
        (row["image"], row["pinned"] or "-", row["toolkit"] or "-", " ".join(row["plugins"]) or "-")
        for row in rows
    ]
    echo(columns(heads, body))
    echo(f"Pins: {user_lock()}")
    for row in rows:
        if pins := row["recipe_pins"]:
            echo(f"{row['image']}: base {pins['base']}")
            echo(f"{row['image']}: base with packages {pins['packages']} ({pins['seen']})")


def _recipe_pins(recipe: Recipe | None) -> dict[str, str] | None:
    """The digests that `containers/lock.yaml` has for a recipe."""
    return asdict(recipe.pins) if recipe is not None and recipe.pins is not None else None


@command.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Check that pinned images are on the engine and are what their pins say."""
    from toolkit._images.verify import problems_of
    from toolkit.containers.engines import connect, explained
    from toolkit.containers.images import read_lock, user_lock
    from toolkit.errors import BadInput

    locked = read_lock()
    if not locked:
        raise BadInput(f"{user_lock()} pins no image. Build one: `toolkit images build cpu`.")
    chosen = {name: _built(locked, name) for name in names or sorted(locked)}
    with closing(connect()) as client, explained():
        bad = {name: problems_of(client, name, image) for name, image in chosen.items()}
    for name, image in chosen.items():
        echo(f"{name}  {image.image}  {'as pinned' if not bad[name] else 'NOT as pinned'}")
    problems = [
        f"{name}: {problem}" for name, found_problems in bad.items() for problem in found_problems
    ]
    if problems:
        raise BadInput("\n".join(problems))


@command.command("export")
@click.argument("name")
@click.argument("path", type=_FILE)
def export(name: str, path: Path) -> None:
    """Write an image to PATH: `.tar` for `docker load`, `.sif` for Apptainer."""
    from toolkit._images.export import export_image
    from toolkit.containers.images import read_lock

    pinned = _built(read_lock(), name)
    echo(f"writing {path}: an image has gigabytes, so this takes minutes", err=True)
    with _terminable():
        export_image(name, pinned, path)
    echo(str(path))


def _built(locked: Mapping[str, PinnedImage], name: str) -> PinnedImage:
    """The pin of an image; says how to build one that can be built and is not."""
    from toolkit.containers.images import read_recipes, user_lock
    from toolkit.errors import BadInput

    recipes = read_recipes()
    if name in recipes and name not in locked:
        raise BadInput(
            f"image '{name}' has not been built: {user_lock()} does not pin it. Build it with "
            f"`toolkit images build {name}`."
        )
    if name not in locked:
        raise _unknown(name, {*recipes, *locked})
    return locked[name]


def _named(known: Mapping[str, Value], name: str) -> Value:
    if name not in known:
        raise _unknown(name, known)
    return known[name]


def _unknown(name: str, known: Iterable[str]) -> Exception:
    from toolkit.errors import BadInput, choices, nearest

    known = list(known)
    return BadInput(f"There is no image '{name}'.{nearest(name, known)} Images: {choices(known)}.")
