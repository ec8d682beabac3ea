"""The params of `executors: {docker: {...}}`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.containers.images import ID, PINNED, known_name
from toolkit.executors.interface import WorkerLimits, WorkersHere, gpu_request

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[kmgt]", text):
        raise ValueError("write a size such as 24g or 512m")
    return text


def _memory(text: str) -> str:
    if (bytes_of(text) or 0) < 6 << 20:
        raise ValueError(f"{text} is less than 6m, the least that Docker accepts")
    return text


Size = Annotated[str, AfterValidator(_size)]
Memory = Annotated[Size, AfterValidator(_memory)]


def _image(text: str) -> str:
    is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
    if not (is_name or ID.fullmatch(text) or PINNED.fullmatch(text)):
        raise ValueError(
            "write a name that `toolkit images list` shows, `repository@sha256:DIGEST` or "
            "`sha256:ID`; tags are not accepted: they move"
        )
    return known_name(text) if is_name else text


Image = Annotated[str, AfterValidator(_image)]


class Docker(WorkersHere):
    """The image, the GPUs, and the limits of each container."""

    image: Image | None = Field(
        None,
        description="A name that `toolkit images` pins (cpu, cuda), or a pin: "
        "repository@sha256:DIGEST or sha256:ID. Default: cuda if GPUs are named, else cpu.",
    )
    cdi: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="CDI device names, such as nvidia.com/gpu=5, passed to the engine unchanged.",
    )
    memory: Memory | None = Field(
        None, description="The memory limit of a container, such as 24g. Default: no limit."
    )
    shm: Size = Field("2g", description="The size of /dev/shm in a container.")
    pids: int = Field(4096, ge=64, description="The limit on processes and threads of a container.")


def gpus(params: Docker) -> str | None:
    """The GPUs that the params request, written as for `--gpu`."""
    return gpu_request(params.gpus)


def bytes_of(size: str | None) -> int | None:
    """The number of bytes in a size such as 24g."""
    return int(size[:-1]) * UNITS[size[-1]] if size else None


def limits(params: Docker) -> WorkerLimits:
    """The limits of one container."""
    return WorkerLimits(memory_bytes=bytes_of(params.memory), shm_bytes=bytes_of(params.shm))
