"""Plain text for people: columns, sizes and durations, the same in every command that lists
something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from toolkit.terminal import cell

MAX_NUMBER = 2**31 - 1
"""The largest layer, position or count that an option takes: what the tables hold."""
Function = TypeVar("Function", bound=Callable[..., Any])


def store_option(function: Function) -> Function:
    """`--store`, the same on every command."""
    return click.option(
        "--store",
        metavar="PATH|URI",
        help="The folder or URI of the store. Default: TOOLKIT_STORE, else ./toolkit-runs.",
    )(function)


def json_option(function: Function) -> Function:
    """`--json`, the same on every command that prints a list."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")(
        function
    )


def run_option(function: Function) -> Function:
    """`--run`, the same on every command that reads one run."""
    return click.option(
        "--run",
        metavar="RUN",
        help="The id of a run, or its first characters. Default: the newest run.",
    )(function)


def layer_option(function: Function) -> Function:
    """`--layer`, for the features of one layer."""
    return click.option(
        "--layer", type=click.IntRange(0, MAX_NUMBER), help="Only spaces at this layer."
    )(function)


def plugin_files_option(function: Function) -> Function:
    """`--plugin`, on commands that list what plugins offer; the command gets `files`."""
    return click.option(
        "--plugin",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Also load a scratch plugin from this file.",
    )(function)


class Styled(str):
    """Text with the toolkit's own terminal styles; its content is printable already."""


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A table in plain text, one line per row; the columns named in `right` are aligned right."""
    lines = [
        [text if isinstance(text, Styled) else cell(text) for text in line]
        for line in (heads, *rows)
    ]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    aligned = [
        [
            text.rjust(width) if head in right else text.ljust(width)
            for head, text, width in zip(heads, line, widths, strict=True)
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float | None) -> str:
    """A time span for people; `-` for an unknown one."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )
