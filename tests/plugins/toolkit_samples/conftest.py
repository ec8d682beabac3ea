"""What the tests of all three sources share: a model that splits words, and the tables of a source
as plain rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from toolkit.errors import DataError
from toolkit.models import Span, Tokens
from toolkit.parts import Params, SourcePart
from toolkit.testing.fakes import make_work
from toolkit_samples import toolkit_parts

PARTS = {part.name: part for part in toolkit_parts() if isinstance(part, SourcePart)}
CONTEXT = 9


class Words:
    """A model whose tokens are words with the space before them; a chat puts a header in front."""

    def tokenise(
        self, text: str, *, chat: bool = False, spans: Sequence[Span] = (), name: str = ""
    ) -> Tokens:
        rendered = f"<user> {text}" if chat else text
        pieces = tuple(re.findall(r"\s*\S+|\s+", rendered))
        if len(pieces) > CONTEXT:
            raise DataError(
                f"sample '{name}' has {len(pieces)} tokens; words reads at most {CONTEXT}."
            )
        return Tokens(rendered, tuple(range(len(pieces))), pieces)


def tables_of(
    source: str, params: Params, limit: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table that a source gives."""
    work = make_work(params, model=Words(), limit_units=limit)
    return {name: table.to_pylist() for name, table in PARTS[source].run(work)}


def meta_of(tables: dict[str, list[dict[str, Any]]]) -> dict[tuple[str, str], float | str]:
    """The value of each sample and key."""
    rows = tables["sample_meta"]
    return {
        (row["sample"], row["key"]): row["string"] if row["number"] is None else row["number"]
        for row in rows
    }
