"""Containers of runs that are dead: found by their labels and removed."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import psutil

from toolkit.executors import WorkerRequest

if TYPE_CHECKING:
    from docker import DockerClient

WORKER = "io.sae-toolkit.worker"
HOST = "io.sae-toolkit.host"
PROCESS = "io.sae-toolkit.process"
STARTED = "io.sae-toolkit.process-started"


def labels_of(request: WorkerRequest) -> dict[str, str]:
    """Which process on which machine a container belongs to."""
    return {
        WORKER: request.name,
        HOST: platform.node(),
        PROCESS: str(os.getpid()),
        STARTED: _start_of(os.getpid()) or "",
    }


def remove_leftovers(client: DockerClient) -> list[str]:
    """Remove the containers whose process on this machine has ended; returns their ids."""
    from docker.errors import APIError

    removed = []
    for container in client.containers.list(all=True, filters={"label": WORKER}):
        labels = container.labels
        if labels.get(HOST) != platform.node() or _lives(labels):
            continue
        try:
            container.remove(force=True)
        except APIError:
            continue  # another run removes it at the same moment
        removed.append(str(container.id))
    return removed


def _lives(labels: dict[str, str]) -> bool:
    number = labels.get(PROCESS, "")
    return number.isdigit() and _start_of(int(number)) == labels.get(STARTED)


def _start_of(pid: int) -> str | None:
    """When a process began: a number that is used again belongs to another process."""
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None
