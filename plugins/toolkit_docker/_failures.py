"""Turns a refusal of the engine into one sentence that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import BadInput, ToolkitError
from toolkit.executors.interface import WorkerEnd, WorkerRequest

if TYPE_CHECKING:
    from docker.errors import APIError

NO_CDI = ('could not select device driver "cdi"', "CDI device injection failed")
NO_DRIVER = ("could not select device driver",)
NO_DEVICE = ("unknown device", "no such device", "device id")


def create_failure(error: APIError, image: str) -> ToolkitError:
    """Why a container could not be created."""
    from docker.errors import ImageNotFound, NotFound

    reason = str(error.explanation or error)
    if isinstance(error, ImageNotFound | NotFound) or "No such image" in reason:
        if "@" in image:
            return BadInput(
                f"image {image} is not on this engine, and nothing is pulled silently. Get it "
                f"with `docker pull {image}`."
            )
        return BadInput(
            f"image {image} is not on this engine: it was removed, or this is another engine. "
            "Build it again: `toolkit images build`, or load it: `docker load -i FILE.tar`."
        )
    if "bind source path does not exist" in reason:
        return BadInput(f"the engine cannot see a folder of this run: {reason}. Is it remote?")
    if "runtime" in reason and ("nvidia" in reason or "unknown" in reason.lower()):
        return BadInput(_no_runtime(reason))
    return BadInput(f"the engine refused to create the container: {reason}")


def start_failure(error: APIError, request: WorkerRequest) -> ToolkitError:
    """Why a container could not be started."""
    reason = str(error.explanation or error)
    gpus = ", ".join(gpu.describe() for gpu in request.gpus or ())
    if any(text in reason for text in NO_CDI):
        return BadInput(
            f"the engine knows no such CDI device ({reason}). `docker info` names the folders of "
            "CDI specifications; `nvidia-ctk cdi generate` writes one. Docker reads them from "
            "version 25 on, with `features: {cdi: true}` in its daemon.json. Or name the GPU by "
            f"`gpus` under executors.{request.executor}."
        )
    if any(text in reason for text in NO_DRIVER):
        return BadInput(_no_runtime(reason))
    if any(text in reason.lower() for text in NO_DEVICE):
        return BadInput(
            f"the engine has no such GPU: {gpus or reason}. `nvidia-smi -L` lists them."
        )
    if "no space left on device" in reason:
        return BadInput(
            f"the engine's disk is full: {reason}. `docker system df` shows what uses the space."
        )
    return BadInput(f"the engine refused to start the container: {reason}")


def _no_runtime(reason: str) -> str:
    return (
        f"the engine cannot give a container a GPU ({reason}). Install the NVIDIA "
        "Container Toolkit and restart the engine, or run with `--gpu none`."
    )


def ending(status: int, *, out_of_memory: bool, limit: int, executor: str) -> WorkerEnd:
    """How a container of an executor ended."""
    if out_of_memory:
        size = f"{limit / 2**30:.3g} GiB" if limit else "the machine's memory"
        text = f"out of memory: it took more than {size}; raise `memory` under executors.{executor}"
        return WorkerEnd(text, out_of_memory=True)
    if status == 135:
        text = f"bus error: /dev/shm may be too small; raise `shm` under executors.{executor}"
        return WorkerEnd(text)
    if status > 128:
        return WorkerEnd(f"killed by signal {status - 128}")
    return WorkerEnd(f"exit status {status}")
