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
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

from toolkit import hookspecs
from toolkit.errors import BadInput, PluginError, choices, nearest
from toolkit.parts import (
    EnvironmentPart,
    ExecutorPart,
    ModelPart,
    ParserPart,
    Part,
    ReportSection,
    SaePart,
    SinkParams,
    SinkPart,
    SourcePart,
    StagePart,
    TablePart,
)
from toolkit.tables import DATA_TABLES, TABLES

GROUP = "toolkit"
DISABLE = "TOOLKIT_DISABLE_PLUGINS"
DISTRIBUTION = "sae-toolkit"
STAGE_PREFIXES = (
    "examine",
    "extract",
    "compare",
    "patch",
    "play",
    "measure",
    "track",
    "attribute",
    "trace",
    "words",
)
KINDS: Mapping[str, type[Part]] = MappingProxyType(
    {
        part.kind: part
        for part in (
            ModelPart,
            SaePart,
            SourcePart,
            StagePart,
            EnvironmentPart,
            ParserPart,
            SinkPart,
            ExecutorPart,
            ReportSection,
        )
    }
)


@dataclass(frozen=True)
class PluginInfo:
    """The origin of a plugin and its parts. Scratch files have a `file` and its `sha256`, others a
    distribution.
    """

    name: str
    distribution: str | None
    version: str | None
    parts: tuple[Part, ...] = field(default=(), compare=False)
    file: Path | None = None
    sha256: str | None = None

    @property
    def origin(self) -> str:
        """What `versions` records: equal on host and worker if and only if the code is equal."""
        return (
            f"file sha256:{self.sha256}" if self.sha256 else f"{self.distribution} {self.version}"
        )

    @property
    def label(self) -> str:
        """Its name in error messages."""
        return f"Plugin '{self.name}' (from {self.file or self.origin})"

    @property
    def remedy(self) -> str:
        """How to disable it."""
        return (
            f"Leave out --plugin {self.file}"
            if self.file
            else f"Disable it with {DISABLE}={self.name}"
        )


class Parts:
    """All parts of all plugins. Immutable; sorted by kind and name, so that nothing depends on the
    order of loading.
    """

    def __init__(self, plugins: Iterable[PluginInfo]) -> None:
        self.plugins = tuple(sorted(plugins, key=lambda plugin: plugin.name))
        self._owners = _owners(self.plugins)
        offered = {(part.kind, part.name): part for plugin in self.plugins for part in plugin.parts}
        self._parts = MappingProxyType(dict(sorted(offered.items())))

    def get(self, kind: str, name: str) -> Part:
        """The part of this name, or an error with the nearest and all installed names."""
        installed = [part.name for part in self.of(kind)]
        if name not in installed:
            others = [part.kind for part in self.all() if part.name == name]
            hint = (
                f" '{name}' is a {' and a '.join(others)} part."
                if others
                else nearest(name, installed)
            )
            raise BadInput(
                f"There is no {kind} part '{name}'.{hint} Installed: {choices(installed)}. See: "
                "toolkit plugins"
            )
        return self._parts[kind, name]

    def of(self, kind: str) -> list[Part]:
        """The parts of one kind, by name."""
        if kind not in KINDS:
            raise BadInput(
                f"There is no kind of part '{kind}'.{nearest(kind, KINDS)} Kinds: {choices(KINDS)}."
            )
        return [part for part in self.all() if part.kind == kind]

    def all(self) -> list[Part]:
        """Every part, by kind and name."""
        return list(self._parts.values())

    def owner(self, part: Part) -> PluginInfo:
        """The plugin that offers this part."""
        if (part.kind, part.name) not in self._owners:
            raise BadInput(
                f"No installed plugin offers the {part.kind} part '{part.name}'. See: toolkit "
                "plugins"
            )
        return self._owners[part.kind, part.name]

    def versions(self) -> dict[str, str]:
        """Plugin name to its origin: `distribution version`, or `file sha256:...` for a scratch
        plugin.
        """
        return {plugin.name: plugin.origin for plugin in self.plugins}


def load_parts(plugin_files: Sequence[Path] = (), disabled: Iterable[str] | None = None) -> Parts:
    """Load every plugin that is not disabled, and the scratch files, and collect their parts."""
    off = set(_disabled_by_environment() if disabled is None else disabled)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    infos = [_register(manager, *loaded) for loaded in (*_installed(off), *_scratch(plugin_files))]
    _refuse_unknown_hooks(manager, infos)
    return Parts([_with_parts(manager, info) for info in infos])


def plugin_names() -> list[str]:
    """Names of the installed plugins, without importing any of them."""
    return sorted(info.name for info, _ in _entry_points(set()))


def _disabled_by_environment() -> list[str]:
    return [name.strip() for name in os.environ.get(DISABLE, "").split(",") if name.strip()]


# --- importing ------------------------------------------------------------------------------------


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
    from toolkit.files import check_regular

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


# --- hooks ----------------------------------------------------------------------------------------


def _register(manager: pluggy.PluginManager, info: PluginInfo, module: ModuleType) -> PluginInfo:
    other = manager.get_plugin(info.name)
    if other is not None or manager.is_registered(module):
        raise PluginError(
            f"{info.label} is loaded already under the name '{manager.get_name(other or module)}'. "
            f"{info.remedy}."
        )
    unmarked = [
        name
        for name in vars(hookspecs)
        if name.startswith("toolkit_") and _is_unmarked(module, name)
    ]
    if unmarked:
        raise PluginError(
            f"{info.label}: {unmarked[0]} lacks @hookimpl, so it would never be called. Add it, or "
            f"{_lower(info)}."
        )
    try:
        manager.register(module, name=info.name)
    except pluggy.PluginValidationError as error:
        raise PluginError(
            f"{info.label} does not fit the hookspecs: {_one_line(error)}. {info.remedy}, or "
            "repair it."
        ) from error
    _refuse_odd_hooks(manager, info, module)
    return info


def _is_unmarked(module: ModuleType, name: str) -> bool:
    return callable(getattr(module, name, None)) and not hasattr(
        getattr(module, name), f"{GROUP}_impl"
    )


def _refuse_odd_hooks(manager: pluggy.PluginManager, info: PluginInfo, module: ModuleType) -> None:
    for caller in manager.get_hookcallers(module) or ():
        for hook in (hook for hook in caller.get_hookimpls() if hook.plugin is module):
            if hook.kwargnames:  # pluggy never passes a value to a parameter that has a default
                names = choices(hook.kwargnames)
                raise PluginError(
                    f"{info.label}: {caller.name} has parameters with defaults, which never get a "
                    f"value: {names}."
                )
            if hook.wrapper or hook.hookwrapper:
                raise PluginError(
                    f"{info.label}: {caller.name} is a wrapper, but hooks only collect. Remove "
                    "wrapper=True."
                )


def _refuse_unknown_hooks(manager: pluggy.PluginManager, infos: Iterable[PluginInfo]) -> None:
    known = [name for name in vars(hookspecs) if name.startswith("toolkit_")]
    for info in infos:
        for caller in manager.get_hookcallers(manager.get_plugin(info.name)) or ():
            if (
                not caller.has_spec()
            ):  # also with optionalhook=True: there is one version of the hookspecs
                raise PluginError(
                    f"{info.label}: there is no hook "
                    f"'{caller.name}'.{nearest(caller.name, known)} "
                    f"{info.remedy}."
                )
    manager.check_pending()


def _with_parts(manager: pluggy.PluginManager, info: PluginInfo) -> PluginInfo:
    """Call one plugin at a time, so that a failure names its plugin; pluggy's own call would stop
    without a name.
    """
    module = manager.get_plugin(info.name)
    parts: list[Part] = []
    for hook in manager.hook.toolkit_parts.get_hookimpls():
        if hook.plugin is module:
            parts += _collected(info, hook.function)
    if info.file and not parts:
        raise PluginError(
            f"{info.label} offers no parts. Implement toolkit_parts with @hookimpl: see toolkit "
            "new-plugin."
        )
    return PluginInfo(
        info.name, info.distribution, info.version, tuple(parts), info.file, info.sha256
    )


def _collected(info: PluginInfo, function: Callable[..., Any]) -> list[Part]:
    try:
        offered: list[Part] = list(function() or ())
    except Exception as error:
        raise PluginError(
            f"{info.label} failed to name its parts: {type(error).__name__}: {error}. "
            f"{info.remedy}, or repair it."
        ) from error
    for part in offered:
        if problem := problem_of(part):
            raise PluginError(f"{info.label}: {problem} {info.remedy}, or repair it.")
    return offered


def _owners(plugins: Iterable[PluginInfo]) -> Mapping[tuple[str, str], PluginInfo]:
    owners: dict[tuple[str, str], PluginInfo] = {}
    for plugin in plugins:
        for part in plugin.parts:
            first = owners.setdefault((part.kind, part.name), plugin)
            seen = sum((other.kind, other.name) == (part.kind, part.name) for other in plugin.parts)
            if first is not plugin:
                raise PluginError(
                    f"{first.label} and {_lower_first(plugin.label)} both offer the {part.kind} "
                    f"part '{part.name}'. {first.remedy}, or {_lower(plugin)}."
                )
            if seen > 1:
                raise PluginError(
                    f"{plugin.label} offers the {part.kind} part '{part.name}' twice. "
                    f"{plugin.remedy}, or repair it."
                )
    return MappingProxyType(owners)


# --- what a part must be --------------------------------------------------------------------------


def problem_of(part: object) -> str | None:
    """The problem of a part, as a sentence, or None."""
    if not isinstance(part, Part) or not isinstance(part, KINDS.get(part.kind, ())):
        return (
            f"toolkit_parts gave {type(part).__name__} instead of a part. Parts: "
            f"{choices(k.__name__ for k in KINDS.values())}."
        )
    subject = f"{part.kind} part '{part.name}'"
    problem = (
        _problem_of_name(part)
        or _problem_of_text(part)
        or _problem_of_params(part)
        or _problem_of_tables(part)
    )
    return f"{subject}: {problem}" if problem else None


def _problem_of_name(part: Part) -> str | None:
    if isinstance(part, StagePart):
        prefix, _, rest = part.name.partition(".")
        if prefix not in STAGE_PREFIXES or not _is_word(rest):
            starts = ", ".join(f"{name}." for name in STAGE_PREFIXES)
            return (
                "a stage part's name is a prefix and a word, such as extract.words. Prefixes: "
                f"{starts}."
            )
        return None
    return (
        None
        if _is_word(part.name)
        else "a name has lower-case letters, digits, '-' and '_', and begins with a letter."
    )


def _is_word(text: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_-]*", text) is not None


def _problem_of_text(part: Part) -> str | None:
    if not part.help.strip() or "\n" in part.help:
        return "it needs a help of one line."
    return None if part.version else "its version is empty. Begin with version='1'."


def _problem_of_params(part: Part) -> str | None:
    if not (isinstance(part.params, type) and issubclass(part.params, BaseModel)):
        return "params must be a class derived from toolkit.parts.Params."
    if isinstance(part, SinkPart) and not issubclass(part.params, SinkParams):
        return "the params of a sink must be a class derived from toolkit.parts.SinkParams."
    size = part.steps.size if isinstance(part, TablePart) else None
    if size is not None and size not in part.params.model_fields:
        return (
            f"steps.size names '{size}', which is not a field of its "
            f"params.{nearest(size, part.params.model_fields)}"
        )
    return None


def _problem_of_tables(part: Part) -> str | None:
    for side, names, allowed in _table_names(part):
        if isinstance(names, str):
            return f"{side} must be a tuple of table names; write ('{names}',)."
        for name in names:
            if name not in allowed:
                return (
                    f"{side} names '{name}', which is not a table.{nearest(name, allowed)} "
                    f"Tables: {choices(allowed)}."
                )
    table = part.replaces_model if isinstance(part, TablePart) else None
    if isinstance(part, TablePart) and table is not None:
        if table not in part.optional or not part.uses_model:
            return (
                f"replaces_model names '{table}': it must be one of the part's `optional` tables, "
                "and the part must have uses_model."
            )
    return None


def _table_names(part: Part) -> Iterator[tuple[str, tuple[str, ...], Collection[str]]]:
    """The fields of a part that name tables, with the named and the allowed tables."""
    if isinstance(part, TablePart | SinkPart | ReportSection):
        yield "reads", part.reads, TABLES
    if isinstance(part, TablePart):
        yield "optional", part.optional, TABLES
        yield "writes", part.writes, DATA_TABLES


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def _lower(info: PluginInfo) -> str:
    return _lower_first(info.remedy)
