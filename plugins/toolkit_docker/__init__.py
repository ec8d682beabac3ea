"""The executor `docker`: each worker runs in a container of a pinned image, on its own GPU."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import ExecutorPart, Part

from . import _params, _start


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """The executor that `--on docker` names."""
    yield ExecutorPart(
        name="docker",
        help="Workers in containers of a pinned image, without network and without the store.",
        params=_params.Docker,
        start=_start.start,
        workers=lambda params: params.workers,
        gpus=_params.gpus,
        limits=_params.limits,
        record=_start.record,
        command=_start.command,
    )
