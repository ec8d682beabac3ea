"""Plugins and their parts, once all are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from toolkit._plugins.part_checks import KINDS
from toolkit.errors import BadInput, PluginError, choices, nearest
from toolkit.parts import Part

GROUP = "toolkit"
DISABLE = "TOOLKIT_DISABLE_PLUGINS"


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


def _owners(plugins: Iterable[PluginInfo]) -> Mapping[tuple[str, str], PluginInfo]:
    owners: dict[tuple[str, str], PluginInfo] = {}
    for plugin in plugins:
        for part in plugin.parts:
            first = owners.setdefault((part.kind, part.name), plugin)
            seen = sum((other.kind, other.name) == (part.kind, part.name) for other in plugin.parts)
            if first is not plugin:
                raise PluginError(
                    f"{first.label} and {lower_first(plugin.label)} both offer the {part.kind} "
                    f"part '{part.name}'. {first.remedy}, or {lower_first(plugin.remedy)}."
                )
            if seen > 1:
                raise PluginError(
                    f"{plugin.label} offers the {part.kind} part '{part.name}' twice. "
                    f"{plugin.remedy}, or repair it."
                )
    return MappingProxyType(owners)


def lower_first(text: str) -> str:
    """A sentence without its initial capital, to continue another one."""
    return text[0].lower() + text[1:]
