"""`toolkit cluster render`: write what a cluster needs to run a spec. Contacts no cluster."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._spec.spec import Spec

SPEC_FOLDER, STORE_FOLDER = "/toolkit/spec", "/toolkit/store"
OFF = {"RAY_USAGE_STATS_ENABLED": "0"}


@click.group("cluster")
def command() -> None:
    """Write what a cluster needs to run a spec."""


@command.command("render")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["kuberay"]), required=True, help="The kind of cluster.")
@click.option("--image", required=True, help="The image of all pods, with sae-toolkit[ray] in it.")
@click.option("--claim", help="A PersistentVolumeClaim for the store.")
@click.option("--store", help="The store's URI, such as s3://bucket/store, in place of a claim.")
def render(spec: Path, kind: str, image: str, claim: str | None, store: str | None) -> None:
    """Write a RayJob of KubeRay, and the ConfigMap that holds the spec. Nothing is started."""
    import yaml

    from toolkit._spec.load import load_spec
    from toolkit.errors import BadInput

    if (claim is None) == (store is None):
        raise BadInput("Say where the store is: either --claim NAME or --store URI.")
    loaded = load_spec(spec)
    name = f"toolkit-{_dns_label(loaded.spec.name)}"
    groups = _ray_executors(loaded.spec)
    text = yaml.safe_dump(loaded.data, sort_keys=False)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"spec.yaml": text},
    }
    job = json.loads(json.dumps(ray_job(name, groups, image, claim, store)))  # no YAML aliases
    echo(yaml.safe_dump_all([config, job], sort_keys=False), nl=False)


def _ray_executors(spec: Spec) -> dict[str, Mapping[str, Any]]:
    """The params of `ray`, on which stages that name no executor run, and of the entries that use
    it under other names.
    """
    from toolkit._spec.spec import is_reference

    groups: dict[str, Mapping[str, Any]] = {"ray": {}}
    for name, entry in spec.executors.items():
        named = is_reference(entry)
        if (entry.get("uses", name) if named else name) == "ray":
            groups[name] = entry.get("with", {}) if named else entry
    return groups


def ray_job(
    name: str,
    groups: Mapping[str, Mapping[str, Any]],
    image: str,
    claim: str | None,
    store: str | None,
) -> dict[str, Any]:
    """The RayJob, with a group of workers for each executor."""
    volumes = _volumes(name, claim)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f"toolkit run {SPEC_FOLDER}/spec.yaml --on ray "
            f"--store {store or STORE_FOLDER}",
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0"},
                    "template": _pod("ray-head", image, {"cpu": "2"}, volumes),
                },
                "workerGroupSpecs": [
                    _workers("workers" if group == "ray" else group, settings, image, volumes)
                    for group, settings in groups.items()
                ],
            },
        },
    }


def _workers(
    group: str,
    settings: Mapping[str, Any],
    image: str,
    volumes: Sequence[tuple[dict[str, Any], str]],
) -> dict[str, Any]:
    """A group of workers: one pod for each, with the resources that an actor reserves."""
    workers, gpus = int(settings.get("workers", 1)), float(settings.get("gpus", 0))
    whole_gpus = math.ceil(gpus)  # Kubernetes gives whole GPUs
    cores = float(settings.get("cpus") or settings.get("threads") or 1)
    limits = {"cpu": str(math.ceil(cores))}
    if whole_gpus:
        limits["nvidia.com/gpu"] = str(whole_gpus)
    if memory := settings.get("memory"):
        limits["memory"] = str(memory)
    return {
        "groupName": _dns_label(group),
        "replicas": workers,
        "minReplicas": workers,
        "maxReplicas": workers,
        "rayStartParams": _offered(settings),
        "template": _pod("ray-worker", image, limits, volumes),
    }


def _dns_label(text: str) -> str:
    """A text as Kubernetes takes it in names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-")


def _offered(settings: Mapping[str, Any]) -> dict[str, str]:
    """The resources, besides cores and GPUs, that `ray start` declares for a worker's node."""
    offered = {}
    if resources := settings.get("resources"):
        offered["resources"] = json.dumps(json.dumps(resources))  # KubeRay takes it quoted
    if labels := settings.get("labels"):
        offered["labels"] = ",".join(f"{key}={value}" for key, value in labels.items())
    return offered


def _volumes(name: str, claim: str | None) -> list[tuple[dict[str, Any], str]]:
    """The volumes of every pod, each with the folder where it is mounted."""
    volumes = [({"name": "spec", "configMap": {"name": name}}, SPEC_FOLDER)]
    if claim is not None:
        store = {"name": "store", "persistentVolumeClaim": {"claimName": claim}}
        volumes.append((store, STORE_FOLDER))
    return volumes


def _pod(
    name: str, image: str, limits: dict[str, str], volumes: Sequence[tuple[dict[str, Any], str]]
) -> dict[str, Any]:
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
