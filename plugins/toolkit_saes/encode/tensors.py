"""Reads tensors from files: headers first, weights later; nothing that could run code, inflate
without bound or hide a bad number.

Only safetensors and NumPy archives are opened. Pickles (`.pt`, `.bin`, arrays of objects) are
refused by their kind, unread.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, DataError, choices
from toolkit.files.local import check_regular, safetensors_header
from toolkit_saes.encode.matrix import Matrix, StoredMatrix, bad_numbers, stamp

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Names of dtypes in safetensors, and in torch."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError)
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
INFLATES, INFLATED = 100, 64 << 20
"""An archive that expands by more than this factor, to more than this many bytes, is refused."""


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name, from the header; a tensor that is not floating point is an error."""
    results = {}
    for name, facts in safetensors_header(file).items():
        if facts.get("dtype") not in FLOATS:
            raise BadInput(
                f"{file}: {name} is of dtype {facts.get('dtype')}; weights are {choices(FLOATS)}."
            )
        results[name] = tuple(int(size) for size in facts["shape"])
    return results


def safetensors_weights(file: Path, names: Iterable[str]) -> dict[str, Any]:
    """The named tensors, checked to be finite: matrices stay in their file, everything else becomes
    float32.
    """
    start, header = data_start(file), safetensors_header(file)
    return {
        name: _checked(file, name, _in_safetensors(file, start, header[name])) for name in names
    }


def data_start(file: Path) -> int:
    """The offset of the data in a safetensors file."""
    with file.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def _in_safetensors(file: Path, start: int, facts: Mapping[str, Any]) -> StoredMatrix | Tensor:
    shape = tuple(int(size) for size in facts["shape"])
    index = start + int(facts["data_offsets"][0])
    if len(shape) == 2:
        return StoredMatrix(file, index, FLOATS[facts["dtype"]], shape, stamp(file))
    flat = StoredMatrix(file, index, FLOATS[facts["dtype"]], (1, math.prod(shape)), stamp(file))
    return Matrix(flat).rows([0]).view(shape)


def archive_shapes(file: Path, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the named arrays in a NumPy archive, from headers; objects, unknown dtypes and zip
    bombs are errors.
    """
    check_regular(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            _check_size(file, sum(info.file_size for info in archive.infolist()))
            return {
                name: _array_shape(file, archive, members[f"{name}.npy"])
                for name in names
                if f"{name}.npy" in members
            }
    except UNREADABLE as error:
        problem = f"{file} cannot be read ({error}): it is cut off, or not a NumPy archive."
        raise BadInput(f"{problem} Copy or download it again.") from None


def archive_weights(file: Path, names: Iterable[str]) -> dict[str, Any]:
    """The named arrays, checked to be finite: matrices stay in their file unless compressed,
    everything else becomes float32.
    """
    names = list(names)
    archive_shapes(file, names)
    _check_sums(file, tuple(names), stamp(file))
    try:
        with zipfile.ZipFile(file) as archive:
            results = {
                name: _in_archive(file, archive, archive.getinfo(f"{name}.npy")) for name in names
            }
    except UNREADABLE as error:
        raise BadInput(
            f"{file} cannot be read ({error}): it is damaged. Copy or download it again."
        ) from None
    return {name: _checked(file, name, array) for name, array in results.items()}


@lru_cache(maxsize=1024)
def _check_sums(file: Path, names: tuple[str, ...], _: tuple[int, int, int]) -> None:
    """Check every array against the archive's checksum, once while the file is unchanged."""
    try:
        with zipfile.ZipFile(file) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    while member.read(1 << 20):
                        pass
    except UNREADABLE as error:
        raise BadInput(
            f"{file} cannot be read ({error}): it is damaged. Copy or download it again."
        ) from None


def _in_archive(
    file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> StoredMatrix | Tensor:
    import numpy as np
    import torch

    with archive.open(info) as member:
        shape, by_column, dtype, start = _array_header(member)
        if (
            info.compress_type != zipfile.ZIP_STORED
            or dtype.byteorder == ">"
            or by_column
            or len(shape) != 2
        ):
            member.seek(0)
            return torch.from_numpy(
                np.asarray(
                    np.lib.format.read_array(member, allow_pickle=False),
                    dtype=np.float32,
                    order="C",
                )
            )
    with file.open("rb") as opened:
        opened.seek(info.header_offset + 26)
        names, extra = (int.from_bytes(opened.read(2), "little") for _ in range(2))
    index = info.header_offset + 30 + names + extra + start
    return StoredMatrix(file, index, dtype.name, (int(shape[0]), int(shape[1])), stamp(file))


def _check_size(file: Path, inflated: int) -> None:
    packed = file.stat().st_size
    if inflated > max(INFLATED, INFLATES * packed):
        raise BadInput(
            f"{file} would grow from {packed:,} to {inflated:,} bytes: weights do not compress "
            "that well. It is not opened."
        )


def _array_shape(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    import numpy as np

    with archive.open(info) as member:
        shape, _, dtype, start = _array_header(member)
    name = info.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise BadInput(
            f"{file}: {name} holds Python objects (a pickle), which could run code. It is not "
            "opened."
        )
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise BadInput(
            f"{file}: {name} is of dtype {dtype}; weights are float16, float32, float64."
        )
    promised = start + dtype.itemsize * int(np.prod(shape, dtype=object))
    if promised != info.file_size:
        raise BadInput(
            f"{file}: {name} is cut off or too long: its header promises {promised:,} bytes, it "
            f"has {info.file_size:,}."
        )
    return tuple(int(size) for size in shape)


def _array_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, dtype, and offset of the data."""
    import numpy as np

    version = np.lib.format.read_magic(member)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return (*read(member), member.tell())


def _checked(file: Path, name: str, matrix: StoredMatrix | Tensor) -> StoredMatrix | Tensor:
    """The tensor; an error if any number is not finite."""
    bad = (
        bad_numbers(matrix) if isinstance(matrix, StoredMatrix) else int((~matrix.isfinite()).sum())
    )
    if bad:
        raise DataError(
            f"{file}: {bad:,} of {math.prod(matrix.shape):,} numbers of {name} are NaN or "
            "infinite. Copy or download it again, or use another SAE."
        )
    return matrix


def check_axes(file: Path, inputs: int, width: int, outputs: int) -> None:
    """Refuse an SAE with as many features as inputs or outputs: swapped axes could not be
    noticed.
    """
    if width in (inputs, outputs):
        raise BadInput(
            f"{file}: it has {width} features and {inputs} inputs, {outputs} outputs: which axis "
            "is which cannot be checked. SAEs with as many features as inputs are not read."
        )


def check_shapes(
    file: Path,
    shapes: Shapes,
    expected: Mapping[str, tuple[int, ...]],
    *,
    config: str,
    missing: str,
) -> None:
    """Check that a file has the tensors that `config` promises, in their shapes. `missing` ends
    the message about a tensor that is not there.
    """
    for name, shape in expected.items():
        if name not in shapes:
            raise BadInput(f"{file} has no tensor '{name}'{missing}.")
        if tuple(shapes[name]) != shape:
            problem = f"{file}: {name} is {list(shapes[name])}; {config} promises {list(shape)}."
            raise BadInput(problem + swapped(tuple(shapes[name]), shape))


def swapped(results: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to add to a message about a wrong shape."""
    return " Its axes are swapped." if results == expected[::-1] and len(set(expected)) > 1 else ""


def refuse_pickles(folder: Path) -> None:
    """Refuse weights that exist only as a pickle."""
    results = (
        sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if folder.is_dir()
        else []
    )
    if results:
        raise BadInput(
            f"{folder}: {results[0]} is a pickle, which could run code. It is not opened. Convert "
            "it to safetensors where you trust it."
        )
