"""Places a model's blocks on devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput

if TYPE_CHECKING:
    import torch


def spread_blocks(sizes: Sequence[int], other_bytes: int, devices: int) -> list[int]:
    """The device of each block. Blocks stay in order, each device gets an equal share of bytes, and
    the first one also holds everything outside the blocks.
    """
    share = (sum(sizes) + other_bytes) / devices
    blocks: list[int] = []
    before = other_bytes
    for size in sizes:
        blocks.append(
            max(blocks[-1] if blocks else 0, min(int((before + size / 2) / share), devices - 1))
        )
        before += size
    return blocks


def place_blocks(module: Any, blocks: Any, names: Sequence[str]) -> tuple[torch.device, ...]:
    """Move a model's blocks to the devices and everything else to the first; returns the device of
    each block.
    """
    devices = [_device(name) for name in names]
    sizes = [_bytes(block) for block in blocks]
    chosen = [
        devices[index] for index in spread_blocks(sizes, _bytes(module) - sum(sizes), len(devices))
    ]
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
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(
        device.type, True
    )
    if not available or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise BadInput(
            f"device '{name}' does not exist: torch sees {torch.cuda.device_count()} CUDA devices, "
            "counted from 0. Name one of those, `cpu`, or `auto`."
        )
    return device


def _bytes(module: Any) -> int:
    return sum(part.numel() * part.element_size() for part in module.parameters())
