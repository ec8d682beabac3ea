"""Normal form of replies: without full-width characters, markdown, brackets, quotation marks and
thousands separators.
"""

from __future__ import annotations

import re
import unicodedata

_TYPOGRAPHY = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u200b": "",
        "\u200d": "",
        "\ufeff": "",
        "\u3002": ".",
    }
)
_ESCAPED = re.compile(r"\\(?=[$%*_#)(])")
_LATEX = re.compile(r"\\(?:boxed|text)\{([^{}]*)\}")
_EMPHASIS = re.compile(r"\*+|~~|`+|(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])")
_LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|>\s*|[-+\u2022\u00b7*]\s+|\|\s*)+")
_BRACKETS = re.compile(r"[<\[{\"]+|[>\]}\"]+")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3})((?:[, ][0-9]{3})+)(?![0-9])")
_CENTS = re.compile(r"(?<=[0-9])\.0{1,2}(?![0-9])")
_BLANKS = re.compile(r"[ \t\f\v]+")


def normal(text: str) -> str:
    """The text in lower case and plain characters, line by line."""
    text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    text = text.replace("\r\n", "\n").replace("\r", "\n").lower()
    return "\n".join(_normal_line(line) for line in text.split("\n"))


def lines_of(text: str) -> list[str]:
    """The non-empty lines of a text in normal form."""
    return [line for line in normal(text).split("\n") if line]


def _normal_line(line: str) -> str:
    line = _LATEX.sub(r"\1", _ESCAPED.sub("", line))
    line = _BRACKETS.sub(" ", _EMPHASIS.sub("", line))
    line = _LINE_MARK.sub("", line)
    line = _THOUSANDS.sub(lambda match: match[1] + re.sub(r"[, ]", "", match[2]), line)
    line = _CENTS.sub("", line)
    return _BLANKS.sub(" ", line).strip(" |'")
