"""List the GPUs of this machine and choose among them. Asks the driver's own tool; imports no
torch. A GPU is chosen by physical index or UUID and passed on by UUID, which names the same card in
every process, container and library.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from toolkit.errors import BadInput

VISIBLE = "CUDA_VISIBLE_DEVICES"
NAME = re.compile(r"[0-9]+|(GPU|MIG)-.+")
"""How one GPU is named: by its physical index or its UUID."""
_COUNT = re.compile(r"count:([1-9][0-9]{0,3})")
_FIELDS = ("index", "uuid", "pci.bus_id", "name", "driver_version", "memory.total", "memory.free")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as the driver names it."""

    index: int
    """Its physical index on its machine."""
    uuid: str
    """Its UUID, such as `GPU-1b2c...`."""
    pci: str
    """Its PCI bus id."""
    name: str
    """Its model name."""
    driver: str
    """The driver's version."""
    total_bytes: int
    """Its memory."""
    free_bytes: int
    """Free memory at the time of the query."""
    cuda: str = ""
    """The newest CUDA version that the driver runs; empty where there is no CUDA driver."""

    def describe(self) -> str:
        """Index, name and UUID, for messages."""
        return f"{self.index} ({self.name}, {self.uuid})"


def installed_gpus() -> list[Gpu]:
    """All GPUs of this machine; none if the driver's tool is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    cuda = driver_cuda()
    gpus = [_parse(line, cuda) for line in done.stdout.splitlines()]
    return [gpu for gpu in gpus if gpu is not None]


def driver_cuda() -> str:
    """The newest CUDA version that the driver runs, such as `13.0`; empty without a driver. The
    version that torch is built for may differ.
    """
    version = ctypes.c_int(0)
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return ""
    return "" if failed else f"{version.value // 1000}.{version.value % 1000 // 10}"


def _parse(line: str, cuda: str) -> Gpu | None:
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(_FIELDS) or not values[0].isdigit():
        return None
    index, uuid, pci, name, driver, total, free = values
    return Gpu(
        index=int(index),
        uuid=uuid,
        pci=pci,
        name=name,
        driver=driver,
        total_bytes=_mebibytes(total),
        free_bytes=_mebibytes(free),
        cuda=cuda,
    )


def _mebibytes(text: str) -> int:
    return int(text) << 20 if text.isdigit() else 0


def visible_gpus(installed: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, in its order."""
    if VISIBLE not in environ:
        return list(installed)
    names = [name.strip() for name in environ[VISIBLE].split(",") if name.strip()]
    return [gpu for name in names for gpu in installed if _matches(gpu, name)]


def choose_gpus(request: str, installed: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that a request names: `5`, `2,5`, a UUID, `all`, `none` or `count:2`. A GPU that
    does not exist, or that CUDA_VISIBLE_DEVICES hides, is an error that lists the available ones.
    """
    names = _names(request)
    allowed = visible_gpus(installed, environ)
    if request == "all":
        return _first(request, allowed, len(allowed))
    if count := _COUNT.fullmatch(request):
        return _first(request, allowed, int(count[1]))
    chosen = [_gpu_named(name, installed, allowed, environ) for name in names]
    if len({gpu.uuid for gpu in chosen}) != len(chosen):
        raise BadInput(f"--gpu {request}: name each GPU once.")
    return chosen


def unresolved_gpus(request: str) -> list[Gpu]:
    """The GPUs of a request, as written in it: for command lines that are rendered on a machine
    without GPUs and run elsewhere. A count means the first ones, as on a machine that has them.
    """
    unresolved = partial(Gpu, pci="", name="not resolved", driver="", total_bytes=0, free_bytes=0)
    return [
        unresolved(index=int(name) if name.isdecimal() else -1, uuid=name)
        for name in _names(request)
    ]


def _names(request: str) -> list[str]:
    """The names in a request, `all` as it is and a count as the first indices. Refuses a request
    that names no GPU, or one twice.
    """
    if request in ("all", "none"):
        return [request] if request == "all" else []
    if count := _COUNT.fullmatch(request):
        return [str(index) for index in range(int(count[1]))]
    names = [name.strip() for name in request.split(",")]
    if not all(map(NAME.fullmatch, names)):
        raise BadInput(
            f"--gpu {request or repr(request)}: write physical indices or UUIDs, such as `--gpu 5` "
            "or `--gpu 2,5`, or `--gpu count:2`, `--gpu all` or `--gpu none`."
        )
    if len(set(names)) != len(names):
        raise BadInput(f"--gpu {request}: name each GPU once.")
    return names


def _first(request: str, allowed: Sequence[Gpu], count: int) -> list[Gpu]:
    if not allowed or count > len(allowed):
        raise BadInput(f"--gpu {request}: {_there(allowed)}")
    return list(allowed[:count])


def _gpu_named(
    name: str, installed: Sequence[Gpu], allowed: Sequence[Gpu], environ: Mapping[str, str]
) -> Gpu:
    gpu = next((gpu for gpu in installed if _matches(gpu, name)), None)
    if gpu is None:
        raise BadInput(f"--gpu {name}: there is no such GPU. {_there(installed)}")
    if gpu not in allowed:
        raise BadInput(
            f"--gpu {name}: {VISIBLE}={environ[VISIBLE]!r} hides it. {_there(allowed)} --gpu "
            f"counts physical GPUs. Choose one of those, or unset {VISIBLE}."
        )
    return gpu


def _matches(gpu: Gpu, name: str) -> bool:
    """Match by index, UUID, or the beginning of a UUID, as CUDA does."""
    if not NAME.fullmatch(name):
        return False
    return gpu.index == int(name) if name.isdecimal() else gpu.uuid.startswith(name)


def _there(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "This machine offers no GPU (nvidia-smi lists none). Use `--gpu none` for the CPU."
    return f"Available GPUs: {', '.join(gpu.describe() for gpu in gpus)}."
