"""The executor `apptainer`: the same worker on clusters that do not allow Docker."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import ExecutorPart, Part

from . import _start


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """The executor that `--on apptainer` names."""
    yield ExecutorPart(
        name="apptainer",
        help="Workers started by `apptainer exec` from a .sif file, with the same "
        "folders as docker.",
        params=_start.Apptainer,
        start=_start.start,
        workers=lambda params: params.workers,
        gpus=_start.gpus,
        record=_start.record,
        command=_start.command,
    )
