"""Estimate the tokens of a text without its tokeniser, so that `toolkit plan` works without files.

Byte-pair tokenisers of large vocabularies cut a text at the same places first: a word with the
space before it, up to three digits, marks, the ends of lines. Nearly every English word is one
token; a letter outside of Latin script counts as one.
"""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)\b"
    r"|[^\r\n\w]?[A-Za-z\u00aa-\u024f]+"
    r"| ?[^\W\d_]"
    r"|\d{1,3}"
    r"| ?(?:[^\s\w]|_)+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s"
)


def estimated_tokens(text: str) -> int:
    """The approximate number of tokens of a text, including BOS."""
    return 1 + sum(1 for _ in _PIECE.finditer(text))
