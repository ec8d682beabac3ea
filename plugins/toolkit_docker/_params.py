"""What `executors: {docker: {...}}` may say."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.executors import GpuChoice, WorkerLimits, gpu_request
from toolkit.parts import Params

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[kmgt]", text):
        raise ValueError("write a size such as 24g or 512m")
    return text


Size = Annotated[str, AfterValidator(_size)]


class Docker(Params):
    """Which image, which GPUs, and the limits of each container."""

    image: str | None = Field(
        None,
        description="A name that `toolkit images` pins (cpu, cuda), or a pin: "
        "repository@sha256:DIGEST or sha256:ID. Default: cuda where GPUs are named, else cpu.",
    )
    gpus: GpuChoice | None = Field(
        None, description="Physical indices or UUIDs, `all`, `none` or `{count: N}`."
    )
    cdi: tuple[str, ...] = Field(
        (), description="CDI device names, such as nvidia.com/gpu=5, passed on as they are."
    )
    workers: int = Field(
        1, ge=1, le=256, description="Containers; where GPUs are named, one for each of them."
    )
    memory: Size | None = Field(None, description="The most memory of a container, such as 24g.")
    shm: Size = Field("2g", description="The size of /dev/shm in a container.")
    pids: int = Field(4096, ge=64, description="The most processes and threads of a container.")
    threads: int | None = Field(
        None, ge=1, description="Compute threads; by default the cores divided among containers."
    )


def gpus(params: Docker) -> str | None:
    """Which GPUs the params ask for, as `--gpu` writes it."""
    return gpu_request(params.gpus)


def bytes_of(size: str | None) -> int | None:
    """The bytes of a size such as 24g."""
    return int(size[:-1]) * UNITS[size[-1]] if size else None


def limits(params: Docker) -> WorkerLimits:
    """What one container may take."""
    return WorkerLimits(memory_bytes=bytes_of(params.memory), shm_bytes=bytes_of(params.shm))
