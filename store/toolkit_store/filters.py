"""Filters of LanceDB queries, with quoted values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_KEYS_IN_A_FILTER = 500


def equals(column: str, value: str) -> str:
    """A filter for one value, quoted."""
    return f"{column} = {_quoted(value)}"


def among(column: str, values: Iterable[str]) -> Iterator[str]:
    """Filters that together match all of `values`; a single one with thousands of values is slow to
    plan.
    """
    quoted = [_quoted(value) for value in dict.fromkeys(values)]
    for start in range(0, len(quoted), _KEYS_IN_A_FILTER):
        yield f"{column} IN ({', '.join(quoted[start : start + _KEYS_IN_A_FILTER])})"


def holds(column: str, number: int) -> str:
    """A filter for lists of uint32 that contain a number. No index serves it: every list is
    scanned.
    """
    return f"array_has({column}, arrow_cast({int(number)}, 'UInt32'))"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
