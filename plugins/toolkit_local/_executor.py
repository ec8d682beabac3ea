"""Starts `python -m toolkit.worker`, with its GPUs chosen by CUDA_VISIBLE_DEVICES.

Compute threads wait asleep (OMP_WAIT_POLICY), not spinning: beside any other busy process, spinning
threads take the core from the one that they wait for. Measured with one other busy process on two
cores: 42 s against 3.1 s for the same 64 games.
"""

from __future__ import annotations

import os
import shlex
import sys

from pydantic import Field

from toolkit.executors import GpuChoice, Worker, WorkerRequest
from toolkit.gpus import VISIBLE
from toolkit.parts import Params
from toolkit.processes import PipedWorker

COMMAND = (sys.executable, "-m", "toolkit.worker")


class Local(Params):
    """How many workers on this machine, and on which GPUs."""

    workers: int = Field(
        1, ge=1, le=256, description="Processes; where GPUs are named, one for each of them."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Compute threads of each process; by default the cores divided among them.",
    )
    gpus: GpuChoice | None = Field(
        None, description="Physical indices or UUIDs, `all`, `none` or `{count: N}`."
    )


def start(params: Local, request: WorkerRequest) -> Worker:
    """Start one process. It inherits this environment, and CUDA_VISIBLE_DEVICES if it may choose
    among the GPUs itself.
    """
    threads = str(params.threads or max(1, (os.cpu_count() or 1) // params.workers))
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "OMP_NUM_THREADS": threads}
    if request.gpus is not None:
        env[VISIBLE] = _uuids(request)
    return PipedWorker(request.name, COMMAND, request.folder / f"{request.name}.log", env)


def command(params: Local, request: WorkerRequest) -> str:
    """The command line that starts such a worker."""
    chosen = "" if request.gpus is None else f"{VISIBLE}={shlex.quote(_uuids(request))} "
    return chosen + shlex.join(COMMAND)


def _uuids(request: WorkerRequest) -> str:
    return ",".join(gpu.uuid for gpu in request.gpus or ())
