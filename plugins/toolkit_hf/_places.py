"""Which device each block stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput

if TYPE_CHECKING:
    import torch


def spread(sizes: Sequence[int], rest: int, devices: int) -> list[int]:
    """The device of each block: blocks stay in order, and each device gets its share of bytes; the
    first has the rest, too.
    """
    share = (sum(sizes) + rest) / devices
    found: list[int] = []
    before = rest
    for size in sizes:
        found.append(
            max(found[-1] if found else 0, min(int((before + size / 2) / share), devices - 1))
        )
        before += size
    return found


def place(module: Any, blocks: Any, names: Sequence[str]) -> tuple[torch.device, ...]:
    """Move a model: its blocks over the devices, everything else to the first. Gives each block's
    device.
    """
    devices = [_device(name) for name in names]
    sizes = [_bytes(block) for block in blocks]
    chosen = [devices[at] for at in spread(sizes, _bytes(module) - sum(sizes), len(devices))]
    for block, device in zip(blocks, chosen, strict=True):
        block.to(device)
    inside = {id(part) for block in blocks for part in block.modules()}
    for part in module.modules():
        if id(part) not in inside and next(part.children(), None) is None:
            part.to(devices[0])
    return tuple(chosen)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(
        device.type, True
    )
    if not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise BadInput(
            f"device '{name}' is not there: torch sees {torch.cuda.device_count()} CUDA devices, "
            "counted from 0. Name one of those, `cpu`, or `auto`."
        )
    return device


def _bytes(module: Any) -> int:
    return sum(part.numel() * part.element_size() for part in module.parameters())
