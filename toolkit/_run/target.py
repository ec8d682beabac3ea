"""Open what a command's SPEC|RUN_ID names: a spec file, or a run of the store that is to be
repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plugins.recorded import check_recorded
from toolkit._run.manifest import read_manifest
from toolkit._run.run_folder import find_run, run_folder, store_folder
from toolkit._spec.load import load_spec, load_spec_data
from toolkit._spec.yaml import missing
from toolkit.errors import BadInput

if TYPE_CHECKING:
    from toolkit._run.options import RunOptions
    from toolkit._spec.load import LoadedSpec


@dataclass(frozen=True)
class SpecData:
    """A spec that was built in Python. `path` names it in messages, and relative paths start from
    its folder.
    """

    data: Mapping[str, Any]
    path: Path


def open_target(target: str | SpecData, options: RunOptions) -> tuple[LoadedSpec, RunOptions]:
    """Load the spec that `target` names. For a run, the spec is the recorded one, and the recorded
    overlays and sets come before those of `options`. A record loads no plugin: the scratch plugins
    of the run must be among those of `options`.
    """
    if isinstance(target, SpecData):
        loaded = load_spec_data(target.data, target.path, options.overlays, options.sets)
        return loaded, options
    recorded = _recorded(target, options)
    if recorded is None:
        _refuse_neither(target, options)
        return load_spec(Path(target), options.overlays, options.sets), options
    _check_runnable(target, recorded)
    check_recorded(recorded["run"], recorded["plugins"], options.plugins)
    path = Path(recorded["spec_path"])
    loaded = load_spec_data(recorded["spec"], path, options.overlays, options.sets)
    return loaded, _with_record(options, recorded)


def _recorded(target: str, options: RunOptions) -> dict[str, Any] | None:
    """The manifest, when `target` names a run. Text that looks like a path is never taken for a
    run.
    """
    store = store_folder(options.store)
    if not _may_be_run(target) or not (store / "runs").is_dir():
        return None
    if run_folder(store, target).is_dir():
        return read_manifest(run_folder(store, target))
    try:
        run = find_run(store, target)
    except BadInput as error:
        raise BadInput(f"{error} Nor is there a file '{Path(target).absolute()}'.") from None
    return read_manifest(run_folder(store, run))


_RECORDED = (
    ("run", str),
    ("spec", dict),
    ("spec_path", str),
    ("overlays", list),
    ("sets", list),
    ("plugins", dict),
)
"""The fields that a manifest must have for its run to be repeated."""


def _check_runnable(target: str, recorded: dict[str, Any]) -> None:
    """Refuse a run that was imported without its spec, or whose manifest is invalid."""
    for name, kind in _RECORDED:
        if not isinstance(recorded.get(name), kind):
            raise BadInput(
                f"Run {target} cannot be run again: its manifest has no '{name}'. A run that was "
                "imported from another program's files has results and no spec; look at them with "
                "toolkit query."
            )


def _may_be_run(target: str) -> bool:
    return not (Path(target).exists() or "/" in target or target.endswith((".yaml", ".yml")))


def _refuse_neither(target: str, options: RunOptions) -> None:
    """Refuse a target that is not a file and could have been a run, if the store has no runs."""
    if _may_be_run(target):
        raise BadInput(
            f"{missing(Path(target))} Nor is it a run: the store {store_folder(options.store)} "
            "holds none. Another store: --store PATH or TOOLKIT_STORE."
        )


def _with_record(options: RunOptions, recorded: dict[str, Any]) -> RunOptions:
    """The recorded spec includes its overlays and sets; only a spec that its samples come from
    still needs them.
    """
    return replace(
        options,
        overlays=(*map(Path, recorded["overlays"]), *options.overlays),
        sets=(*recorded["sets"], *options.sets),
    )
