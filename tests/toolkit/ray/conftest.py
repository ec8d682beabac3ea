"""A Ray cluster of three nodes on this machine, with GPUs that are not there."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STORE_BYTES = 80 << 20
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class RayCluster:
    """The cluster, and what a command needs to reach it."""

    cluster: Any
    env: dict[str, str]

    def add(self, **resources: Any) -> Any:
        """A further node."""
        return self.cluster.add_node(object_store_memory=STORE_BYTES, **resources)

    def lose(self, node: Any) -> None:
        """End a node without a word, as a power cut does."""
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head without cores for actors, and two nodes with two GPUs each."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        home = os.environ.get("HOME", "/")
        folder = tmp_path_factory.mktemp("r")
        (folder / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
        patch.setenv("HOME", str(folder))
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "num_gpus": 0,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
            },
        )
        env = {**SETTINGS, "HOME": home, "RAY_ADDRESS": cluster.address}
        nodes = RayCluster(cluster, env)
        for _ in range(2):
            nodes.add(num_cpus=2, num_gpus=2)
        yield nodes
        cluster.shutdown()


@pytest.fixture
def spec(toy) -> Callable[..., Path]:
    """Writes the toy spec for the cluster."""

    def write(seconds: float = 0.2, n: int = 24, **params: object) -> Path:
        path = toy(n=n, features={"seconds": seconds, "batch": 3})
        settings = {"workers": 3, "gpus": 1, **params}
        path.write_text(path.read_text() + f"executors: {json.dumps({'ray': settings})}\n")
        return path

    return write
