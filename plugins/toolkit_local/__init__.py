"""The executor `local`: workers are processes on this machine, one per GPU or a number of them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.executors.interface import gpu_request
from toolkit.parts import ExecutorPart, Part

from . import _executor


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """The executor that `--on local`, the default, names."""
    yield ExecutorPart(
        name="local",
        help="Worker processes on this machine.",
        params=_executor.Local,
        start=_executor.start,
        command=_executor.command,
        workers=lambda params: params.workers,
        gpus=lambda params: gpu_request(params.gpus),
    )
