"""What a Ray that a run starts for itself listens at: loopback, and nothing else."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from ipaddress import IPv6Address, ip_address

import pytest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

LISTENING = """
import psutil
from toolkit_ray._connection import connect

class Idle:
    def ready(self):
        return True

ray = connect()
actor = ray.remote(Idle).remote()
ray.get(actor.ready.remote())
driver = psutil.Process()
for process in (driver, *driver.children(recursive=True)):
    name = "driver" if process == driver else process.name()
    for socket in process.net_connections("inet"):
        if socket.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
            print(name, socket.laddr.ip)
"""


def is_loopback(text: str) -> bool:
    """Whether an address, also an IPv4 address written as IPv6, is loopback."""
    address = ip_address(text)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_loopback


def test_every_port_of_a_ray_of_its_own_is_on_loopback():
    """Of the driver, Ray's servers and an actor."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LISTENING],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    sockets = [line.rsplit(" ", 1) for line in ended.stdout.splitlines()]
    assert {"driver", "gcs_server", "raylet", "ray::Idle"} <= {name for name, _ in sockets}
    assert [socket for socket in sockets if not is_loopback(socket[1])] == []
