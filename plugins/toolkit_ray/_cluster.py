"""The RayJob of KubeRay that runs a spec on actors. Contacts no cluster."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.containers.mounts import dns_label
from toolkit.executors.interface import ClusterRequest

from ._params import RayParams

NAME = "ray"
OFF = {"RAY_USAGE_STATS_ENABLED": "0"}

Volumes = Sequence[tuple[Mapping[str, Any], str]]


def cluster_job(request: ClusterRequest) -> dict[str, Any]:
    """The RayJob, with a group of workers for each executor."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": request.name},
        "spec": {
            "entrypoint": shlex.join([*request.command, "--on", NAME]),
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0"},
                    "template": _pod("ray-head", request.image, {"cpu": "2"}, request.volumes),
                },
                "workerGroupSpecs": [
                    _workers("workers" if name == NAME else name, params, request)
                    for name, params in request.params.items()
                ],
            },
        },
    }


def _workers(group: str, params: RayParams, request: ClusterRequest) -> dict[str, Any]:
    """A group of workers: one pod for each, with the resources that an actor reserves."""
    whole_gpus = math.ceil(params.gpus)  # Kubernetes gives whole GPUs
    limits = {"cpu": str(math.ceil(params.cpus or params.threads))}
    if whole_gpus:
        limits["nvidia.com/gpu"] = str(whole_gpus)
    if params.memory:
        limits["memory"] = str(params.memory)
    return {
        "groupName": dns_label(group),
        "replicas": params.workers,
        "minReplicas": params.workers,
        "maxReplicas": params.workers,
        "rayStartParams": _offered(params),
        "template": _pod("ray-worker", request.image, limits, request.volumes),
    }


def _offered(params: RayParams) -> dict[str, str]:
    """The resources, besides cores and GPUs, that `ray start` declares for a worker's node."""
    offered = {}
    if params.resources:
        offered["resources"] = json.dumps(json.dumps(params.resources))  # KubeRay takes it quoted
    if params.labels:
        offered["labels"] = ",".join(f"{key}={value}" for key, value in params.labels.items())
    return offered


def _pod(name: str, image: str, limits: dict[str, str], volumes: Volumes) -> dict[str, Any]:
    container = {
        "name": name,
        "image": image,
        "env": [{"name": key, "value": value} for key, value in OFF.items()],
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": [
            {"name": volume["name"], "mountPath": folder} for volume, folder in volumes
        ],
    }
    return {"spec": {"containers": [container], "volumes": [volume for volume, _ in volumes]}}
