"""Check the record of a part: its name, help, version, params and tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel

from toolkit.errors import choices, nearest
from toolkit.parts import (
    EnvironmentPart,
    ExecutorPart,
    ModelPart,
    ParserPart,
    Part,
    ReportSection,
    SaePart,
    SinkParams,
    SinkPart,
    SourcePart,
    StagePart,
    TablePart,
)
from toolkit.tables import DATA_TABLES, TABLES

STAGE_PREFIXES = (
    "examine",
    "extract",
    "compare",
    "patch",
    "play",
    "measure",
    "track",
    "attribute",
    "trace",
    "words",
)
KINDS: Mapping[str, type[Part]] = MappingProxyType(
    {
        part.kind: part
        for part in (
            ModelPart,
            SaePart,
            SourcePart,
            StagePart,
            EnvironmentPart,
            ParserPart,
            SinkPart,
            ExecutorPart,
            ReportSection,
        )
    }
)


def problem_of(part: object) -> str | None:
    """The problem of a part, as a sentence, or None."""
    if not isinstance(part, Part) or not isinstance(part, KINDS.get(part.kind, ())):
        return (
            f"toolkit_parts gave {type(part).__name__} instead of a part. Parts: "
            f"{choices(k.__name__ for k in KINDS.values())}."
        )
    subject = f"{part.kind} part '{part.name}'"
    problem = (
        _problem_of_name(part)
        or _problem_of_text(part)
        or _problem_of_params(part)
        or _problem_of_tables(part)
    )
    return f"{subject}: {problem}" if problem else None


def _problem_of_name(part: Part) -> str | None:
    if isinstance(part, StagePart):
        prefix, _, rest = part.name.partition(".")
        if prefix not in STAGE_PREFIXES or not _is_word(rest):
            starts = ", ".join(f"{name}." for name in STAGE_PREFIXES)
            return (
                "the name of a stage part is a prefix and a word, such as extract.words. "
                f"Prefixes: {starts}."
            )
        return None
    return (
        None
        if _is_word(part.name)
        else "a name consists of lower-case letters, digits, '-' and '_', and begins with a letter."
    )


def _is_word(text: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_-]*", text) is not None


def _problem_of_text(part: Part) -> str | None:
    if not part.help.strip() or "\n" in part.help:
        return "its help must be a single line."
    return None if part.version else "its version is empty. Begin with version='1'."


def _problem_of_params(part: Part) -> str | None:
    if not (isinstance(part.params, type) and issubclass(part.params, BaseModel)):
        return "params must be a class derived from toolkit.parts.Params."
    if isinstance(part, SinkPart) and not issubclass(part.params, SinkParams):
        return "the params of a sink must be a class derived from toolkit.parts.SinkParams."
    size = part.steps.size if isinstance(part, TablePart) else None
    if size is not None and size not in part.params.model_fields:
        return (
            f"steps.size names '{size}', which is not a field of its "
            f"params.{nearest(size, part.params.model_fields)}"
        )
    return None


def _problem_of_tables(part: Part) -> str | None:
    for field in _table_fields(part):
        if isinstance(field.tables, str):
            return f"{field.name} must be a tuple of table names; write ('{field.tables}',)."
        for table in field.tables:
            if table not in field.allowed:
                return (
                    f"{field.name} names '{table}', which is not a table."
                    f"{nearest(table, field.allowed)} Tables: {choices(field.allowed)}."
                )
    replaces = part.replaces_model if isinstance(part, TablePart) else None
    if isinstance(part, TablePart) and replaces is not None:
        if replaces not in part.optional or not part.uses_model:
            return (
                f"replaces_model names '{replaces}': it must be one of the part's `optional` "
                "tables, and the part must have uses_model."
            )
    return None


class _TableField(NamedTuple):
    """A field of a part that names tables."""

    name: str
    tables: tuple[str, ...]
    allowed: Collection[str]


def _table_fields(part: Part) -> Iterator[_TableField]:
    if isinstance(part, TablePart | SinkPart | ReportSection):
        yield _TableField("reads", part.reads, TABLES)
    if isinstance(part, TablePart):
        yield _TableField("optional", part.optional, TABLES)
        yield _TableField("writes", part.writes, DATA_TABLES)
