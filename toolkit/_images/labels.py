"""The labels of an image, under the names that the Open Container Initiative gives them."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Sequence
from pathlib import Path

from toolkit._images.archive import creation_time
from toolkit.containers.images import Recipe
from toolkit.version import VERSION

LABEL = "io.sae-toolkit"
OCI = "org.opencontainers.image"
SOURCE_URLS = ("source", "source code", "repository")
"""Labels of project URLs that lead to the source."""


def image_labels(
    name: str, recipe: Recipe, requirements: str, plugins: Sequence[str], revision: str | None
) -> dict[str, str]:
    """The labels of one image. What is not known has no label."""
    known = {f"{OCI}.revision": revision, f"{OCI}.source": _source()}
    return {
        f"{OCI}.title": f"sae-toolkit {name}",
        f"{OCI}.version": VERSION,
        f"{OCI}.created": creation_time(),
        f"{OCI}.licenses": "Apache-2.0",
        f"{OCI}.description": "Stages of sae-toolkit experiments",
        **{label: value for label, value in known.items() if value},
        f"{LABEL}.requirements": requirements,
        f"{LABEL}.torch-cuda": recipe.torch_cuda or "none",
        f"{LABEL}.plugins": " ".join(plugins),
    }


def revision_of(checkout: Path) -> str | None:
    """The commit of a checkout; None where there is no Git, where files differ from the commit, or
    where the folder only lies inside another repository.
    """
    inside, changes = _git(checkout, "rev-parse", "--show-prefix"), _git(checkout, "status", "-s")
    return _git(checkout, "rev-parse", "HEAD") if inside == changes == "" else None


def _git(checkout: Path, *words: str) -> str | None:
    command = ["git", "-C", str(checkout), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _source() -> str | None:
    """The URL of the toolkit's source, if the package's metadata has one."""
    try:
        urls = importlib.metadata.metadata("sae-toolkit").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    pairs = (url.partition(",") for url in urls)
    return next(
        (url.strip() for label, _, url in pairs if label.strip().lower() in SOURCE_URLS), None
    )
