"""A weight matrix in its file: mapped while it is used, and converted to float32 one block of
features at a time.

An SAE so costs only the pages of its file, which processes of a host share and the system may
reclaim, and never a private copy.
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
"""Numbers per block: 8 MB in float32."""
BLOCK_ON_GPU = 1 << 27
"""The same on a GPU, which large products keep busy: 512 MB."""
MAPPED = 1 << 18
"""From this many numbers on a buffer is mapped memory instead of heap: 1 MB in float32."""


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix in a file, from byte `start` on. `stamp` tells whether the file is still the one
    that was checked.
    """

    file: Path
    start: int
    dtype: str
    shape: tuple[int, int]
    stamp: tuple[int, int, int]

    def open(self) -> Tensor:
        """The numbers, mapped; as (rows, columns, bytes) where the file has them at an unaligned
        offset.
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
            mapped = mmap.mmap(
                file.fileno(),
                below + count * kind.itemsize,
                access=mmap.ACCESS_COPY,
                offset=self.start - below,
            )
        if self.start % kind.itemsize == 0:
            return torch.frombuffer(mapped, dtype=kind, count=count, offset=below).view(self.shape)
        return torch.frombuffer(mapped, dtype=torch.uint8, offset=below).view(
            *self.shape, kind.itemsize
        )


def stamp(file: Path) -> tuple[int, int, int]:
    """A value that changes when a file is rewritten."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Matrix:
    """The vector of each feature: rows of the stored matrix, or its columns if `turned`. `scale`
    (features) multiplies each.
    """

    source: StoredMatrix | Tensor
    turned: bool = False
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(features, numbers per feature)."""
        rows, columns = self.source.shape
        return (columns, rows) if self.turned else (rows, columns)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of features with their vectors: float32 (features, numbers), in a buffer that the
        next block reuses.

        A new buffer per block, next to what callers keep, would fragment the heap.
        """
        import torch

        stored = self._stored()
        as_is = stored.dtype == torch.float32 and self.scale is None
        max_numbers = BLOCK if stored.device.type == "cpu" else BLOCK_ON_GPU
        room = max(min(max_numbers, self.shape[0] * self.shape[1]), self.shape[1])
        buffer = _buffer(0 if as_is else room, stored.device)
        for part in _parts(*self.shape, max_numbers):
            yield (
                part,
                self._taken(stored, part) if as_is else self._converted(stored, part, buffer),
            )

    def into(self, rows: Tensor) -> Tensor:
        """(..., numbers) -> (..., features): the product of each row with each feature."""
        import torch

        flat = rows.reshape(-1, rows.shape[-1])
        target = flat.new_empty((len(flat), self.shape[0]))
        for part, block in self.blocks():
            torch.mm(flat, block.T, out=target[:, part])
        return target.view((*rows.shape[:-1], self.shape[0]))

    def out_of(self, tensor: Tensor) -> Tensor:
        """(..., features) -> (..., numbers): the sum of feature vectors weighted by `tensor`.
        Features with no weight are not read.
        """
        stored = self._stored()
        total = tensor.new_zeros((*tensor.shape[:-1], self.shape[1]))
        for part in _parts(*self.shape):
            share = tensor[..., part]
            used = share.reshape(-1, share.shape[-1]).any(0).nonzero()[:, 0]
            if not len(used):
                continue
            if 2 * len(used) > share.shape[-1]:
                total += share @ self._taken(stored, part)
            else:
                total += share[..., used] @ self._taken(stored, used + part.start)
        return total

    def rows(self, features: Sequence[int] | Tensor) -> Tensor:
        """The vectors of some features; of a mapped file only their pages are read."""
        import torch

        stored = self._stored()
        return self._taken(
            stored, torch.as_tensor(features, dtype=torch.long, device=stored.device)
        )

    def lengths(self) -> Tensor:
        """The norm of each feature vector."""
        import torch

        if not self.turned:
            return torch.cat([torch.linalg.vector_norm(block, dim=1) for _, block in self.blocks()])
        squares, buffer = torch.zeros(self.shape[0], dtype=torch.float64), None
        for _, block in Matrix(self.source).blocks():
            buffer = _buffer(block.numel(), block.device) if buffer is None else buffer
            squares += torch.square(block, out=buffer[: block.numel()].view(block.shape)).sum(0)
        return (
            squares.sqrt().float()
            if self.scale is None
            else squares.sqrt().float() * self.scale.abs()
        )

    def on(self, device: Any) -> Matrix:
        """The same on a device; on the CPU the numbers stay in the file."""
        import torch

        target_device, scale = (
            torch.device(device),
            None if self.scale is None else self.scale.to(device),
        )
        if isinstance(self.source, StoredMatrix) and target_device.type == "cpu":
            return self
        stored = self._stored()
        if stored.ndim == 3 or stored.dtype == torch.float64:
            stored = Matrix(self.source)._taken(stored, slice(None))
        return Matrix(stored.to(target_device), self.turned, scale)

    def _stored(self) -> Tensor:
        return self.source.open() if isinstance(self.source, StoredMatrix) else self.source

    def _taken(self, stored: Tensor, features: slice | Tensor) -> Tensor:
        """Some features as float32 rows, scaled."""
        taken = self._typed(stored[:, features] if self.turned else stored[features]).float()
        taken = taken.T if self.turned else taken
        return taken if self.scale is None else taken * self.scale[features, None]

    def _converted(self, stored: Tensor, part: slice, buffer: Tensor) -> Tensor:
        """The same, written into a buffer."""
        part_rows = stored[:, part] if self.turned else stored[part]
        into = buffer[: part_rows.shape[0] * part_rows.shape[1]].view(part_rows.shape[:2])
        into.copy_(self._typed(part_rows))
        into = into.T if self.turned else into
        return into if self.scale is None else into.mul_(self.scale[part, None])

    def _typed(self, tensor: Tensor) -> Tensor:
        """Numbers, also from unaligned bytes."""
        import torch

        if tensor.ndim == 2 or not isinstance(self.source, StoredMatrix):
            return tensor
        return tensor.contiguous().view(getattr(torch, self.source.dtype))[..., 0]


def _parts(count: int, numbers: int, max_numbers: int = BLOCK) -> Iterator[slice]:
    """Ranges of features, one per block."""
    step = max(1, max_numbers // numbers)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _buffer(numbers: int, device: Any) -> Tensor:
    """A buffer of float32 numbers. A large one on the CPU is mapped memory, which returns to the
    system when it is released.
    """
    import torch

    if device.type != "cpu" or numbers < MAPPED:
        return torch.empty(numbers, device=device)
    return torch.frombuffer(
        mmap.mmap(-1, 4 * numbers, access=mmap.ACCESS_COPY), dtype=torch.float32
    )


@lru_cache(maxsize=1024)
def bad_numbers(source: StoredMatrix) -> int:
    """How many numbers are NaN or infinite in float32; remembered, so that a file is read for it
    once.
    """
    mapped = source.open()
    if (
        mapped.ndim == 2
        and mapped.itemsize <= 4
        and all(bool(end.isfinite()) for end in mapped.aminmax())
    ):
        return 0
    return sum(int((~block.isfinite()).sum()) for _, block in Matrix(source).blocks())
