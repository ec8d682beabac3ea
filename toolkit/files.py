"""Files that a spec names: where they are, what they hold, and whether they are whole. Reads
headers, never weights.

path: package:toolkit_lab/files/model     inside an installed Python package
path: ../models/llama                     relative to the spec
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import util
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from toolkit.errors import BadInput

PACKAGE = "package:"
WHOLE_BYTES = 64 << 20
"""Files up to this size are hashed whole; of larger ones the header, the size and sixteen blocks.
"""

SHOWN = 8
"""Names in a folder that an error lists."""


def _placed(value: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None or value.startswith(PACKAGE):
        return value
    return str((Path(folder) / Path(value).expanduser()).resolve())


PathText = Annotated[str, AfterValidator(_placed)]
"""A params field that holds a path: made absolute against the spec's folder, `package:` left as it
is.
"""


def locate(text: str) -> Path:
    """The file or folder that a `PathText` names; an error if it is not there."""
    if not text.startswith(PACKAGE):
        return _there(Path(text), text)
    package, _, rest = text.removeprefix(PACKAGE).partition("/")
    found = util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise BadInput(
            f"{text}: there is no installed package '{package}'. Install it, or name a folder "
            "instead."
        )
    return _there(Path(next(iter(found.submodule_search_locations))) / rest, text)


def _there(path: Path, text: str) -> Path:
    if path.exists():
        return path
    near = next((parent for parent in path.parents if parent.is_dir()), None)
    names = sorted(entry.name for entry in near.iterdir()) if near else []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise BadInput(
        f"{text}: there is nothing at {path}. {near} holds: "
        f"{', '.join(names[:SHOWN]) or 'nothing'}{more}."
    )


def check_link(file: Path, root: Path) -> None:
    """A file of a folder is in it, or, where the folder is in a hub cache, in its repository; a
    link that leaves both is an error.
    """
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
    """One hash of named files by what they hold, wherever they lie."""
    parts = {name: file_digest(path) for name, path in sorted(files.items())}
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; of a large one, of its size and sixteen blocks spread over it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        seen = hashlib.sha256(str(size).encode())
        for block in range(16):
            file.seek(block * (size - (1 << 20)) // 15)
            seen.update(file.read(1 << 20))
    return f"sampled-{seen.hexdigest()}"


def safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Names, dtypes and shapes of the tensors in a file, after checking that the file is as long as
    they need.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= min(size, 100 << 20) else b""
    try:
        header: dict[str, dict[str, Any]] = {
            name: facts for name, facts in json.loads(text).items() if name != "__metadata__"
        }
        wanted = (
            8
            + length
            + max((int(facts["data_offsets"][1]) for facts in header.values()), default=0)
        )
    except (ValueError, AttributeError, LookupError, TypeError):
        raise BadInput(
            f"{path} is no safetensors file: it has no readable header. Copy or download it again."
        ) from None
    if size != wanted:
        how = "cut off" if size < wanted else "too long"
        raise BadInput(
            f"{path} is {how}: its header promises {wanted:,} bytes, it has {size:,}. Copy or "
            "download it again."
        )
    return header


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read as JSON: {error}. Copy or download it again."
        ) from None
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds a {type(found).__name__}; wanted a JSON object.")
    return found


def listed(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """Files of a folder that match, by name."""
    return {path.name: path for pattern in patterns for path in sorted(folder.glob(pattern))}
