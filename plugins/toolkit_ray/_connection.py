"""Connects to the Ray cluster at RAY_ADDRESS, or else starts a Ray on this machine, without
dashboard and telemetry. All ports of a Ray that is started here are on loopback, and since other
users of the machine reach them there, it requires a token, which is drawn anew for each run.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment values of every Ray started from this process: no usage report."""
SINGLE_NODE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_task_events_report_interval_ms": "0",
}
"""Environment values of a Ray on this machine. With the first, Ray takes the loopback address for
that of its node, to which its servers bind; without it they listen on every interface. The last
keeps it from recording each call for a dashboard that is not there.
"""
NO_CLOUD = "provider: {type: local}\n"
"""Without this file in its HOME, the head node queries a cloud's metadata service."""
OBJECT_STORE_BYTES = 512 << 20
ANSWER_SECONDS = 10.0
"""How long a cluster may take to answer at its address."""
ADDRESS = re.compile(
    r"(?:ipv[46]:)?(?:\b\d{1,3}(?:\.\d{1,3}){3}\b|\[[0-9a-f:]*:[0-9a-f:]*\])(?::\d+)?", re.I
)
"""An address of a node in a text."""


def connect() -> Any:
    """The module `ray`, connected. A process connects once."""
    for name, value in _settings().items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise BadInput(
            "Ray is not installed. Install it on every node: pip install 'sae-toolkit[ray]'."
        ) from None
    if not ray.is_initialized():
        try:
            _connect(ray)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput(_refusal(error)) from None
    return ray


def _settings() -> dict[str, str]:
    """Environment values that Ray reads while it is imported."""
    return QUIET | SINGLE_NODE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if is_local() else QUIET


def is_local() -> bool:
    """Whether Ray runs on this machine, for this process alone."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def _connect(ray: Any) -> None:
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if not is_local():
        address = os.environ["RAY_ADDRESS"]
        _check_address(address)
        ray.init(address=address, **quiet)
        return
    folder = Path(tempfile.mkdtemp(prefix="tk-ray-"))
    atexit.register(_shut_down, ray, folder)
    with _home(folder), warnings.catch_warnings():
        # Ray forks, to start its processes at once; LanceDB, which is loaded, warns in the fork
        warnings.filterwarnings("ignore", "lancedb fork support")
        ray.init(
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
            **quiet,
        )


def _shut_down(ray: Any, folder: Path) -> None:
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Give the processes that Ray starts a HOME in which no cloud is configured."""
    (folder / "ray_bootstrap_config.yaml").write_text(NO_CLOUD)
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


def _check_address(address: str) -> None:
    """Refuse an address at which nothing answers: Ray would try for a quarter of an hour."""
    if "://" in address:
        raise ValueError(
            "RAY_ADDRESS holds '://', as that of a Ray Client server does, which runs do not use; "
            "name the head's own port, such as HOST:6379"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # a word of Ray's, such as `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"nothing answers at RAY_ADDRESS ({error})") from None


def without_addresses(text: str) -> str:
    """A text of Ray's in one line, without the addresses of nodes, which must not be recorded."""
    text = " ".join(text.split())
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        text = text.replace(address, "RAY_ADDRESS").replace(host, "RAY_ADDRESS")
    return ADDRESS.sub("ADDRESS", text).rstrip(".")


def _refusal(error: Exception) -> str:
    """Why there is no connection."""
    return (
        f"There is no connection to Ray: {without_addresses(str(error))}. RAY_ADDRESS names the "
        "cluster (`ray status` on its head tells whether it runs); without it Ray starts on this "
        "machine."
    )
