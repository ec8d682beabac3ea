"""Records of the stand-in."""

from __future__ import annotations

from typing import Any, NamedTuple


class Param(NamedTuple):
    key: str
    value: str


class Metric(NamedTuple):
    key: str
    value: Any
    timestamp: int
    step: int
