"""What a worker in a container sees: the mounted folders and its environment, the same for every
kind of container. The store is never mounted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolkit.executors import WorkerRequest

ROOT = PurePosixPath("/toolkit")
COMMAND = ("python", "-m", "toolkit.worker")
KERNELS = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)
"""Variables that select numeric kernels. A container gets the values set on the host, so that its
tables equal those of a local run to the last bit.
"""


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, and where the container sees it."""

    outside: Path
    inside: PurePosixPath
    writable: bool = False


def mounts_for(request: WorkerRequest) -> list[Mount]:
    """Job folders writable; inputs, plugin files, model files and the model cache read only."""
    mounts = [
        Mount(request.jobs.absolute(), ROOT / "jobs", writable=True),
        Mount(request.inputs.absolute(), ROOT / "inputs"),
    ]
    for number, path in enumerate(request.plugins):
        mounts.append(Mount(path.absolute(), ROOT / "plugins" / str(number) / path.name))
    for number, path in enumerate(request.files):
        mounts.append(Mount(path.absolute(), ROOT / "files" / str(number) / path.name))
    if request.model_cache is not None and request.model_cache.exists():
        cache = request.model_cache.absolute()
        mounts.append(Mount(cache, ROOT / "models", writable=request.network))
    return mounts


def make_folders(request: WorkerRequest) -> None:
    """Create the folders to be mounted: an engine refuses missing ones."""
    for folder in (request.folder, request.jobs, request.inputs):
        folder.mkdir(parents=True, exist_ok=True)


def folders_of(mounts: list[Mount]) -> Mapping[Path, PurePosixPath]:
    """Host path -> container path, for translating the paths in messages."""
    return {mount.outside: mount.inside for mount in mounts}


def environment_for(request: WorkerRequest, threads: int) -> dict[str, str]:
    """The container's environment. It holds no secret, and no choice of GPUs by index."""
    environment = {
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment |= {name: os.environ[name] for name in KERNELS if name in os.environ}
    if request.model_cache is not None:
        environment["HF_HUB_CACHE"] = str(ROOT / "models")
    if not request.network:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment
