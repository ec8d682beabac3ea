"""One SELECT in polars' SQL over given tables, and nothing else.

polars' SQL can read files (`read_csv('...')`) and change its own tables. A statement is therefore looked at word by word before
polars sees it: it must begin with SELECT or WITH, be one statement, and call no function that reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from toolkit.errors import BadInput, choices
from toolkit.tables import DATA_TABLES

if TYPE_CHECKING:
    import polars as pl

_TOKEN = re.compile(
    r"""\s+|--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|[A-Za-z_]\w*|[0-9][0-9a-zA-Z_.]*|.""", re.DOTALL
)
_FIRST = ("SELECT", "WITH")
_NEVER = re.compile(r"(?:read|scan)_\w*", re.IGNORECASE)


def select(text: str, table: Callable[[str], pl.LazyFrame]) -> pl.DataFrame:
    """The answer to one SELECT; `table` gives the tables that it names."""
    import polars as pl

    words = list(_words(text))
    _check(text, words)
    named = {word.strip('"`').lower() for word in words}
    frames = {name: table(name) for name in DATA_TABLES if name in named}
    try:
        with pl.SQLContext(frames, eager=True) as context:
            return context.execute(text)
    except (pl.exceptions.PolarsError, NotImplementedError, TypeError, ValueError, pl.exceptions.PanicException) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"polars cannot answer this: {first}. Tables: {choices(DATA_TABLES)}.") from error


def _words(text: str) -> Iterator[str]:
    """The statement without blanks and comments."""
    for found in _TOKEN.finditer(text):
        word = found.group()
        if not (word.isspace() or word.startswith(("--", "/*"))):
            yield word


def _check(text: str, words: list[str]) -> None:
    if not words or words[0].upper() not in _FIRST:
        raise BadInput("Only a SELECT can be asked. It may begin with WITH. For example: SELECT * FROM features LIMIT 5")
    if ";" in words[:-1]:
        raise BadInput("One statement at a time: there is a ';' before the end.")
    for word in words:
        if _NEVER.fullmatch(word.strip('"`')):
            raise BadInput(f"'{word}' reads files; a query may use this store's tables only: {choices(DATA_TABLES)}.")
