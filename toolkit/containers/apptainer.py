"""The command line of a worker in an Apptainer container, for all executors that start one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from toolkit.containers.images import read_lock, user_lock
from toolkit.containers.mounts import COMMAND, Mount, environment_for, mounts_for
from toolkit.errors import BadInput
from toolkit.executors.interface import WorkerRequest

PROGRAMS = ("apptainer", "singularity")


def installed_program() -> str | None:
    """The path of Apptainer, or of its older name, on this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def exec_words(
    request: WorkerRequest, sif: str, threads: int, *, gpus: bool, also: Sequence[Mount] = ()
) -> list[str]:
    """The words after the program: `exec`, the folders of the request and `also`, the image, the
    worker. `gpus` makes GPUs visible: only those that the request names, if it names any but `all`.
    """
    words = ["exec", "--contain", "--cleanenv", "--no-home", "--pwd", "/tmp"]
    environment = environment_for(request, threads)
    if gpus:
        words.append("--nv")
    uuids = [gpu.uuid for gpu in request.gpus or ()]
    if uuids and uuids != ["all"]:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
    for key, value in environment.items():
        words += ["--env", f"{key}={value}"]
    for mount in [*mounts_for(request), *also]:
        words += ["--bind", _bind(mount)]
    return [*words, sif, *COMMAND]


def _bind(mount: Mount) -> str:
    """A mount as `--bind` takes it, which has no way to quote a path."""
    if re.search("[:,]", str(mount.outside)):
        raise BadInput(
            f"Apptainer cannot mount {mount.outside}: `--bind` reads ':' and ',' as separators. "
            "Use a path without them (`--store` names the store, HF_HUB_CACHE the model cache)."
        )
    return f"{mount.outside}:{mount.inside}:{'rw' if mount.writable else 'ro'}"


def exported_sif(name: str) -> str:
    """The image file that `toolkit images export` recorded for a pinned image."""
    pinned = read_lock().get(name)
    if pinned is None or pinned.sif is None:
        raise BadInput(
            f"{user_lock()} names no Apptainer file for image '{name}'. Export one: `toolkit "
            f"images export {name} {name}.sif`, or set `sif` in the executor's params."
        )
    return pinned.sif
