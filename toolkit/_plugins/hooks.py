"""Register plugins with pluggy and collect their parts; refuse hooks that would never be called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pluggy

from toolkit import hookspecs
from toolkit._plugins.part_checks import problem_of
from toolkit._plugins.registry import GROUP, PluginInfo, lower_first
from toolkit.errors import PluginError, choices, nearest
from toolkit.parts import Part


def register(manager: pluggy.PluginManager, info: PluginInfo, module: ModuleType) -> PluginInfo:
    """Register an imported plugin, or say why its hooks do not fit."""
    other = manager.get_plugin(info.name)
    if other is not None or manager.is_registered(module):
        raise PluginError(
            f"{info.label} is already loaded under the name "
            f"'{manager.get_name(other or module)}'. {info.remedy}."
        )
    unmarked = [
        name
        for name in vars(hookspecs)
        if name.startswith("toolkit_") and _is_unmarked(module, name)
    ]
    if unmarked:
        raise PluginError(
            f"{info.label}: {unmarked[0]} lacks @hookimpl, so it would never be called. Add it, or "
            f"{lower_first(info.remedy)}."
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


def refuse_unknown_hooks(manager: pluggy.PluginManager, infos: Iterable[PluginInfo]) -> None:
    """Refuse a hook that no hookspec has, such as a misspelt one."""
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


def with_parts(manager: pluggy.PluginManager, info: PluginInfo) -> PluginInfo:
    """The plugin with its parts. Plugins are called one at a time, so that a failure names its
    plugin; pluggy's own call would stop without a name.
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
