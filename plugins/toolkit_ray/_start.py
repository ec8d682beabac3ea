"""Starts a worker in an actor, after checking that some node can hold it."""

from __future__ import annotations

import json
import os
from typing import Any

from toolkit.containers.mounts import make_folders
from toolkit.errors import BadInput
from toolkit.executors.interface import Worker, WorkerRequest

from ._connection import connect, is_local
from ._params import RayParams
from ._worker import RayWorker

INHERITED = ("HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
"""Variables that a worker inherits from the host if Ray runs on this machine."""

_FEASIBLE: set[str] = set()
"""Params for which a node exists, or existed: if it is lost, an actor waits for another."""


def start(params: RayParams, request: WorkerRequest) -> Worker:
    """Start one actor. It waits while all nodes that can hold it are busy."""
    ray = connect()
    if (requested := params.model_dump_json()) not in _FEASIBLE:
        _check_feasible(ray, params, request.executor)
        _FEASIBLE.add(requested)
    make_folders(request)
    try:
        return RayWorker(ray, params, request, environment(params))
    except (TypeError, ValueError) as error:  # Ray checks its options when an actor is described
        reason = " ".join(str(error).split())
        raise BadInput(
            f"Ray refuses the actor: {reason}. Correct `executors.{request.executor}`."
        ) from error


def environment(params: RayParams) -> dict[str, str]:
    """The variables that are added to the environment of a worker's node."""
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(params.threads)}
    if is_local():
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment = {**inherited, **environment}
    return environment


def command(params: RayParams, request: WorkerRequest) -> str:
    """A description of the actor, which no command line starts. Does not contact Ray."""
    settings = {**params.reserved(), **({"labels": params.labels} if params.labels else {})}
    return f"# {request.name}: an actor with {json.dumps(settings)}, tables by {params.where}"


def _check_feasible(ray: Any, params: RayParams, executor: str) -> None:
    """Refuse a request that no node can meet: Ray would wait forever without a message."""
    reserved = params.reserved()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for node in nodes:
        resources, labels = node["Resources"], node.get("Labels", {})
        enough = all(resources.get(name, 0.0) >= value for name, value in reserved.items())
        if enough and all(labels.get(name) == value for name, value in params.labels.items()):
            return
    requested = json.dumps({**reserved, **params.labels})
    largest: dict[str, float] = {}
    for node in nodes:
        for name, value in node["Resources"].items():
            if ":" not in name:
                largest[name] = max(value, largest.get(name, 0.0))
    raise BadInput(
        f"No node of the cluster can hold an actor with {requested}. The most that one of its "
        f"{len(nodes)} nodes has: {json.dumps(largest)}. Change `executors.{executor}`, or add a "
        "node."
    )
