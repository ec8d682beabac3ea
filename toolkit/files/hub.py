"""Repositories of the Hugging Face hub: what the cache holds, which commit a branch names, and
downloads. HF_HUB_OFFLINE is honoured.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from toolkit.errors import BadInput

Kind = Literal["model", "dataset"]
"""The kind of a repository; a model and a dataset may have the same name."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit; `folder` is None when the cache does not have it."""

    name: str
    revision: str
    folder: Path | None
    kind: Kind = "model"


@dataclass(frozen=True)
class Download:
    """The files that a part reads from a repository, as patterns of their paths."""

    snapshot: Snapshot
    patterns: tuple[str, ...]


def snapshot(
    name: str, revision: str, marker: str, *, published: bool = False, kind: Kind = "model"
) -> Snapshot:
    """The commit behind a revision and its folder in the cache, if that has the file `marker` (a
    glob pattern). `published`: sizes of this commit are known without its files, so that it can be
    planned even if the network is disabled.
    """
    folder = cached(name, revision, marker, kind)
    if folder is not None:
        return Snapshot(name, folder.name, folder, kind)
    pinned = re.fullmatch(r"[0-9a-f]{40}", revision) is not None
    if offline() and not (published and pinned):
        raise BadInput(not_cached(name, revision))
    return Snapshot(name, revision if pinned else _commit(name, revision, kind), None, kind)


def not_cached(name: str, revision: str) -> str:
    """The message for a repository that is not cached while the network is disabled."""
    return (
        f"'{name}' at revision '{revision}' is not in the Hugging Face cache ({cache_folder()}), "
        "and HF_HUB_OFFLINE disables downloads. Unset HF_HUB_OFFLINE, name a cached revision, "
        "or a folder with `path:`."
    )


def offline() -> bool:
    """Whether the user has disabled the network."""
    setting = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return setting.upper() in ("1", "ON", "YES", "TRUE")


def fetch(snapshot: Snapshot, patterns: Sequence[str]) -> Path:
    """Download the matching files into the cache; cached files are not fetched again."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                snapshot.name,
                revision=snapshot.revision,
                allow_patterns=list(patterns),
                **_repo_type(snapshot.kind),
            )
        )
    except Exception as error:
        raise BadInput(unreachable(snapshot.name, snapshot.revision, error)) from None


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its path there, its size in bytes, and its SHA-256 where the hub
    keeps it as a large file.
    """

    path: str
    size: int
    sha256: str | None = None


def repository_files(snapshot: Snapshot, patterns: Sequence[str]) -> list[HubFile]:
    """The matching files of a repository at a commit, as the hub lists them."""
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().repo_info(
            snapshot.name,
            revision=snapshot.revision,
            files_metadata=True,
            **_repo_type(snapshot.kind),
        )
    except Exception as error:
        raise BadInput(unreachable(snapshot.name, snapshot.revision, error)) from None
    files = [hub_file(file) for file in info.siblings or ()]
    return [file for file in files if _matches(file.path, patterns)]


def listed_files(snapshot: Snapshot) -> list[HubFile]:
    """All files of a commit. The list is kept next to the cache's copy of the repository, so that
    it is known offline which files there are.
    """
    listing_file = (
        _repository(snapshot.name, snapshot.kind) / "toolkit" / f"{snapshot.revision}.json"
    )
    with contextlib.suppress(OSError, ValueError, TypeError):
        return [HubFile(**entry) for entry in json.loads(listing_file.read_text(encoding="utf-8"))]
    if offline():
        raise BadInput(not_cached(snapshot.name, snapshot.revision))
    files = [file for file in repository_files(snapshot, ["*"]) if _is_inside(file.path)]
    with contextlib.suppress(OSError):  # a cache that is read-only
        listing_file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = listing_file.with_name(f".{listing_file.name}.{os.getpid()}")
        unfinished.write_text(json.dumps([asdict(file) for file in files]), encoding="utf-8")
        unfinished.replace(listing_file)
    return files


def _is_inside(path: str) -> bool:
    """Whether a path stays inside its repository."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def hub_file(sibling: Any) -> HubFile:
    """A file as the hub's client describes it."""
    stored = getattr(sibling, "lfs", None)
    sha256 = None if stored is None else str(stored.sha256)
    return HubFile(str(sibling.rfilename), int(sibling.size or 0), sha256)


def _repo_type(kind: Kind) -> dict[str, Any]:
    """The argument of the hub's client for this kind, whose default is a model."""
    return {} if kind == "model" else {"repo_type": kind}


def cached_files(snapshot: Snapshot, patterns: Sequence[str]) -> dict[str, Path]:
    """The files of a commit in the cache that match, by their path in the repository."""
    folder = snapshot_folder(snapshot)
    results = {
        str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return {name: path for name, path in results.items() if _matches(name, patterns)}


def snapshot_folder(snapshot: Snapshot) -> Path:
    """Where the cache keeps a commit's files, whether or not they are cached."""
    return _repository(snapshot.name, snapshot.kind) / "snapshots" / snapshot.revision


def fetch_file(
    snapshot: Snapshot, path: str, on_bytes: Callable[[int], None], *, restart: bool = False
) -> Path:
    """Download one file into the cache; an earlier attempt is resumed, unless `restart` starts
    over.

    `on_bytes` is called with the number of bytes so far. Errors that a retry cannot fix become
    `BadInput`; others are raised unchanged.
    """
    from huggingface_hub import errors, hf_hub_download

    hopeless = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
    )
    try:
        return Path(
            hf_hub_download(
                snapshot.name,
                path,
                revision=snapshot.revision,
                tqdm_class=_progress_class(on_bytes),
                force_download=restart,
                **_repo_type(snapshot.kind),
            )
        )
    except (*hopeless, errors.LocalTokenNotFoundError, PermissionError) as error:
        raise BadInput(unreachable(snapshot.name, snapshot.revision, error)) from None


def _progress_class(on_bytes: Callable[[int], None]) -> Any:
    """A progress bar that prints nothing and calls `on_bytes`. Some transfers have two bars, for
    bytes received and written; either counts.
    """
    from tqdm import tqdm

    class ByteCounter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **{**named, "disable": True})
            self.n = named.get("initial", 0)
            on_bytes(int(self.n))

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            on_bytes(int(self.n))

    return ByteCounter


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Match as the hub's client does: `*` also matches slashes."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _commit(name: str, revision: str, kind: Kind) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().repo_info(name, revision=revision, **_repo_type(kind)).sha)
    except Exception as error:
        raise BadInput(unreachable(name, revision, error)) from None


MEANS = {
    "GatedRepoError": "it is gated, and you have not been granted access",
    "RepositoryNotFoundError": "there is no repository of this name, or it is private",
    "RevisionNotFoundError": "the repository has no such revision",
    "EntryNotFoundError": "the repository has no such file",
    "LocalTokenNotFoundError": "there is no token",
    "LocalEntryNotFoundError": "it is not in the cache and cannot be fetched now",
}
"""Sentences for the hub's status codes; the client's own texts begin with a number and a request
id.
"""


def unreachable(name: str, revision: str, error: Exception) -> str:
    """The message for a repository that cannot be downloaded."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    explanation = next(
        (MEANS[kind] for kind in kinds if kind in MEANS),
        (str(error).splitlines() or ["no details"])[0],
    )
    return (
        f"'{name}' at revision '{revision}': it cannot be downloaded ({type(error).__name__}: "
        f"{explanation}). For a gated repository accept its terms, then run `hf auth login` or set "
        "HF_TOKEN; without a network name a folder with `path:`."
    )


def cached(name: str, revision: str, marker: str, kind: Kind = "model") -> Path | None:
    """The folder of a cached repository; None if it is not cached. Never uses the network.

    Follows the documented layout of the cache: refs/NAME holds the commit of a branch,
    snapshots/COMMIT its files.
    """
    repository = _repository(name, kind)
    reference = repository / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = repository / "snapshots" / commit
    return folder if commit and next(folder.glob(marker), None) else None


def _repository(name: str, kind: Kind) -> Path:
    return cache_folder() / f"{kind}s--{name.replace('/', '--')}"


def cache_folder() -> Path:
    """The folder of the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
