"""Files that a spec names: where they are, what they hold, and whether they are complete. Reads
headers, never weights.

path: package:toolkit_lab/files/model     inside an installed Python package
path: ../models/llama                     relative to the spec
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Iterable, Mapping
from importlib import util
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from toolkit.errors import BadInput

PACKAGE = "package:"
WHOLE_BYTES = 64 << 20
"""Files up to this size are hashed completely; of larger ones, the header, the size and sixteen
blocks.
"""

SHOWN = 8
"""Names in a folder that an error lists."""


def _placed(value: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None or value.startswith(PACKAGE):
        return value
    return str((Path(folder) / Path(value).expanduser()).resolve())


PathText = Annotated[str, AfterValidator(_placed)]
"""Make the path of a params field absolute, relative to the spec's folder; `package:` paths stay as
they are.
"""


def locate(text: str) -> Path:
    """The file or folder that a `PathText` names; a missing one is an error."""
    if not text.startswith(PACKAGE):
        return _there(Path(text), text)
    package, _, rest = text.removeprefix(PACKAGE).partition("/")
    spec = util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"{text}: there is no installed package '{package}'. Install it, or name a folder "
            "instead."
        )
    return _there(Path(next(iter(spec.submodule_search_locations))) / rest, text)


def _there(path: Path, text: str) -> Path:
    if path.exists():
        return path
    near = next((parent for parent in path.parents if parent.is_dir()), None)
    names = sorted(entry.name for entry in near.iterdir()) if near else []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise BadInput(
        f"{text}: {path} does not exist. {near} holds: "
        f"{', '.join(names[:SHOWN]) or 'nothing'}{more}."
    )


def check_link(file: Path, root: Path) -> None:
    """Refuse a link that leads out of its folder or, in a hub cache, out of its repository."""
    above = {*root.absolute().parents, *root.resolve().parents}
    caches = [
        home.resolve()
        for home in above
        if home.name.startswith("models--") and (home / "snapshots").is_dir()
    ]
    target, homes = file.resolve(), [root.resolve(), *caches]
    if not any(target.is_relative_to(home) for home in homes):
        raise BadInput(
            f"{file} is a link that leads out of {root}, to {target}. Put the file itself there."
        )


def content_digest(files: Mapping[str, Path]) -> str:
    """One hash over the names and contents of files, independent of their location."""
    parts = {name: file_digest(path) for name, path in sorted(files.items())}
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; of a large one, of its size and sixteen blocks spread over it."""
    check_regular(path)
    size = path.stat().st_size
    if size <= WHOLE_BYTES:
        return sha256_of(path)
    with path.open("rb") as file:
        seen = hashlib.sha256(str(size).encode())
        for block in range(16):
            file.seek(block * (size - (1 << 20)) // 15)
            seen.update(file.read(1 << 20))
    return f"sampled-{seen.hexdigest()}"


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file: reading a pipe or device would block forever."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return
    kind = next((text for test, text in _KINDS if test(mode)), "not a regular file")
    raise BadInput(f"{path} is {kind}, not a file. Put the file itself there.")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Names, dtypes, shapes and offsets of the tensors in a file. The lengths of tensors have to
    match their shapes, and they have to fill the file without gaps.
    """
    check_regular(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= min(size, HEADER_BYTES) else b""
    try:
        known = json.loads(text, object_pairs_hook=_without_repeats)
        header: dict[str, dict[str, Any]] = {
            name: facts for name, facts in known.items() if name != "__metadata__"
        }
        lengths = {name: _tensor_bytes(facts) for name, facts in header.items()}
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        raise BadInput(
            f"{path} is not a safetensors file: it has no readable header. Copy or download it "
            "again."
        ) from None
    needed = 8 + length + _laid_out(path, header, lengths)
    if size != needed:
        how = "cut off" if size < needed else "too long"
        raise BadInput(
            f"{path} is {how}: its header promises {needed:,} bytes, it has {size:,}. Copy or "
            "download it again."
        )
    return header


HEADER_BYTES = 100 << 20
"""The longest header that safetensors allows."""
TENSOR_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of a number, by the names that safetensors has for dtypes."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys: a repeated one would hide a tensor."""
    results = dict(pairs)
    if len(results) != len(pairs):
        raise ValueError("a key is repeated")
    return results


def _tensor_bytes(facts: dict[str, Any]) -> int:
    """The number of bytes of a tensor of this dtype and shape."""
    start, end = facts["data_offsets"]
    for number in (start, end, *facts["shape"]):
        if type(number) is not int or number.bit_length() > 63:
            raise ValueError(f"{number!r} is not a whole number")
    if any(number < 0 for number in facts["shape"]):
        raise ValueError("a shape below zero")
    bits: int = TENSOR_BITS[facts["dtype"]] * math.prod(facts["shape"])
    return -(-bits // 8)


def _laid_out(
    path: Path, header: Mapping[str, Mapping[str, Any]], lengths: Mapping[str, int]
) -> int:
    """The end of the last tensor, after checking that each tensor begins where the previous one
    ends.
    """
    end = 0
    for name in sorted(header, key=lambda name: tuple(header[name]["data_offsets"])):
        first, last = header[name]["data_offsets"]
        if last - first != lengths[name]:
            raise BadInput(
                f"{path}: tensor '{name}' is {header[name]['shape']} of {header[name]['dtype']}, "
                f"{lengths[name]:,} bytes, but its offsets {first} to {last} hold "
                f"{last - first:,}. Copy or download it again."
            )
        if first != end:
            how = (
                "overlaps the previous one"
                if first < end
                else "leaves a gap after the previous one"
            )
            raise BadInput(
                f"{path}: tensor '{name}' {how}: it begins at byte {first}, and the "
                f"previous tensors end at {end}. Copy or download it again."
            )
        end = last
    return end


JSON_BYTES = 64 << 20
"""The longest JSON file that is read."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        check_regular(path)
        if path.stat().st_size > JSON_BYTES:
            raise ValueError(
                f"it has {path.stat().st_size:,} bytes, a config at most {JSON_BYTES:,}"
            )
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} cannot be read as JSON: {error}. Copy or download it again."
        ) from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds a {type(content).__name__}; it must hold a JSON object.")
    return content


def listed(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """Files of a folder that match, by name."""
    return {path.name: path for pattern in patterns for path in sorted(folder.glob(pattern))}
