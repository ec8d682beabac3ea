"""Patching: change features at a decision and measure, exactly, what that does."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.records import Part


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield from ()
