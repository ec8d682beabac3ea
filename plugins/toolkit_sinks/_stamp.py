"""Timestamps, as published files write them."""

from __future__ import annotations


def stamp(time: str) -> str:
    """`20251017_120000` for an ISO time."""
    return time[:19].replace("-", "").replace(":", "").replace("T", "_")
