"""Removes the containers of dead runs, which it recognises by their labels."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import psutil

from toolkit.executors.interface import WorkerRequest

if TYPE_CHECKING:
    from docker import DockerClient

WORKER = "io.sae-toolkit.worker"
HOST = "io.sae-toolkit.host"
PROCESS = "io.sae-toolkit.process"
STARTED = "io.sae-toolkit.process-started"


def labels_of(request: WorkerRequest) -> dict[str, str]:
    """Labels that say which process on which machine owns a container."""
    return {
        WORKER: request.name,
        HOST: platform.node(),
        PROCESS: str(os.getpid()),
        STARTED: _start_time(os.getpid()) or "",
    }


def remove_leftovers(client: DockerClient) -> list[str]:
    """Remove the containers whose process on this machine has ended, and return their ids."""
    from docker.errors import APIError

    removed = []
    # The SDK asks for each container that it lists: another run may have removed one by then.
    listed = client.containers.list(all=True, filters={"label": WORKER}, ignore_removed=True)
    for container in listed:
        labels = container.labels
        if labels.get(HOST) != platform.node() or _owner_is_alive(labels):
            continue
        try:
            container.remove(force=True)
        except APIError:
            continue  # another run is removing it
        removed.append(str(container.id))
    return removed


def _owner_is_alive(labels: dict[str, str]) -> bool:
    pid = labels.get(PROCESS, "")
    return pid.isdigit() and _start_time(int(pid)) == labels.get(STARTED)


def _start_time(pid: int) -> str | None:
    """When a process started, which tells it from a later process with the same id."""
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None
