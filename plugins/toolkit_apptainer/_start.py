"""Starts a worker with `apptainer exec`, given only its own folders, and GPUs by UUID."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.containers.apptainer import PROGRAMS, exec_words, exported_sif
from toolkit.containers.images import known_name, read_lock
from toolkit.containers.mounts import (
    folders_of,
    make_folders,
    mounts_for,
    pasteable,
    require_gpu_choice,
    token_mounts,
)
from toolkit.errors import BadInput
from toolkit.executors.interface import Worker, WorkerRequest, WorkersHere, gpu_request
from toolkit.executors.processes import PipedWorker
from toolkit.files.local import PathText, locate


class Apptainer(WorkersHere):
    """The image, the GPUs and the number of workers."""

    sif: PathText | None = Field(
        None,
        description="The image file. Default: the file that `toolkit images export NAME FILE.sif` "
        "recorded for `image`.",
    )
    image: Annotated[str, AfterValidator(known_name)] | None = Field(
        None, description="A pinned image's name. Default: cuda if GPUs are named, else cpu."
    )


def gpus(params: Apptainer) -> str | None:
    """The GPUs that the params request, written as for `--gpu`."""
    return gpu_request(params.gpus)


def start(params: Apptainer, request: WorkerRequest) -> Worker:
    """Start one worker from the image file."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise BadInput(
            "There is no `apptainer` on the PATH. Load its module (often `module load apptainer`),"
            " or run with `--on local` or `--on docker`."
        )
    locate(_sif(params, request))
    make_folders(request)
    folders = folders_of(mounts_for(request))
    log = request.folder / f"{request.name}.log"
    environment = {key: value for key, value in os.environ.items() if "TOKEN" not in key}
    words = [program, *_words(params, request, starting=True)]
    return PipedWorker(request.name, words, log, environment, folders)


def record(params: Apptainer, request: WorkerRequest) -> dict[str, str]:
    """The image file and the pin that it was exported from, for the run's manifest. Empty if there
    is no file: a run that starts no worker needs none.
    """
    try:
        sif = _sif(params, request)
    except BadInput:
        return {}
    pins = [image.image for image in read_lock().values() if image.sif == sif]
    return {"sif": sif, **({"image": pins[0]} if pins else {})}


def command(params: Apptainer, request: WorkerRequest) -> str:
    """The `apptainer exec` line that starts such a worker, ready to paste. Starts nothing."""
    words = [PROGRAMS[0], *_words(params, request, starting=False)]
    return pasteable(request, shlex.join(words))


def _words(params: Apptainer, request: WorkerRequest, *, starting: bool) -> list[str]:
    require_gpu_choice(request)
    token = token_mounts(request, starting=starting)
    sif = _sif(params, request)
    return exec_words(request, sif, params.threads_of_each(), gpus=bool(request.gpus), also=token)


def _sif(params: Apptainer, request: WorkerRequest) -> str:
    """The image file that the params name, or else the one exported for their image."""
    return params.sif or exported_sif(params.image or ("cuda" if request.gpus else "cpu"))
