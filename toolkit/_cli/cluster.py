"""`toolkit cluster render`: write what a cluster needs to run a spec. Contacts no cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts
    from toolkit._spec.load import LoadedSpec
    from toolkit.parts import ExecutorPart

SPEC_FOLDER, STORE_FOLDER = "/toolkit/spec", "/toolkit/store"
CLAIM = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
"""How Kubernetes names a PersistentVolumeClaim."""


@click.group("cluster")
def command() -> None:
    """Write the manifests that run a spec on a cluster."""


@command.command("render")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["kuberay"]), required=True, help="The kind of cluster.")
@click.option("--image", required=True, help="The image of all pods, with sae-toolkit[ray] in it.")
@click.option("--claim", help="The PersistentVolumeClaim that holds the store.")
@click.option(
    "--store", help="The URI of the store, such as s3://bucket/store, instead of a claim."
)
def render(spec: Path, kind: str, image: str, claim: str | None, store: str | None) -> None:
    """Write a RayJob of KubeRay, and the ConfigMap that holds the spec. Nothing is started."""
    import yaml

    from toolkit._plan.executors import bind_uses
    from toolkit._plugins.loading import load_parts
    from toolkit._spec.load import load_spec
    from toolkit.containers.mounts import dns_label
    from toolkit.errors import BadInput
    from toolkit.executors.interface import ClusterRequest

    if (claim is None) == (store is None):
        raise BadInput("Name the store with either --claim NAME or --store URI.")
    _check_names(image, claim, store)
    loaded = load_spec(spec)
    name = f"toolkit-{dns_label(loaded.spec.name)}"
    parts = load_parts()
    part = _cluster_executor(parts)
    assert part.cluster_job is not None
    executors = bind_uses(loaded, parts, part)
    _check_stages(loaded, parts, part, executors)
    request = ClusterRequest(
        name=name,
        image=image,
        params={name: executor.params for name, executor in executors.items()},
        command=("toolkit", "run", f"{SPEC_FOLDER}/spec.yaml", "--store", store or STORE_FOLDER),
        volumes=_volumes(name, claim),
    )
    text = yaml.safe_dump(loaded.data, sort_keys=False)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"spec.yaml": text},
    }
    job = json.loads(json.dumps(part.cluster_job(request)))  # no YAML aliases
    echo(yaml.safe_dump_all([config, job], sort_keys=False), nl=False)


def _check_names(image: str, claim: str | None, store: str | None) -> None:
    """Refuse what a cluster would refuse, and a store that would end with its pod."""
    from toolkit.errors import BadInput
    from toolkit_store import check_uri

    if not image or re.search(r"\s", image):
        raise BadInput(
            f"--image {image!r}: write the name of an image, such as REGISTRY/IMAGE@sha256:DIGEST."
        )
    if claim is not None and not CLAIM.fullmatch(claim):
        raise BadInput(
            f"--claim {claim!r}: Kubernetes names claims with lower-case letters, digits, '-' and "
            "'.'. `kubectl get pvc` lists them."
        )
    if store is not None:
        if "://" not in store or store.startswith("file"):
            raise BadInput(
                f"--store {store!r}: a folder of a pod ends with it. Write a URI such as "
                "s3://bucket/store, or name a volume with --claim."
            )
        check_uri(store)


def _check_stages(
    loaded: LoadedSpec, parts: Parts, part: ExecutorPart, executors: Iterable[str]
) -> None:
    """Refuse a stage on an executor that the pods do not have, such as a batch system."""
    from toolkit._plan.executors import bind_uses
    from toolkit._spec.defaults import DEFAULT_EXECUTOR
    from toolkit.errors import SpecError, choices

    here = parts.get("executor", DEFAULT_EXECUTOR)
    assert isinstance(here, type(part))
    allowed = {*executors, *bind_uses(loaded, parts, here)}
    for number, stage in enumerate(loaded.spec.stages):
        if stage.on is not None and stage.on not in allowed:
            raise SpecError(
                f"{loaded.field(('stages', number, 'on'))}: The pods have no executor "
                f"'{stage.on}'. Name one that uses {part.name} or {here.name}: "
                f"{choices(sorted(allowed))}."
            )


def _cluster_executor(parts: Parts) -> ExecutorPart:
    """The installed executor that describes jobs of a cluster."""
    from toolkit.errors import BadInput, choices
    from toolkit.parts import ExecutorPart

    found = [
        part
        for part in parts.of("executor")
        if isinstance(part, ExecutorPart) and part.cluster_job is not None
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput("No installed executor describes jobs of a cluster. See: toolkit plugins")
    raise BadInput(
        f"Several executors describe jobs of a cluster: {choices(part.name for part in found)}. "
        "Disable the plugins of the others with TOOLKIT_DISABLE_PLUGINS."
    )


def _volumes(name: str, claim: str | None) -> list[tuple[dict[str, Any], str]]:
    """The volumes of every pod, each with the folder where it is mounted."""
    volumes = [({"name": "spec", "configMap": {"name": name}}, SPEC_FOLDER)]
    if claim is not None:
        store = {"name": "store", "persistentVolumeClaim": {"claimName": claim}}
        volumes.append((store, STORE_FOLDER))
    return volumes
