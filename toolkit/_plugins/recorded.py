"""Scratch plugins of a recorded run. A record may come from anyone, so it never loads code.

A manifest says which scratch plugins a run used, by name and SHA-256. Whoever repeats the run names
their files again with `--plugin`; each must be the recorded one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit._plugins.loading import file_hash
from toolkit.errors import BadInput

_SCRATCH = "file sha256:"


def check_recorded(run: str, recorded: Mapping[str, str], plugin_files: Sequence[Path]) -> None:
    """Refuse to repeat a run without its scratch plugins, or with other files of the same names.
    `recorded` is the `plugins` field of the run's manifest: name to origin.
    """
    files = {path.stem: path for path in plugin_files}
    for name, origin in sorted(recorded.items()):
        if not str(origin).startswith(_SCRATCH):
            continue
        file_name = str(origin).removeprefix(_SCRATCH)
        if name not in files:
            raise BadInput(
                f"Run {run} used the scratch plugin '{name}' (SHA-256 {file_name[:12]}…). A record "
                "loads no code; name the file again: --plugin FILE"
            )
        _check_hash(run, files[name], file_name)


def plugin_options(manifest: Mapping[str, Any]) -> list[str]:
    """`--plugin FILE` for each scratch plugin of a recorded run, which its user has to name again.
    The file is the recorded one, if there is one, else `NAME.py`.
    """
    recorded, files = manifest.get("plugins"), manifest.get("plugin_files")
    if not isinstance(recorded, Mapping):
        return []
    paths = {Path(path).stem: path for path in files or () if isinstance(path, str)}
    return [
        word
        for name, origin in sorted(recorded.items())
        if str(origin).startswith(_SCRATCH)
        for word in ("--plugin", paths.get(name, f"{name}.py"))
    ]


def _check_hash(run: str, file: Path, expected: str) -> None:
    sha256 = file_hash(file)
    if sha256 != expected:
        raise BadInput(
            f"--plugin {file} has SHA-256 {sha256[:12]}…, and run {run} used a file with "
            f"{expected[:12]}…. Give that file, or run the spec as a new run."
        )
