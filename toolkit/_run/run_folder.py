"""The paths of a store's runs. They are known even when the store's tables cannot be opened."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from toolkit._plugins.recorded import plugin_options
from toolkit.errors import BadInput

DEFAULT_STORE = "toolkit-runs"
REPORT = "report.html"


def store_folder(option: str | None) -> Path:
    """The store's folder: `--store`, else `TOOLKIT_STORE`, else `./toolkit-runs`. For a URI, the
    folder of its local files.
    """
    if option == "":
        raise BadInput("--store is empty. Name a folder or a URI, or leave the option out.")
    where = option or os.environ.get("TOOLKIT_STORE") or DEFAULT_STORE
    if "://" not in where:
        return Path(where)
    from toolkit_store import local_part

    return local_part(where)


def at_uri(store: Path) -> bool:
    """Whether a folder holds the local files of a store whose tables are at a URI."""
    from toolkit_store import uri_of

    return uri_of(store) is not None


def resume_command(run: str, store: Path, plugins: Sequence[Path] | None = None) -> str:
    """The command that repeats or continues a run. It names the scratch plugins (`plugins`, else
    those of the run's manifest), since a record loads none.
    """
    options = [word for path in plugins or () for word in ("--plugin", str(path))]
    if plugins is None:
        options = plugin_options(_recorded(run_folder(store, run)))
    return shlex.join(["toolkit", "run", run, *options, *_store_option(store)])


def _recorded(folder: Path) -> dict[str, Any]:
    """A run's manifest, or an empty one if it cannot be read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _store_option(store: Path) -> list[str]:
    """The option that names a store, unless it is the default of this folder."""
    from toolkit_store import uri_of

    where = uri_of(store) or str(store.absolute())
    return [] if where == str(Path(DEFAULT_STORE).absolute()) else ["--store", where]


def run_folder(store: Path, run: str) -> Path:
    """The folder with the files of one run."""
    return store / "runs" / run


def run_ids(store: Path) -> list[str]:
    """Ids of all runs that have a manifest, oldest id first."""
    return sorted(path.parent.name for path in (store / "runs").glob("*/manifest.json"))


def find_run(store: Path, text: str, recorded: Iterable[str] = ()) -> str:
    """The run id that `text` names: the id itself or the beginning of exactly one. `recorded` has
    ids from the tables: a store at a URI may have runs of other machines, without folders here.
    """
    known = sorted({*run_ids(store), *recorded})
    if text in known:
        return text
    if not known:
        raise BadInput(
            f"There is no run '{text}': {store} holds no runs. Another store: --store PATH or "
            "TOOLKIT_STORE."
        )
    matches = [run for run in known if text and run.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise BadInput(
            f"'{text}' is the beginning of {len(matches)} runs: {_listed(matches)}. Give more "
            "characters."
        )
    near = difflib.get_close_matches(text, known, n=5, cutoff=0.4) or known[-5:]
    listing = shlex.join(["toolkit", "runs", *_store_option(store)])
    raise BadInput(
        f"There is no run '{text}' in {store}. Nearest: {_listed(near)}. All runs: {listing}. "
        "Another store: --store PATH or TOOLKIT_STORE."
    )


def _listed(runs: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(runs) - limit} more" if len(runs) > limit else ""
    return ", ".join(runs[:limit]) + more


def folder_bytes(folder: Path) -> int:
    """Size of all files under `folder`; files that vanish meanwhile are not counted."""
    total = 0
    for folder_path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder_path, name)).st_size
            except OSError:
                continue
    return total
