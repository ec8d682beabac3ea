"""Starts a worker's container: created from a pin, never pulled, given only its own folders."""

from __future__ import annotations

import csv
import io
import os
import shlex
from typing import TYPE_CHECKING, Any

from toolkit.containers.engines import connect, explained, is_podman
from toolkit.containers.images import image_reference
from toolkit.containers.mounts import (
    COMMAND,
    Mount,
    environment_for,
    folders_of,
    make_folders,
    mounts_for,
    pasteable,
    require_gpu_choice,
    token_mounts,
)
from toolkit.errors import BadInput
from toolkit.executors.interface import Worker, WorkerRequest

from ._failures import create_failure, start_failure
from ._leftovers import labels_of, remove_leftovers
from ._params import Docker
from ._worker import ContainerWorker

if TYPE_CHECKING:
    from docker import DockerClient


def start(params: Docker, request: WorkerRequest) -> Worker:
    """Create and start one container; its worker then says hello."""
    client = connect()
    try:
        with explained():
            remove_leftovers(client)
            return _create_and_start(client, params, request)
    except BaseException:
        client.close()
        raise


def _create_and_start(client: DockerClient, params: Docker, request: WorkerRequest) -> Worker:
    from docker.errors import APIError

    image = image_of(params, request)
    if (request.gpus or params.cdi) and is_podman(client):
        raise BadInput(
            "Podman answers instead of Docker and silently ignores requests for GPUs, so "
            "the stage would run on the CPU. Use Docker, or start Podman with CDI by hand."
        )
    make_folders(request)
    mounts = [*mounts_for(request), *token_mounts(request, starting=True)]
    try:
        container = client.containers.create(
            image, list(COMMAND), **_options(params, request, mounts)
        )
    except APIError as error:
        raise create_failure(error, image) from None
    worker = ContainerWorker(client, container, request, folders_of(mounts))
    try:
        worker.attach()
        container.start()
    except BaseException as error:
        worker.close()
        if not isinstance(error, APIError):
            raise
        container.remove(force=True)
        raise start_failure(error, request) from None
    return worker


def image_of(params: Docker, request: WorkerRequest) -> str:
    """The pin of the requested image."""
    if not params.cdi:
        require_gpu_choice(request)
    name = params.image or ("cuda" if request.gpus or params.cdi else "cpu")
    return image_reference(name)


def record(params: Docker, request: WorkerRequest) -> dict[str, Any]:
    """The image's digest or ID and the CDI devices, for the run's manifest. No image if none is
    pinned: a run that starts no worker needs none.
    """
    devices = {"cdi": list(params.cdi)} if params.cdi else {}
    try:
        return {"image": image_of(params, request), **devices}
    except BadInput:
        return devices


def user() -> str:
    """The caller's user and group ids, so that the caller owns the files in job folders."""
    return f"{os.getuid()}:{os.getgid()}"


def _options(params: Docker, request: WorkerRequest, mounts: list[Mount]) -> dict[str, Any]:
    from docker.types import Mount as EngineMount

    return {
        "name": None,
        "user": user(),
        "stdin_open": True,
        "init": True,
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "network_mode": "bridge" if request.network else "none",
        "mem_limit": request.limits.memory_bytes,
        "shm_size": request.limits.shm_bytes,
        "pids_limit": params.pids,
        "environment": environment_for(request, params.threads_of_each()),
        "labels": labels_of(request),
        "device_requests": device_requests(params, request),
        "working_dir": "/tmp",
        "mounts": [
            EngineMount(
                str(mount.inside), str(mount.outside), type="bind", read_only=not mount.writable
            )
            for mount in mounts
        ],
    }


def device_requests(params: Docker, request: WorkerRequest) -> list[Any]:
    """Requests for the GPUs by UUID, and for CDI devices by the names in the params."""
    from docker.types import DeviceRequest

    requests = []
    if request.gpus:
        uuids = [gpu.uuid for gpu in request.gpus]
        requests.append(DeviceRequest(device_ids=uuids, capabilities=[["gpu"]]))
    if params.cdi:
        requests.append(DeviceRequest(driver="cdi", device_ids=list(params.cdi)))
    return requests


def command(params: Docker, request: WorkerRequest) -> str:
    """The `docker run` line that starts such a worker, ready to paste. Contacts no engine."""
    words = ["docker", "run", "--rm", "-i", "--init", "--user", user(), "--read-only"]
    words += ["--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL"]
    words += ["--security-opt", "no-new-privileges"]
    words += ["--network", "bridge" if request.network else "none"]
    words += ["--pids-limit", str(params.pids), "--shm-size", params.shm]
    if params.memory:
        words += ["--memory", params.memory]
    if request.gpus:
        devices = ",".join(gpu.uuid for gpu in request.gpus)
        words += ["--gpus", f'"device={devices}"']
    for name in params.cdi:
        words += ["--device", name]
    for key, value in environment_for(request, params.threads_of_each()).items():
        words += ["--env", f"{key}={value}"]
    for mount in [*mounts_for(request), *token_mounts(request, starting=False)]:
        words += ["--mount", _mount_text(mount)]
    return pasteable(request, shlex.join([*words, image_of(params, request), *COMMAND]))


def _mount_text(mount: Mount) -> str:
    """A mount as `--mount` takes it: a CSV row, in which a path with a comma is quoted."""
    fields = ["type=bind", f"source={mount.outside}", f"target={mount.inside}"]
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(fields if mount.writable else [*fields, "readonly"])
    return row.getvalue()
