"""Repositories of the Hugging Face hub: what is in the cache, which commit a branch is, and fetching. Offline is honoured."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import BadInput


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit; `folder` is None when the cache does not have it."""

    name: str
    revision: str
    folder: Path | None


@dataclass(frozen=True)
class Download:
    """What a part reads of a repository: files whose path matches a pattern."""

    wanted: Snapshot
    patterns: tuple[str, ...]


def snapshot(name: str, revision: str, marker: str) -> Snapshot:
    """The commit behind a revision and its folder in the cache, if that has the file `marker` (a glob pattern)."""
    cached = _cached(name, revision, marker)
    if cached is not None:
        return Snapshot(name, cached.name, cached)
    if offline():
        raise BadInput(
            f"'{name}' at revision '{revision}' is not in the Hugging Face cache ({_cache_folder()}), and HF_HUB_OFFLINE forbids "
            f"fetching it. Unset HF_HUB_OFFLINE, or name a folder with `path:`."
        )
    return Snapshot(name, revision if re.fullmatch(r"[0-9a-f]{40}", revision) else _commit(name, revision), None)


def offline() -> bool:
    """Whether the user forbids the network."""
    return (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in ("1", "ON", "YES", "TRUE")


def fetch(wanted: Snapshot, patterns: Sequence[str]) -> Path:
    """Download the files that match into the cache; what is there already is not fetched again."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(wanted.name, revision=wanted.revision, allow_patterns=list(patterns)))
    except Exception as error:
        raise BadInput(_unreachable(wanted.name, wanted.revision, error)) from None


def _commit(name: str, revision: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().repo_info(name, revision=revision).sha)
    except Exception as error:
        raise BadInput(_unreachable(name, revision, error)) from None


def _unreachable(name: str, revision: str, error: Exception) -> str:
    said = (str(error).splitlines() or ["no more is said"])[0]
    return (
        f"'{name}' at revision '{revision}': the hub does not give it ({type(error).__name__}: {said}). For a gated repository "
        f"accept its terms, then run `hf auth login` or set HF_TOKEN; without a network name a folder with `path:`."
    )


def _cached(name: str, revision: str, marker: str) -> Path | None:
    """By the cache's documented layout: refs/NAME holds the commit of a branch, snapshots/COMMIT its files."""
    repository = _cache_folder() / f"models--{name.replace('/', '--')}"
    reference = repository / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = repository / "snapshots" / commit
    return folder if commit and next(folder.glob(marker), None) else None


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
