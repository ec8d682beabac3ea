"""A weight matrix where it lies: its file is mapped while it is looked at, and becomes float32 a
block of features at a time.

So an SAE costs the pages of its file, which processes of a host share and the system may take back,
and never a copy of its own.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 21
"""Numbers of a block: 8 MB in float32."""
BLOCK_ON_GPU = 1 << 27
"""The same on a GPU, which needs large products to be busy: 512 MB."""
MAPPED = 1 << 18
"""Numbers from which on a place is mapped rather than taken from the heap: 1 MB in float32."""


@dataclass(frozen=True)
class StoredMatrix:
    """Two-dimensional numbers in a file, from byte `start` on. `stamp` tells whether the file is
    still the one that was checked.
    """

    file: Path
    start: int
    dtype: str
    shape: tuple[int, int]
    stamp: tuple[int, int, int]

    def open(self) -> Tensor:
        """The numbers, mapped; as (rows, columns, bytes) where the file has them at an odd place,
        which processors may refuse.
        """
        import torch

        kind = getattr(torch, self.dtype)
        below = self.start % mmap.ALLOCATIONGRANULARITY
        count = self.shape[0] * self.shape[1]
        with self.file.open("rb") as file:
            if stamp(self.file) != self.stamp:
                raise DataError(
                    f"{self.file} has changed since it was checked. Run again, and leave it as it "
                    "is meanwhile."
                )
            held = mmap.mmap(
                file.fileno(),
                below + count * kind.itemsize,
                access=mmap.ACCESS_COPY,
                offset=self.start - below,
            )
        if self.start % kind.itemsize == 0:
            return torch.frombuffer(held, dtype=kind, count=count, offset=below).view(self.shape)
        return torch.frombuffer(held, dtype=torch.uint8, offset=below).view(
            *self.shape, kind.itemsize
        )


def stamp(file: Path) -> tuple[int, int, int]:
    """What is another one once a file is written anew."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Matrix:
    """Numbers of each feature: rows of what is stored, or its columns if `turned`. `scale`
    (features): what each is multiplied by.
    """

    source: StoredMatrix | Tensor
    turned: bool = False
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(features, numbers of each)."""
        rows, columns = self.source.shape
        return (columns, rows) if self.turned else (rows, columns)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of features and their numbers: float32 (features, numbers), in a place that the
        next block takes again.

        A place for each block, with what callers keep of it between them, would leave the heap full
        of holes.
        """
        import torch

        held = self._held()
        as_is = held.dtype == torch.float32 and self.scale is None
        max_numbers = BLOCK if held.device.type == "cpu" else BLOCK_ON_GPU
        room = max(min(max_numbers, self.shape[0] * self.shape[1]), self.shape[1])
        buffer = _place(0 if as_is else room, held.device)
        for part in _parts(*self.shape, max_numbers):
            yield part, self._taken(held, part) if as_is else self._converted(held, part, buffer)

    def into(self, rows: Tensor) -> Tensor:
        """(..., numbers) -> (..., features): the product of each row with each feature."""
        import torch

        flat = rows.reshape(-1, rows.shape[-1])
        target = flat.new_empty((len(flat), self.shape[0]))
        for part, block in self.blocks():
            torch.mm(flat, block.T, out=target[:, part])
        return target.view((*rows.shape[:-1], self.shape[0]))

    def out_of(self, tensor: Tensor) -> Tensor:
        """(..., features) -> (..., numbers): the sum of features, each as often as `tensor` says.
        Those that none has are not read.
        """
        held = self._held()
        total = tensor.new_zeros((*tensor.shape[:-1], self.shape[1]))
        for part in _parts(*self.shape):
            share = tensor[..., part]
            used = share.reshape(-1, share.shape[-1]).any(0).nonzero()[:, 0]
            if not len(used):
                continue
            if 2 * len(used) > share.shape[-1]:
                total += share @ self._taken(held, part)
            else:
                total += share[..., used] @ self._taken(held, used + part.start)
        return total

    def rows(self, features: Sequence[int] | Tensor) -> Tensor:
        """The numbers of some features; of a mapped file only their pages are read."""
        import torch

        held = self._held()
        return self._taken(held, torch.as_tensor(features, dtype=torch.long, device=held.device))

    def lengths(self) -> Tensor:
        """The length of each feature."""
        import torch

        if not self.turned:
            return torch.cat([torch.linalg.vector_norm(block, dim=1) for _, block in self.blocks()])
        squares, buffer = torch.zeros(self.shape[0], dtype=torch.float64), None
        for _, block in Matrix(self.source).blocks():
            buffer = _place(block.numel(), block.device) if buffer is None else buffer
            squares += torch.square(block, out=buffer[: block.numel()].view(block.shape)).sum(0)
        return (
            squares.sqrt().float()
            if self.scale is None
            else squares.sqrt().float() * self.scale.abs()
        )

    def on(self, device: Any) -> Matrix:
        """The same on a device; what is on the CPU stays in its file."""
        import torch

        target_device, scale = (
            torch.device(device),
            None if self.scale is None else self.scale.to(device),
        )
        if isinstance(self.source, StoredMatrix) and target_device.type == "cpu":
            return self
        held = self._held()
        if held.ndim == 3 or held.dtype == torch.float64:
            held = Matrix(self.source)._taken(held, slice(None))
        return Matrix(held.to(target_device), self.turned, scale)

    def _held(self) -> Tensor:
        return self.source.open() if isinstance(self.source, StoredMatrix) else self.source

    def _taken(self, held: Tensor, features: slice | Tensor) -> Tensor:
        """Some features as float32 rows, scaled."""
        taken = self._typed(held[:, features] if self.turned else held[features]).float()
        taken = taken.T if self.turned else taken
        return taken if self.scale is None else taken * self.scale[features, None]

    def _converted(self, held: Tensor, part: slice, buffer: Tensor) -> Tensor:
        """The same, put at a place."""
        part_rows = held[:, part] if self.turned else held[part]
        into = buffer[: part_rows.shape[0] * part_rows.shape[1]].view(part_rows.shape[:2])
        into.copy_(self._typed(part_rows))
        into = into.T if self.turned else into
        return into if self.scale is None else into.mul_(self.scale[part, None])

    def _typed(self, tensor: Tensor) -> Tensor:
        """Numbers, also from bytes at an odd place."""
        import torch

        if tensor.ndim == 2 or not isinstance(self.source, StoredMatrix):
            return tensor
        return tensor.contiguous().view(getattr(torch, self.source.dtype))[..., 0]


def _parts(count: int, numbers: int, max_numbers: int = BLOCK) -> Iterator[slice]:
    """Ranges of features that make a block each."""
    step = max(1, max_numbers // numbers)
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def _place(numbers: int, device: Any) -> Tensor:
    """Room for float32 numbers. Much of it on the CPU is mapped: it goes back to the system when it
    is let go, whoever allocates beside.
    """
    import torch

    if device.type != "cpu" or numbers < MAPPED:
        return torch.empty(numbers, device=device)
    return torch.frombuffer(
        mmap.mmap(-1, 4 * numbers, access=mmap.ACCESS_COPY), dtype=torch.float32
    )


@lru_cache(maxsize=1024)
def bad_numbers(source: StoredMatrix) -> int:
    """How many are NaN or infinite in float32; a file that was looked through once is not read
    again for that.
    """
    held = source.open()
    if (
        held.ndim == 2
        and held.itemsize <= 4
        and all(bool(end.isfinite()) for end in held.aminmax())
    ):
        return 0
    return sum(int((~block.isfinite()).sum()) for _, block in Matrix(source).blocks())
