"""Starts `python -m toolkit.worker`, with its GPUs chosen by CUDA_VISIBLE_DEVICES.

Compute threads sleep while they wait (OMP_WAIT_POLICY) and do not spin: next to another busy
process, spinning threads take the core from the thread that they wait for. Measured for 64 games on
two cores, with one other busy process: 42 s with spinning, 3.1 s without.
"""

from __future__ import annotations

import os
import shlex
import sys

from toolkit.executors.gpus import VISIBLE
from toolkit.executors.interface import Worker, WorkerRequest, WorkersHere
from toolkit.executors.processes import PipedWorker

COMMAND = (sys.executable, "-m", "toolkit.worker")


class Local(WorkersHere):
    """The number of workers on this machine, and their GPUs."""


def start(params: Local, request: WorkerRequest) -> Worker:
    """Start one process. It inherits this environment; CUDA_VISIBLE_DEVICES is set only if its GPUs
    are chosen for it.
    """
    threads = str(params.threads_of_each())
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "OMP_NUM_THREADS": threads}
    if request.gpus is not None:
        env[VISIBLE] = _uuids(request)
    return PipedWorker(request.name, COMMAND, request.folder / f"{request.name}.log", env)


def command(params: Local, request: WorkerRequest) -> str:
    """The command line that starts such a worker."""
    prefix = "" if request.gpus is None else f"{VISIBLE}={shlex.quote(_uuids(request))} "
    return prefix + shlex.join(COMMAND)


def _uuids(request: WorkerRequest) -> str:
    return ",".join(gpu.uuid for gpu in request.gpus or ())
