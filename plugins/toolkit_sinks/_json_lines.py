"""The sink `json`: any table, one row per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.errors import choices, nearest
from toolkit.parts import SinkParams
from toolkit.tables import DATA_TABLES, table
from toolkit.work import SinkWork


def check_table(name: str) -> str:
    """Refuse a table that the store does not have."""
    if name not in DATA_TABLES:
        raise ValueError(
            f"there is no table '{name}'.{nearest(name, DATA_TABLES)} Tables: "
            f"{choices(DATA_TABLES)}"
        )
    return name


class Json(SinkParams):
    """Which tables are written, and where."""

    tables: tuple[Annotated[str, AfterValidator(check_table)], ...] = Field(
        ("features",), description="Names of the tables to write."
    )


def write_json(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """One file per table, rows sorted by the table's key."""
    for name in work.params.tables:
        order = [(column, "ascending") for column in table(name).key]
        lines = (
            json.dumps(row, sort_keys=True) + "\n"
            for row in work.inputs.read(name).sort_by(order).to_pylist()
        )
        yield f"{name}.jsonl", "".join(lines).encode()
