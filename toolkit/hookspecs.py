"""The whole extension surface: what a plugin may implement. Every hook *collects* frozen records;
order never matters.

from toolkit import hookimpl
from toolkit.parts import SourcePart

@hookimpl
def toolkit_parts():
    yield SourcePart(name="count", help="Samples that count upwards.", params=Count, run=count)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from toolkit.parts import Part

hookspec = pluggy.HookspecMarker("toolkit")
hookimpl = pluggy.HookimplMarker("toolkit")


@hookspec
def toolkit_parts() -> Iterable[Part]:  # type: ignore[empty-body]
    """Called once when plugins are loaded. Return or yield the plugin's parts, of any kind."""
