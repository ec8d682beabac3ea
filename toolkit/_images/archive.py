"""Image archives for `docker load`, with the same bytes on every build.

Everything that depends on when or where an image was built is fixed: the order of files, their
times, names of users, and the image's configuration. Equal contents therefore give equal IDs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from toolkit.errors import BadInput

BLOCK = 1 << 20


def source_date_epoch() -> int:
    """The time of every file in an image: SOURCE_DATE_EPOCH, else 1970."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not re.fullmatch("[0-9]{1,10}", text):
        raise BadInput(f"SOURCE_DATE_EPOCH={text}: must be seconds since 1970, such as 1700000000.")
    return int(text)


def creation_time() -> str:
    """The same time in ISO 8601, as image configurations have it."""
    return datetime.fromtimestamp(source_date_epoch(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class LayerWriter:
    """Adds entries to a layer, parents first, with fixed times and owners."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._written: set[str] = set()

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and its parents."""
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if name not in self._written:
                last = count == len(parts)
                self._add(name, type=tarfile.DIRTYPE, mode=mode if last else 0o755)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(path)
        self._add(path.strip("/"), type=tarfile.SYMTYPE, linkname=target, mode=0o777)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        self._parents(path)
        self._add(path.strip("/"), data, mode=mode)

    def _parents(self, path: str) -> None:
        if "/" in path.strip("/"):
            self.folder(path.strip("/").rpartition("/")[0])

    def _add(self, name: str, data: bytes | None = None, **fields: Any) -> None:
        if name in self._written:
            return
        self._written.add(name)
        entry = tarfile.TarInfo(name)
        entry.mtime = source_date_epoch()
        for field, value in fields.items():
            setattr(entry, field, value)
        entry.size = len(data or b"")
        self._tar.addfile(entry, BytesIO(data) if data is not None else None)


def split_layers(exported: Path, below: Path, above: Path, toolkit_list: str) -> None:
    """Rewrite an exported file system as two layers, with entries sorted by name and fixed times.
    The upper layer gets the files that are listed in `toolkit_list`, a file of the image. The lower
    layer gets all others, which are the same for every version of the toolkit.
    """
    with tarfile.open(exported) as source:
        toolkit_files = _names_in(source, toolkit_list)
        # Hard links come after the files that they name.
        entries = sorted(source.getmembers(), key=lambda entry: (entry.islnk(), entry.name))
        toolkit_folders = _folders_of(toolkit_files)
        other_folders = _folders_of(_others(entries, toolkit_files))
        with _layer(below) as lower, _layer(above) as upper:
            for entry in entries:
                if entry.name == ".dockerenv":
                    continue
                # A folder with files of both kinds is in both layers: otherwise the engine would
                # create it for the upper layer, with the time of unpacking.
                if entry.name in toolkit_files or entry.name in toolkit_folders:
                    _copy_entry(source, upper, entry)
                if entry.name not in toolkit_files and (
                    entry.name in other_folders or entry.name not in toolkit_folders
                ):
                    _copy_entry(source, lower, entry)


def _names_in(source: tarfile.TarFile, toolkit_list: str) -> frozenset[str]:
    listed = source.extractfile(toolkit_list)
    assert listed is not None, f"{toolkit_list} is not a file"
    return frozenset(listed.read().decode().splitlines())


def _others(entries: Iterable[tarfile.TarInfo], toolkit_files: frozenset[str]) -> Iterator[str]:
    return (
        entry.name for entry in entries if not entry.isdir() and entry.name not in toolkit_files
    )


def _folders_of(names: Iterable[str]) -> set[str]:
    """The parent folders of these files."""
    return {str(folder) for name in names for folder in PurePosixPath(name).parents}


def _layer(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "w", format=tarfile.GNU_FORMAT)


def _copy_entry(source: tarfile.TarFile, target: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    entry.mtime = source_date_epoch()
    entry.uname = entry.gname = ""
    entry.pax_headers = {}
    target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)


@dataclass(frozen=True)
class Archived:
    """A written archive: the image's ID and the digests of its layers, lowest first."""

    id: str
    layers: tuple[str, ...]


def image_archive(
    path: Path, tag: str, layers: Sequence[IO[bytes]], config: Mapping[str, Any]
) -> Archived:
    """Write an archive of an image to `path`."""
    created = creation_time()
    measured = [_digest(layer) for layer in layers]
    digests = tuple(f"sha256:{digest}" for digest, _ in measured)
    description = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": list(digests)},
        "history": [{"created": created, "created_by": "toolkit images build"} for _ in layers],
    }
    written = json.dumps(description, sort_keys=True).encode()
    id = hashlib.sha256(written).hexdigest()
    names = [f"{digest}/layer.tar" for digest, _ in measured]
    manifest = [{"Config": f"{id}.json", "RepoTags": [tag], "Layers": names}]
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            _add_bytes(tar, f"{id}.json", written)
            for name, layer, (_, size) in zip(names, layers, measured, strict=True):
                entry = tarfile.TarInfo(name)
                entry.size = size
                tar.addfile(entry, layer)
            _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
    os.replace(file.name, path)
    return Archived(f"sha256:{id}", digests)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, BytesIO(data))


def _digest(file: IO[bytes]) -> tuple[str, int]:
    """The SHA-256 and the size of a file, which is rewound to its beginning."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(BLOCK):
        digest.update(block)
        size += len(block)
    file.seek(0)
    return digest.hexdigest(), size
