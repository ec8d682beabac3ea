"""What a worker in a container sees: the mounted folders and its environment, the same for every
kind of container. The store is never mounted.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from toolkit.errors import BadInput
from toolkit.executors.gpus import installed_gpus
from toolkit.executors.interface import WorkerRequest

ROOT = PurePosixPath("/toolkit")
TOKEN = ROOT / "secrets" / "token"
"""Where a container that downloads sees the hub's token: in a file, never in its environment."""
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
    cache = request.model_cache
    if cache is not None and (cache.exists() or request.network):
        mounts.append(Mount(cache.absolute(), ROOT / "models", writable=request.network))
    return mounts


def token_mounts(request: WorkerRequest, *, starting: bool) -> list[Mount]:
    """The file with the hub's token, for a container that downloads. A token that is only in
    HF_TOKEN is written to a private file when the container is `starting`.
    """
    if not request.network:
        return []
    if value := os.environ.get("HF_TOKEN", "").strip():
        return [Mount(_private_file(value), TOKEN)] if starting else []
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    path = Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token")
    return [Mount(path.absolute(), TOKEN)] if path.exists() else []


@cache
def _private_file(value: str) -> Path:
    """A file that only this user reads, in memory where possible; removed when the host ends."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="toolkit-secrets-", dir=parent))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(value)
    return path


def make_folders(request: WorkerRequest) -> None:
    """Create the folders to be mounted: an engine refuses missing ones."""
    for folder in (request.folder, *_created_folders(request)):
        folder.mkdir(parents=True, exist_ok=True)


def _created_folders(request: WorkerRequest) -> list[Path]:
    """The folders that a first run has to create: a stage that downloads fills the model cache."""
    cache = [request.model_cache] if request.model_cache and request.network else []
    return [request.jobs, request.inputs, *cache]


def pasteable(request: WorkerRequest, command: str) -> str:
    """The command line that creates the folders to be mounted, then runs `command`: it can be
    pasted before any run.
    """
    return f"mkdir -p {shlex.join(map(str, _created_folders(request)))} && {command}"


def folders_of(mounts: list[Mount]) -> Mapping[Path, PurePosixPath]:
    """Host path -> container path, for translating the paths in messages."""
    return {mount.outside: mount.inside for mount in mounts}


def require_gpu_choice(request: WorkerRequest) -> None:
    """Refuse to start a container without a device on a machine with GPUs, unless that was
    asked for: the stage would silently run on the CPU.
    """
    installed = installed_gpus() if request.gpus is None else []
    if installed:
        names = "; ".join(gpu.describe() for gpu in installed)
        raise BadInput(
            f"This machine has GPUs ({names}), and nothing says whether a container gets one. Name "
            f"them with --gpu {installed[0].index}, or `gpus: [{installed[0].index}]` under "
            f"executors.{request.executor}; or take the CPU: --gpu none, or `gpus: none` there."
        )


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
    if request.network:
        environment["HF_TOKEN_PATH"] = str(TOKEN)
    else:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def dns_label(text: str) -> str:
    """A text as Kubernetes takes it in names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-")
