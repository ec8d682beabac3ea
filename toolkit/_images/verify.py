"""Check that pinned images exist and match their pins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit._images.labels import LABEL
from toolkit._images.wheelhouse import file_sha256
from toolkit.containers.images import PinnedImage, containers_folder, read_recipes
from toolkit.version import VERSION

if TYPE_CHECKING:
    from docker import DockerClient


def problems_of(client: DockerClient, name: str, pinned: PinnedImage) -> list[str]:
    """The problems of a pinned image, as sentences; empty if there are none."""
    from docker.errors import ImageNotFound

    rebuild = f"Build it again: `toolkit images build {name}`."
    try:
        image = client.images.get(pinned.image)
    except ImageNotFound:
        return [f"{pinned.image} is not on this engine. {rebuild}"]
    problems = []
    if pinned.toolkit != VERSION:
        problems.append(f"it holds toolkit {pinned.toolkit}, this is {VERSION}. {rebuild}")
    if image.attrs["RootFS"]["Layers"][0] != pinned.packages:
        problems.append(f"its lower layer is not {pinned.packages}. {rebuild}")
    recipe = read_recipes().get(name)
    if recipe is not None:
        requirements = file_sha256(containers_folder() / recipe.requirements)
        if image.labels.get(f"{LABEL}.requirements") != requirements:
            problems.append(f"{recipe.requirements} has changed since it was built. {rebuild}")
        cuda = image.labels.get(f"{LABEL}.torch-cuda")
        if cuda != (recipe.torch_cuda or "none"):
            problems.append(f"its torch is for CUDA {cuda}, not {recipe.torch_cuda}. {rebuild}")
    user = str(image.attrs["Config"].get("User") or "0")
    if user.split(":")[0] in ("0", "root"):
        problems.append(f"it runs as root. {rebuild}")
    return problems
