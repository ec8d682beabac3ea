"""The sink `json`: any table, a row a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import Field

from toolkit.records import Params, SinkWork
from toolkit.tables import table


class Json(Params):
    """Which tables go out, and where to."""

    path: str = Field("out", min_length=1, description="Folder, relative to the spec.")
    tables: tuple[str, ...] = Field(("features",), description="Names of the tables.")


def write_json(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """One file a table, rows sorted by the table's key."""
    for name in work.params.tables:
        order = [(column, "ascending") for column in table(name).key]
        lines = (json.dumps(row, sort_keys=True) + "\n" for row in work.inputs.read(name).sort_by(order).to_pylist())
        yield f"{name}.jsonl", "".join(lines).encode()
