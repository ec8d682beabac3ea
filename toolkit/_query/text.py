"""Texts, tokens and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
BEFORE, AFTER = 16, 8
"""Tokens shown on each side of the one that is marked."""


def one_line(text: str) -> str:
    """The text on one line: line ends as a visible mark, without control characters."""
    return "".join(
        letter if letter.isprintable() else {"\n": "↵", "\t": " ", "\xa0": " "}.get(letter, "·")
        for letter in text
    )


def plain(value: Any) -> Any:
    """A text without characters that control a terminal or change the writing direction."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    if value.isprintable():
        return value
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{MIDDLE DOT}" for letter in value
    )


def shown(value: Any) -> str:
    """A number with four significant digits, whole ones in full; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def spans(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """The character range of each piece in the text. A tokeniser may leave out spaces, and split
    one character over several tokens.
    """
    out, cursor = [], 0
    for piece in pieces:
        start = cursor
        while start < len(text) and text[start].isspace() and not text.startswith(piece, start):
            start += 1
        if text.startswith(piece, start):
            cursor = start + len(piece)
            out.append((start, cursor))
        elif text.endswith(piece, 0, cursor):
            out.append((cursor - len(piece), cursor))
        else:
            out.append((cursor, cursor))
    return out


def around(text: str, pieces: Sequence[str], index: int, mark: Callable[[str], str]) -> str:
    """The text around token `index`, on one line, with the token marked; the end of the text for a
    token past it.
    """
    spots = [*spans(text, pieces), (len(text), len(text))]
    index = min(index, len(pieces))
    first, last = max(0, index - BEFORE), min(len(pieces) - 1, index + AFTER)
    (start, _), (begin, end), (_, stop) = spots[first], spots[index], spots[max(last, index)]
    left, right = "…" if first else "", "…" if last < len(pieces) - 1 else ""
    marked = mark(one_line(text[begin:end])) if index < len(pieces) else ""
    return f"{left}{one_line(text[start:begin])}{marked}{one_line(text[end:stop])}{right}"


def piece_at(pieces: Sequence[str], index: int) -> str:
    """The piece at a position, empty past the end."""
    return pieces[index] if index < len(pieces) else ""
