"""One SELECT in polars' SQL over given tables, and nothing else.

polars' SQL can read files (`read_csv('...')`) and change its own tables, and it has more ways to
quote than are worth imitating. So a statement passes only if each of its characters belongs to a
word, a number, a plain 'text', a plain "name", a comment or a known sign, and every function that
it calls is on a list. Only these tokens are handed to polars: it never sees anything that was not
understood here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import BadInput, choices, nearest
from toolkit.tables import DATA_TABLES

if TYPE_CHECKING:
    import polars as pl

LONGEST = 10_000
DEEPEST = 30
"""Nested brackets, and operators in a row: polars recurses once for each."""
MOST_SIGNS = 1_000

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+ | --[^\r\n]* | /\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/)
    | (?P<text>'(?:[^'\\\0]|'')*')
    | (?P<name>"(?:[^"\\\0]|"")*")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<sign><=|>=|<>|!=|\|\||::|[-+*/%=<>(),.;\[\]])""",
    re.VERBOSE,
)
_FIRST = ("SELECT", "WITH")
_NEVER = frozenset(
    """ALTER ANALYZE ATTACH BEGIN CALL COMMIT COPY CREATE DELETE DESCRIBE DETACH DROP EXECUTE
    EXPLAIN EXPORT GRANT IMPORT INSERT INSTALL INTO LOAD MERGE OUTFILE PRAGMA PREPARE RENAME
    REPLACE_TABLE REVOKE SET SHOW TABLE TRUNCATE UPDATE USE VACUUM""".split()
)
_BEFORE_BRACKETS = frozenset(
    """ALL AND ANY AS BETWEEN BY CASE DISTINCT ELSE EXCEPT EXISTS FILTER FROM HAVING ILIKE IN
    INTERSECT JOIN LIKE LIMIT NOT OFFSET ON OR ORDER OVER SELECT THEN UNION USING VALUES WHEN
    WHERE""".split()
)
FUNCTIONS = frozenset(
    """abs acos array_agg array_contains array_get array_length array_lower array_max array_mean
    array_median array_min array_reverse array_sum array_to_string array_unique array_upper
    asin atan atan2 avg bit_length cast cbrt ceil ceiling char_length coalesce concat
    concat_ws corr cos count covar covar_pop covar_samp degrees dense_rank div ends_with exp
    first first_value floor greatest if ifnull initcap lag last last_value lead least left
    length ln log log10 log1p log2 lower ltrim max median min mod nullif octet_length pi
    position pow power quantile_cont quantile_disc radians rank regexp_like replace reverse
    right round row_number rtrim sign sin split_part sqrt starts_with std stddev stddev_samp
    stdev stdev_samp strpos substr substring sum tan trim try_cast unnest upper var var_samp
    variance""".split()
)
"""The functions that may be called: each computes from its arguments alone."""
_WITHOUT_ARGUMENTS = ("count", "dense_rank", "pi", "rank", "row_number")


@dataclass(frozen=True)
class Word:
    """A token of a statement: its kind, its text, and where it begins."""

    kind: str
    text: str
    at: int


def select(
    text: str,
    table: Callable[[str], pl.LazyFrame],
    tables: Iterable[str] = DATA_TABLES,
    max_rows: int | None = None,
) -> pl.DataFrame:
    """The result of one SELECT, or its first `max_rows` rows; `table` gives the tables that it
    names, which are read batch by batch.
    """
    import polars as pl

    known = tuple(tables)
    words = checked(text)
    named = {word.text.strip('"').lower() for word in words if word.kind in ("word", "name")}
    frames = {name: table(name) for name in known if name in named}
    try:
        with pl.SQLContext(frames) as context:
            result = context.execute(" ".join(word.text for word in words))
            return (result if max_rows is None else result.head(max_rows)).collect(
                engine="streaming"
            )
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        ArithmeticError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"polars cannot run this statement: {first}. Tables: {choices(known)}."
        ) from None


def checked(text: str) -> list[Word]:
    """The tokens of an allowed statement; otherwise an error says which part is not allowed."""
    if len(text) > LONGEST:
        raise BadInput(
            f"The statement has {len(text):,} characters; at most {LONGEST:,} are allowed."
        )
    words = list(_words(text))
    if words and words[-1].text == ";":
        words.pop()
    _check_statement(words)
    _check_depth(words)
    for word, following, then in zip(
        words, [*words[1:], None], [*words[2:], None, None], strict=False
    ):
        _check_word(word, following)
        if (
            then
            and word.text.lower() in FUNCTIONS
            and f"{following and following.text}{then.text}" == "()"
        ):
            _check_empty(word)
    return words


def _words(text: str) -> Iterator[Word]:
    index, last = 0, ""
    while index < len(text):
        match = _TOKEN.match(text, index)
        if match is None:
            raise BadInput(_not_understood(text, index))
        kind = str(match.lastgroup)
        prefixed = kind == "text" and last in ("word", "name", "number", "text")
        unended = kind != "blank" and text.startswith("/*", index)
        if prefixed or unended:
            raise BadInput(_not_understood(text, index))
        if kind != "blank":
            yield Word(kind, match.group(), index)
        last = kind
        index = match.end()


def _not_understood(text: str, index: int) -> str:
    return (
        f"At character {index + 1} of the statement: {text[index : index + 12]!a} cannot be "
        "read. Write words, numbers, 'text' and \"names\" with closing quotes, and no backslashes."
    )


def _check_statement(words: list[Word]) -> None:
    first = next((word for word in words if word.text != "("), None)
    if first is None or first.text.upper() not in _FIRST:
        raise BadInput(
            "Only SELECT is allowed. It may begin with WITH. For example: SELECT * FROM "
            "features LIMIT 5"
        )
    if any(word.text == ";" for word in words):
        raise BadInput("One statement at a time: there is a ';' before the end.")


def _check_depth(words: list[Word]) -> None:
    depth = deepest = 0
    for word in words:
        depth += (
            {"(": 1, "[": 1, ")": -1, "]": -1}.get(word.text, 0)
            + (word.text.upper() == "CASE")
            - (word.text.upper() == "END")
        )
        deepest = max(deepest, depth)
    signs = sum(
        word.kind == "sign" or word.text.upper() in ("AND", "OR", "NOT", "UNION", "JOIN")
        for word in words
    )
    if deepest > DEEPEST or signs > MOST_SIGNS:
        raise BadInput(
            f"The statement is too complex: at most {DEEPEST} nested brackets and "
            f"{MOST_SIGNS:,} operators are allowed."
        )


def _check_word(word: Word, following: Word | None) -> None:
    called = following is not None and following.text == "("
    if word.kind == "name" and called:
        raise BadInput(
            f"{word.text} is followed by a bracket: functions are written without quotes."
        )
    if word.kind != "word":
        return
    if word.text.upper() in _NEVER:
        raise BadInput(
            f"'{word.text}' is not allowed, since it does more than read tables. If it is "
            "the name of a column, write it in double quotes."
        )
    if called and word.text.upper() not in _BEFORE_BRACKETS and word.text.lower() not in FUNCTIONS:
        raise BadInput(
            f"There is no function '{word.text}'.{nearest(word.text.lower(), FUNCTIONS)} "
            f"Functions: {choices(FUNCTIONS)}."
        )


def _check_empty(word: Word) -> None:
    if word.text.lower() not in _WITHOUT_ARGUMENTS:
        raise BadInput(
            f"'{word.text}()' needs an argument. Functions without arguments: "
            f"{choices(_WITHOUT_ARGUMENTS)}."
        )
