"""Text that is safe to print on a terminal.

Cells, notes, file names and messages can come from a model, a data file or a third-party plugin.
Escape sequences in them could recolour the screen, rename the window or type a command; direction
marks could show a text other than the one stored. `printable` makes every such character visible as
an escape, and `echo` prints with it.
"""

from __future__ import annotations

import re
import sys

import click

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_SURROGATES = "\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}{_INVISIBLE}{_SURROGATES}]")
_LONE = re.compile(f"[{_SURROGATES}]")


def printable(text: object) -> str:
    r"""`text` with control characters, direction marks and lone surrogates written as escapes.

    Newlines and tabs stay: `printable("a\x1b[31m\n")` is `"a\\x1b[31m\n"`.
    """
    return _UNSAFE.sub(_escape, str(text))


def cell(text: object) -> str:
    """`text` on one line, for a table: `printable`, with newlines and tabs written as spaces."""
    return printable(re.sub(r"\r\n|[\n\t\r]", " ", str(text)))


def counted(number: int, word: str) -> str:
    """A number with its noun: `1 stage`, `2,000 stages`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text for people."""
    click.echo(printable(text), err=err, nl=nl)


def echo_data(text: str, *, nl: bool = True) -> None:
    """Print data for programs, such as CSV: unchanged into a file or a pipe, `printable` on a
    terminal. A lone surrogate, which cannot be encoded, is always written as an escape.
    """
    safe = printable(text) if sys.stdout.isatty() else _LONE.sub(_escape, text)
    click.echo(safe, nl=nl)


def echo_styled(text: str, *, nl: bool = True) -> None:
    """Print a table with the toolkit's own styles; the rest of its text has to be `printable`."""
    click.echo(text, nl=nl)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
