"""Spans that a file marks: `<span balance>$90</span>` in the text, or a column of character offsets
such as `balance:17-20; goal:30-34` (half open, from 0).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.models import Span

_MARK = re.compile(r"<span\s+([A-Za-z_][A-Za-z0-9_-]*)>(.*?)</span>", re.DOTALL)
_STRAY = re.compile(r"</?span\b[^>]*>?")
_OFFSETS = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)\s*:\s*(\d{1,9})\s*-\s*(\d{1,9})\s*")


def from_marks(text: str, where: str) -> tuple[str, list[Span]]:
    """The text without its marks, and the spans that they mark. Marks must not be nested."""
    plain, spans, end = "", [], 0
    for mark in _MARK.finditer(text):
        plain += text[end : mark.start()]
        inside = mark[2]
        if not inside or _STRAY.search(inside):
            problem = "lies inside another" if inside else "marks nothing"
            raise DataError(
                f"{where}: the mark `{mark[0][:40]}` {problem}. Mark one span after another."
            )
        spans.append((mark[1], len(plain), len(plain) + len(inside)))
        plain, end = plain + inside, mark.end()
    plain += text[end:]
    if stray := _STRAY.search(plain):
        raise DataError(
            f"{where}: `{stray[0]}` is not a complete mark. Write <span NAME>...</span>, "
            "with a name of letters, digits, '-' and '_'."
        )
    return plain, spans


def from_offsets(cell: str, text: str, where: str, column: str) -> list[Span]:
    """The spans of a cell of offsets."""
    spans = []
    for part in filter(str.strip, cell.split(";")):
        match = _OFFSETS.fullmatch(part)
        if match is None:
            raise DataError(
                f"{where}: column '{column}' holds '{part.strip()}'; write NAME:FIRST-LAST, as in "
                "balance:17-20, with semicolons between them."
            )
        start, end = int(match[2]), int(match[3])
        if not start < end <= len(text):
            raise DataError(
                f"{where}: column '{column}': span '{match[1]}' has the characters "
                f"{start} to {end} "
                f"of a text of {len(text)}. Offsets count from 0 and the last one is left out."
            )
        spans.append((match[1], start, end))
    return spans
