"""The container checks of `toolkit doctor`: the engine, its GPU support, disk space and pins."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit._images.verify import problems_of
from toolkit.containers.apptainer import PROGRAMS, installed_program
from toolkit.containers.engines import connect, explained, is_podman, socket_name
from toolkit.containers.images import read_lock
from toolkit.errors import BadInput

if TYPE_CHECKING:
    from docker import DockerClient

BUILD_GIB = {"cpu": 12, "cuda": 30}
"""The disk space that building an image takes for a while, as measured: wheels, the builder's
layers, and the file system three times.
"""


@dataclass(frozen=True)
class ContainerFact:
    """One fact about containers; `cure` says how to fix a problem."""

    subject: str
    text: str
    cure: str = ""


def examine_containers() -> Iterator[ContainerFact]:
    """Facts about the engine. A missing engine is not a problem: stages run without one."""
    try:
        with closing(connect(timeout=20)) as client, explained():
            yield from _engine(client)
            yield from _pins(client)
    except BadInput as error:
        reason = str(error)
        yield ContainerFact("container engine", reason[0].lower() + reason[1:])
    yield ContainerFact(PROGRAMS[0], installed_program() or "not on the PATH")


def _engine(client: DockerClient) -> Iterator[ContainerFact]:
    info: dict[str, Any] = client.info()
    name = "Podman" if is_podman(client) else "Docker"
    version = f"{name} {info.get('ServerVersion', '?')} at {socket_name()}"
    yield ContainerFact("container engine", version)
    runtimes = sorted(info.get("Runtimes") or ())
    yield ContainerFact("container runtimes", ", ".join(runtimes) or "unknown")
    folders = info.get("CDISpecDirs")
    yield ContainerFact("CDI", ", ".join(folders) if folders else "off")
    root = str(info.get("DockerRootDir") or "")
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        yield ContainerFact("room for images", f"{root} cannot be read from here")
        return
    cure = (
        ""
        if free >= min(BUILD_GIB.values()) << 30
        else "Make room: `docker system df` shows what uses the space."
    )
    takes = ", ".join(f"{name} {count}" for name, count in BUILD_GIB.items())
    text = f"{free / 2**30:.1f} GiB free in {root} (building takes, in GiB: {takes})"
    yield ContainerFact("room for images", text, cure)


def _pins(client: DockerClient) -> Iterator[ContainerFact]:
    for name, pinned in read_lock().items():
        if pinned.image.startswith("sha256:"):
            problems = problems_of(client, name, pinned)
            text = "as pinned" if not problems else problems[0]
            cure = f"toolkit images build {name}" if problems else ""
            yield ContainerFact(f"image {name}", text, cure)
