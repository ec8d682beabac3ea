"""Starts `python -m toolkit.worker`, pinned to its device by CUDA_VISIBLE_DEVICES.

Compute threads wait asleep (OMP_WAIT_POLICY), not spinning: beside any other busy process, spinning
threads take the core from the one that they wait for. Measured with one other busy process on two
cores: 42 s against 3.1 s for the same 64 games.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from toolkit.parts import Params
from toolkit.processes import PipedWorker
from toolkit.work import Worker


class Local(Params):
    """How many workers on this machine."""

    workers: int = Field(
        1, ge=1, le=256, description="Processes; with --gpu, one for each GPU named."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Compute threads of each process; by default the cores divided among them.",
    )


def start(params: Local, devices: Sequence[Mapping[str, Any]], folder: Path) -> list[Worker]:
    """One process for each entry of `devices`; `cuda` None leaves CUDA_VISIBLE_DEVICES as it is."""
    return [_one(params, device, folder) for device in devices]


def _one(params: Local, device: Mapping[str, Any], folder: Path) -> PipedWorker:
    threads = str(params.threads or max(1, (os.cpu_count() or 1) // params.workers))
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "OMP_NUM_THREADS": threads}
    if device["cuda"] is not None:
        env["CUDA_VISIBLE_DEVICES"] = device["cuda"]
    name = str(device["worker"])
    return PipedWorker(
        name, [sys.executable, "-m", "toolkit.worker"], folder / f"{name}.log", env, device
    )
