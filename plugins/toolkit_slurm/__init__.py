"""The executor `slurm`: workers in the tasks of array jobs, over a shared file system."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import ExecutorPart, Part

from . import _params, _script, _session


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """The executor that `--on slurm` names."""
    yield ExecutorPart(
        name="slurm",
        help="Workers in the tasks of Slurm array jobs, over a shared file system.",
        params=_params.Slurm,
        start=_session.start,
        start_all=_session.start_all,
        workers=lambda params: params.workers,
        local_gpus=False,
        script=_script.dry_script,
    )
