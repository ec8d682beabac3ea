"""Refuse the rows of several screens where a stage reads one: they would overwrite each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import DataError


def of_one_screen(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The rows, which have to come from one screen."""
    screens = {row["screen"] for row in rows}
    if len(screens) > 1:
        raise DataError(
            f"needs: {len(screens)} screens of '{rows[0]['contrast']}' are needed here, and this "
            "stage reads one. Need one of their stages only."
        )
    return rows
