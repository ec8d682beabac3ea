"""Rows of the table `measures`."""

from __future__ import annotations

from typing import Any

from toolkit.statistics.arrays import finite_or_none

from .scopes import ALL, Scope


def row(
    measure: str,
    subject: str,
    scope: Scope = ALL,
    value: float | None = None,
    low: float | None = None,
    high: float | None = None,
    *,
    p: float | None = None,
    q: float | None = None,
    n: int,
    event: bool | None = None,
    text: str | None = None,
) -> dict[str, Any]:
    """One row; missing numbers are null."""
    return {
        "measure": measure,
        "subject": subject,
        "scope": scope.kind,
        "condition": scope.name,
        "title": scope.title,
        "value": finite_or_none(value),
        "low": finite_or_none(low),
        "high": finite_or_none(high),
        "p": finite_or_none(p),
        "q": finite_or_none(q),
        "n": n,
        "event": event,
        "text": text,
    }
