"""The container engine: connecting to it, and error messages that name a remedy."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput

if TYPE_CHECKING:
    from docker import DockerClient

TIMEOUT_SECONDS = 600
"""How long one call may take: building and loading an image are single calls."""


def connect(timeout: int = TIMEOUT_SECONDS) -> DockerClient:
    """A client of the engine that DOCKER_HOST names, else of the local socket."""
    import docker
    from docker.errors import DockerException

    try:
        _try_socket(socket_name())
        return docker.from_env(timeout=timeout, version="auto")
    except (DockerException, OSError) as error:
        raise BadInput(unreachable(error)) from None


@contextmanager
def explained() -> Iterator[None]:
    """Turn a lost connection, and an answer that no caller expects, into a sentence. The errors of
    the SDK's HTTP library are OSErrors, which a run would take for trouble with its store.
    """
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except APIError as error:
        reason = error.explanation or error
        raise BadInput(f"The container engine at {socket_name()} refused: {reason}") from None
    except (DockerException, RequestException, HTTPError) as error:
        raise BadInput(unreachable(error)) from None


def _try_socket(name: str) -> None:
    """Open and close a local socket: the SDK would leave it open if nothing answers."""
    if name.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            probe.connect(name.removeprefix("unix://"))


def socket_name() -> str:
    """The address at which an engine is expected."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def unreachable(error: BaseException) -> str:
    """Why no engine answers, and what to do."""
    text = str(error)
    where = socket_name()
    if "Permission denied" in text or "PermissionError" in text:
        return (
            f"The container engine at {where} does not accept this user. Ask to be added to the "
            "group `docker`, set DOCKER_HOST to your own engine, or run with `--on local`."
        )
    return (
        f"No container engine answers at {where}. Start one, set DOCKER_HOST, or run with "
        "`--on local`; on a cluster without Docker, `--on apptainer`."
    )


def is_podman(client: DockerClient) -> bool:
    """Whether the engine is Podman, which silently ignores requests for GPUs."""
    components: list[dict[str, Any]] = client.version().get("Components") or []
    return any("podman" in str(component.get("Name", "")).lower() for component in components)
