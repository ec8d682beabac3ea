"""Checks of imported data before anything is written: ids, numbers, sizes.

Files of other programs may be wrong, truncated or malicious. They cannot choose a path, name a step
or run that this store would not make itself, or take more memory than valid data would; errors of
libraries become one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit.errors import DataError, ToolkitError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES = 4 << 30
"""The largest array, archive or row group that is unpacked."""
MAX_JSON = 256 << 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME_LENGTH = 1024
_VALUES = ("activations", "streams")


@contextmanager
def reading(folder: Path, form: str) -> Iterator[None]:
    """Turn a library's error about a broken file into a sentence that names the folder."""
    try:
        yield
    except (ToolkitError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            why = f"{error.strerror}: {error.filename or folder}"
        else:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(
            f"{folder} cannot be used as format '{form}': {why}. Copy the folder or export it "
            "again, or name another one."
        ) from error


def check_id(name: str, value: object, where: object) -> str:
    """Refuse an id that could escape its folder: ids of runs name folders."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise DataError(
            f"{where}: {name} {str(value)[:80]!r} is not an id: letters, digits, '.', '_' and '-', "
            "at most 128, the first a letter or a digit. Export the run again."
        )
    return value


def check_layer(layer: int, where: object) -> int:
    """Refuse a layer that no model has."""
    if not 0 <= layer < 10_000:
        raise DataError(f"{where}: there is no layer {layer}; layers count from 0.")
    return layer


def widths(spaces: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Features of each space."""
    return {str(row["space"]): int(row["width"]) for row in spaces}


def checked(
    name: str, chunks: Iterable[pa.Table] | pa.Table, sizes: Mapping[str, int], where: object
) -> Iterator[pa.Table]:
    """Check the rows of a table, chunk by chunk."""
    import pyarrow as pa

    for chunk in [chunks] if isinstance(chunks, pa.Table) else chunks:
        for column in ("sample", "space", "unit", "key"):
            if column in chunk.column_names:
                _check_names(chunk[column], f"{where}: table '{name}', column '{column}'")
        if name in _VALUES:
            _check_finite(chunk["values"], f"{where}: table '{name}'")
            _check_positions(chunk["position"], f"{where}: table '{name}'")
        if name == "activations":
            _check_entries(chunk, sizes, f"{where}: table '{name}'")
        yield chunk


def _check_names(column: Any, where: str) -> None:
    import pyarrow.compute as pc

    names = pc.unique(column).to_pylist()
    for text in names:
        if text is not None and not _is_name(text):
            raise DataError(
                f"{where}: {text[:80]!r} cannot be a name: it is empty, longer than "
                f"{_NAME_LENGTH} characters, or has control characters."
            )


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _NAME_LENGTH and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text)


def _check_finite(lists: Any, where: str) -> None:
    import pyarrow.compute as pc

    flat = pc.list_flatten(lists)
    if len(flat) and not pc.all(pc.is_finite(flat), skip_nulls=False).as_py():
        raise DataError(
            f"{where}: a value is not a finite number. A failed computation is not an activation: "
            "leave those rows out."
        )


def _check_positions(column: Any, where: str) -> None:
    import pyarrow.compute as pc

    if len(column) and (pc.min(column).as_py() or 0) < 0:
        raise DataError(f"{where}: a position is negative; positions count from 0.")


def _check_entries(chunk: pa.Table, sizes: Mapping[str, int], where: str) -> None:
    import pyarrow.compute as pc

    if not pc.all(
        pc.equal(pc.list_value_length(chunk["features"]), pc.list_value_length(chunk["values"]))
    ).as_py():
        raise DataError(f"{where}: a row has different numbers of values and features.")
    for space in pc.unique(chunk["space"]).to_pylist():
        rows = chunk.filter(pc.equal(chunk["space"], space))
        largest = pc.max(pc.list_flatten(rows["features"])).as_py()
        if space not in sizes:
            raise DataError(
                f"{where}: space {space} has rows, but table 'spaces' does not name it."
            )
        if largest is not None and largest >= sizes[space]:
            raise DataError(
                f"{where}: there is no feature {largest} in space {space}; its width is "
                f"{sizes[space]}."
            )


def whole_numbers(array: Any, kind: str, where: object) -> Any:
    """Convert an array to whole numbers of a type; refuse values that do not fit."""
    import numpy as np

    numbers, limits = np.asarray(array), np.iinfo(kind)
    if numbers.dtype.kind not in "iu":
        raise DataError(f"{where} holds {numbers.dtype}; it must hold whole numbers.")
    if numbers.size and not limits.min <= int(numbers.min()) <= int(numbers.max()) <= limits.max:
        raise DataError(
            f"{where} holds {int(numbers.min())} to {int(numbers.max())}; allowed are {limits.min} "
            f"to {limits.max}."
        )
    return numbers.astype(kind)


def real_numbers(array: Any, where: object) -> Any:
    """An array of finite real numbers."""
    import numpy as np

    numbers = np.asarray(array)
    if numbers.dtype.kind not in "fiub":
        raise DataError(f"{where} holds {numbers.dtype}; it must hold real numbers.")
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise DataError(f"{where} holds values that are not finite numbers; leave those rows out.")
    if numbers.size and float(np.abs(numbers).max()) > float(np.finfo(np.float32).max):
        raise DataError(f"{where} holds values that are too large for float32.")
    return numbers


# --- files ---


def arrays(path: Path, skip: Iterable[str] = ()) -> dict[str, Any]:
    """The arrays of an archive, nothing pickled; each is as large as its header says, and all
    together not larger than `MAX_BYTES`.
    """
    import zipfile

    import numpy as np

    out: dict[str, Any] = {}
    left = MAX_BYTES
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in skip:
                continue
            left -= member.file_size
            if left < 0:
                raise DataError(
                    f"{path}: its arrays are more than {MAX_BYTES:,} bytes unpacked, which are not "
                    "read at once. Split the archive."
                )
            with archive.open(member) as file:
                _check_header(file, member.file_size, f"{path}, array '{name}'")
            with archive.open(member) as file:
                out[name] = np.lib.format.read_array(file, allow_pickle=False)
    return out


def _check_header(file: IO[bytes], size: int, where: str) -> None:
    """Refuse an array whose header promises more, or less, than the archive has."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise DataError(f"{where}: NumPy's format {version} is not read.")
    shape, _, kind = read(file)
    if kind.hasobject:
        raise DataError(f"{where}: it holds Python objects, which are not read.")
    item_bytes = kind.itemsize
    for length in shape:
        item_bytes *= int(length)
    if any(length < 0 for length in shape) or item_bytes != size - file.tell():
        raise DataError(f"{where}: its header does not fit its content.")


def check_json_size(path: Path) -> None:
    """Refuse a JSON file that would fill the memory."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise DataError(f"{path} has {size:,} bytes; at most {MAX_JSON:,} are read.")


def foreign_space(space: str, model: str, hookpoint: str, sae: str, width: int) -> dict[str, Any]:
    """The row of table `spaces` of features whose SAE the files do not describe."""
    return {
        "space": space,
        "model": model,
        "revision": "unknown",
        "hookpoint": hookpoint,
        "sae": sae,
        "sae_hash": None,
        "recipe": "imported: unknown",
        "width": width,
        "address": f"{model}/{hookpoint}/{sae}",
    }
