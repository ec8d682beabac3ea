"""Find plugins and collect their parts: once, strictly, in sorted order.

1. List the entry points of the group `toolkit`, refuse a name that two distributions offer, leave
   out the disabled ones.
2. Import each by name; then each `--plugin FILE` under a private module name made from its hash.
3. Register all with pluggy, refuse misspelt hooks, ask each plugin for its parts, refuse what does
   not fit or exists twice.

Host and workers call `load_parts` with the same files, so both know the same parts. A failure is
fatal and names the plugin and how to disable it: silently leaving out a plugin would change what a
spec means.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from toolkit import hookspecs
from toolkit._plugins.hooks import refuse_unknown_hooks, register, with_parts
from toolkit._plugins.registry import DISABLE, GROUP, Parts, PluginInfo
from toolkit.errors import BadInput, PluginError

DISTRIBUTION = "sae-toolkit"


def load_parts(plugin_files: Sequence[Path] = (), disabled: Iterable[str] | None = None) -> Parts:
    """Load every plugin that is not disabled, and the scratch files, and collect their parts."""
    off = set(_disabled_by_environment() if disabled is None else disabled)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    infos = [register(manager, *loaded) for loaded in (*_installed(off), *_scratch(plugin_files))]
    refuse_unknown_hooks(manager, infos)
    return Parts([with_parts(manager, info) for info in infos])


def plugin_names() -> list[str]:
    """Names of the installed plugins, without importing any of them."""
    return sorted(info.name for info, _ in _entry_points(set()))


def _disabled_by_environment() -> list[str]:
    return [name.strip() for name in os.environ.get(DISABLE, "").split(",") if name.strip()]


def _installed(off: set[str]) -> Iterator[tuple[PluginInfo, ModuleType]]:
    for info, entry in sorted(_entry_points(off), key=lambda pair: pair[0].name):
        yield info, _imported(info, entry.load)


def _entry_points(off: set[str]) -> list[tuple[PluginInfo, importlib.metadata.EntryPoint]]:
    """List the entry points before importing anything: a duplicate name must be refused in any
    order, and a disabled plugin may be broken.
    """
    results: dict[str, tuple[PluginInfo, importlib.metadata.EntryPoint]] = {}
    listed = (*importlib.metadata.entry_points(group=GROUP), *_checkout_entry_points())
    for entry in (entry for entry in listed if entry.name not in off):
        distribution, version = (
            (entry.dist.name, entry.dist.version) if entry.dist else (DISTRIBUTION, _own_version())
        )
        info = PluginInfo(name=entry.name, distribution=distribution, version=version)
        if entry.name in results:
            first = results[entry.name][0]
            raise PluginError(
                f"Two distributions offer a plugin named '{entry.name}': {first.origin} and "
                f"{info.origin}. Uninstall one of them, or disable both with "
                f"{DISABLE}={entry.name}."
            )
        results[entry.name] = (info, entry)
    return list(results.values())


def _checkout_entry_points() -> list[importlib.metadata.EntryPoint]:
    """The entry points of a checkout that is on the path but not installed: without metadata,
    pyproject.toml is read.
    """
    project = Path(__file__).parents[2] / "pyproject.toml"
    if not project.is_file() or _is_installed():
        return []
    content = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
    if content.get("name") != DISTRIBUTION:
        return []
    offered = content.get("entry-points", {}).get(GROUP, {})
    return [importlib.metadata.EntryPoint(name, value, GROUP) for name, value in offered.items()]


def _is_installed() -> bool:
    try:
        importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _own_version() -> str:
    from toolkit.version import VERSION

    return VERSION


def _scratch(files: Sequence[Path]) -> Iterator[tuple[PluginInfo, ModuleType]]:
    for file in files:
        sha256 = file_hash(Path(file))
        info = PluginInfo(
            name=Path(file).stem, distribution=None, version=None, file=Path(file), sha256=sha256
        )
        yield info, _imported(info, lambda info=info: _import_file(info))  # type: ignore[misc]


def file_hash(file: Path) -> str:
    """The SHA-256 of a scratch plugin."""
    from toolkit.files.local import check_regular

    try:
        check_regular(file)
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, BadInput) as error:
        why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise PluginError(
            f"--plugin {file}: {why.rstrip('.')}. Give the path of a Python file."
        ) from error


def _import_file(info: PluginInfo) -> ModuleType:
    """Import a file under a unique name in `sys.modules`, so that classes of a scratch plugin can
    be pickled.
    """
    name = f"toolkit_scratch_{str(info.sha256)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(str(info.file)).resolve())
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file (its name must end in .py)")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(info: PluginInfo, load: Callable[[], Any]) -> ModuleType:
    try:
        module: ModuleType = load()
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a plugin's module raises, the message has to name the plugin
        raise PluginError(
            f"{info.label} could not be imported: {type(error).__name__}: {error}. {info.remedy}, "
            "or repair it."
        ) from error
    return module
