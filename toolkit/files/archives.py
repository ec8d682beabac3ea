"""Write NumPy archives as a stream: a matrix block by block, with one block in memory. Equal arrays
give equal bytes. Sinks and `toolkit store export` write their archives with this.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

DATE = (1980, 1, 1, 0, 0, 0)
"""The same date for all members, so that equal arrays give equal bytes."""
BLOCK_BYTES = 4 << 20


class Member(NamedTuple):
    """An array of an archive."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    blocks: Iterable[Any]
    """Its rows, some at a time."""


class _Pieces:
    """A write-only file: `take` returns what was written since the last call."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: all bytes are held here."""

    def take(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data


def archive(arrays: Iterable[Member]) -> Iterator[bytes]:
    """The bytes of an archive of arrays."""
    import numpy as np

    out = _Pieces()
    packing: Any = out  # write-only, which the type of ZipFile does not allow
    with zipfile.ZipFile(packing, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, dtype, shape, blocks in arrays:
            info = zipfile.ZipInfo(f"{name}.npy", DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            with packed.open(info, "w", force_zip64=True) as member:
                facts = {
                    "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_2_0(member, facts)
                for block in blocks:
                    member.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
                    yield out.take()
    yield out.take()


def whole(name: str, array: Any) -> Member:
    """An array or number that is already in memory."""
    return Member(name, array.dtype, array.shape, [array])


def texts(name: str, rows: int, width: int, text_of: Callable[[int], str]) -> Member:
    """Texts as NumPy's fixed-width strings of `width` characters, some rows at a time."""
    import numpy as np

    kind = np.dtype(f"U{max(1, width)}")
    step = max(1, BLOCK_BYTES // kind.itemsize)
    blocks = (
        np.array([text_of(row) for row in range(index, min(index + step, rows))], dtype=kind)
        for index in range(0, rows, step)
    )
    return Member(name, kind, (rows,), blocks)


def dense(name: str, rows: int, width: int, fill: Callable[[int, int, Any], None]) -> Member:
    """A float32 matrix that `fill(first, last, block)` writes into, some rows at a time."""
    import numpy as np

    step = max(1, BLOCK_BYTES // (4 * width))

    def blocks() -> Iterator[Any]:
        for first in range(0, rows, step):
            block = np.zeros((min(step, rows - first), width), dtype=np.float32)
            fill(first, first + len(block), block)
            yield block

    return Member(name, np.float32, (rows, width), blocks())
