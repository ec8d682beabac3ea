"""The executor `ray`: workers as actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import ExecutorPart, Part

from . import _cluster, _params, _start


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """The executor that `--on ray` names."""
    yield ExecutorPart(
        name=_cluster.NAME,
        help="Workers as actors of a Ray cluster (RAY_ADDRESS), or of a Ray on this machine.",
        params=_params.RayParams,
        start=_start.start,
        workers=lambda params: params.workers,
        local_gpus=False,
        command=_start.command,
        cluster_job=_cluster.cluster_job,
    )
