"""Rows of the table `measures`."""

from __future__ import annotations

from typing import Any

from .intervals import or_none


def row(
    measure: str,
    subject: str,
    condition: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    p: float | None = None,
    q: float | None = None,
    n: int,
    text: str | None = None,
) -> dict[str, Any]:
    """One row; numbers that are missing are null."""
    return {
        "measure": measure,
        "subject": subject,
        "condition": condition,
        "value": or_none(value),
        "low": or_none(low),
        "high": or_none(high),
        "p": or_none(p),
        "q": or_none(q),
        "n": n,
        "text": text,
    }
