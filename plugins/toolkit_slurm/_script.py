"""The batch script of a run's array jobs."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toolkit.containers.apptainer import PROGRAMS, exec_words
from toolkit.containers.mounts import folders_of, mounts_for
from toolkit.executors.interface import WorkerRequest

from ._params import Slurm
from ._seats import Seat

WORKER_MODULE = ("-m", "toolkit.worker")


def seats_folder(request: WorkerRequest) -> Path:
    """The folder through which the host and the tasks of one executor communicate."""
    return request.folder.absolute() / request.executor


def job_name(folder: Path) -> str:
    """The name of an executor's jobs, by which they are found in the queue: the run's id and a hash
    of the folder, since two stores may hold the same run.
    """
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return f"toolkit-{folder.parents[1].name}-{digest}"


def script(params: Slurm, folder: Path) -> str:
    """The batch script, the same for any number of tasks."""
    words = [sys.executable, "-m", "toolkit_slurm.task", str(folder)]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{option}" for option in _options(params, folder)),
        *params.setup,
        f"exec {shlex.join(words)}",
    ]
    return "\n".join(lines) + "\n"


def dry_script(params: Slurm, requests: Sequence[WorkerRequest]) -> str:
    """What `--dry-run` prints: the command that submits the script, and the script itself."""
    folder = seats_folder(requests[0])
    comment = (
        f"# sbatch --array=0-{len(requests) - 1} {folder}/task.sh, in chunks below the cluster's "
        "MaxArraySize"
    )
    return f"{comment}\n{script(params, folder)}"


def seat_for(params: Slurm, request: WorkerRequest, name: str) -> Seat:
    """A seat for the worker of a request."""
    folders: Mapping[str, str] = {}
    command = [sys.executable, *WORKER_MODULE]
    if params.sif is not None:
        words = exec_words(request, params.sif, params.cpus, gpus=params.gpus > 0)
        command = [PROGRAMS[0], *words]
        inside = folders_of(mounts_for(request))
        folders = {str(outside): str(path) for outside, path in inside.items()}
    return Seat(
        name=name,
        worker=request.name,
        command=command,
        log=str(request.folder.absolute() / f"{request.name}.log"),
        jobs=str(request.jobs),
        folders=dict(folders),
        env={"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(params.cpus)},
        secrets=sorted(request.secrets),
        wait=params.wait,
    )


def _options(params: Slurm, folder: Path) -> Iterator[str]:
    """The options of sbatch. The signal goes to the batch shell (B:), which `exec` replaces with
    the task.
    """
    yield f"job-name={job_name(folder)}"
    logs = os.fspath(folder).replace("%", "%%")  # sbatch replaces %A and the like in it
    yield f"output={_quoted(f'{logs}/task-%A_%a.log')}"
    yield "open-mode=append"
    yield "requeue"
    yield f"signal=B:USR1@{params.leave}"
    yield f"time={params.time}"
    yield "ntasks=1"
    yield f"cpus-per-task={params.cpus}"
    if params.gpus:
        yield f"gpus-per-task={params.gpus}"
    for name in ("partition", "account"):
        if (value := getattr(params, name)) is not None:
            yield f"{name}={_quoted(value)}"
    if params.memory is not None:
        yield f"mem={params.memory}"
    for name, value in params.sbatch.items():
        yield f"{name}={_quoted(value)}" if value else name


def _quoted(value: str) -> str:
    """A value as sbatch reads it in a script: unquoted, it ends at a blank or a `#`."""
    if not re.search(r"""[\s#"'\\]""", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
