"""A dataset repository that holds one run: its name, the files that belong to the run, and the
calls to the hub's client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import BadInput
from toolkit.files import hub
from toolkit.files.local import sha256_of
from toolkit.tables import DATA_TABLES

INDEX = "toolkit-run.json"
CARD = "README.md"
RUN_FILES = (*(f"{name}.parquet" for name in DATA_TABLES), "manifest.json", "events.jsonl", INDEX)
"""Every file that the export of a run may have. Nothing else is taken from a repository."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
Answer = TypeVar("Answer")


def check_name(repository: str) -> None:
    """Refuse an invalid repository name."""
    if not _NAME.fullmatch(repository):
        raise BadInput(
            f"'{repository}' cannot be a repository of the hub. Write OWNER/NAME, of letters, "
            "digits, '-', '_' and '.'."
        )


def check_online(what: str) -> None:
    """Refuse to use the hub if the network is disabled."""
    if hub.offline():
        raise BadInput(
            f"{what} needs the hub, and HF_HUB_OFFLINE disables the network. Unset HF_HUB_OFFLINE."
        )


def ask(repository: str, revision: str, call: Callable[[], Answer]) -> Answer:
    """Call the hub's client; its errors become one sentence."""
    try:
        return call()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(hub.unreachable(repository, revision, error)) from None


def files_at(api: Any, repository: str, revision: str) -> dict[str, hub.HubFile]:
    """The files of a commit or branch, by path."""
    info = api.repo_info(repository, repo_type="dataset", revision=revision, files_metadata=True)
    return {file.path: file for file in map(hub.hub_file, info.siblings or ())}


def different(files: Mapping[str, Path], remote: Mapping[str, hub.HubFile]) -> Iterable[str]:
    """The names of files that the repository lacks, or has with other content."""
    for name, path in files.items():
        copy = remote.get(name)
        if copy is None or copy.size != path.stat().st_size:
            yield name
        elif copy.sha256 is not None and copy.sha256 != sha256_of(path):
            yield name
