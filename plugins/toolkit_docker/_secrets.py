"""The hub's token reaches a container as a file, never in its environment or its record."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.containers import ROOT, Mount
from toolkit.executors import WorkerRequest


def token_mount(request: WorkerRequest) -> list[Mount]:
    """The file that holds the hub's token on this machine, for a container that downloads."""
    if not request.network:
        return []
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    named = os.environ.get("HF_TOKEN_PATH") or Path(home) / "token"
    path = Path(named)
    return [Mount(path.absolute(), ROOT / "secrets" / "token")] if path.exists() else []
