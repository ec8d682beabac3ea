"""Image archives with the same bytes on every build: `docker load` reads them.

Everything that depends on when or where an image was built is fixed: the order of files, their
times, names of users, and the image's configuration. Equal contents therefore give equal IDs.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any

BLOCK = 1 << 20


def source_date_epoch() -> int:
    """The time that every file of an image bears: SOURCE_DATE_EPOCH, else 1970."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


class LayerWriter:
    """Adds entries to a layer, parents first, with fixed times and owners."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._written: set[str] = set()

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and those above it."""
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


def sorted_layer(exported: Path, layer: Path) -> None:
    """Rewrite an exported file system as a layer: entries in order of names, times fixed."""
    with (
        tarfile.open(exported) as source,
        tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as target,
    ):
        # Hard links come after the files that they name.
        for entry in sorted(source.getmembers(), key=lambda one: (one.islnk(), one.name)):
            entry.mtime = source_date_epoch()
            entry.uname = entry.gname = ""
            entry.pax_headers = {}
            target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)


def image_archive(path: Path, tag: str, layer: IO[bytes], config: Mapping[str, Any]) -> str:
    """Write an archive of one layer to `path`; returns the image's ID."""
    created = datetime.fromtimestamp(source_date_epoch(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest, size = _digest(layer)
    description = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": created, "created_by": "toolkit images build"}],
    }
    written = json.dumps(description, sort_keys=True).encode()
    id = hashlib.sha256(written).hexdigest()
    name = f"{digest}/layer.tar"
    manifest = [{"Config": f"{id}.json", "RepoTags": [tag], "Layers": [name]}]
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            _add_bytes(tar, f"{id}.json", written)
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, layer)
            _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
    os.replace(file.name, path)
    return f"sha256:{id}"


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, BytesIO(data))


def _digest(file: IO[bytes]) -> tuple[str, int]:
    """SHA-256 and size of a file, which is then read from its beginning."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(BLOCK):
        digest.update(block)
        size += len(block)
    file.seek(0)
    return digest.hexdigest(), size
