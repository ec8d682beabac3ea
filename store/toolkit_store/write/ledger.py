"""Convert the ledger's records to rows and back: one `StepRow` per committed step, one `RunRow` per
change of a run's state.

The columns are the records' fields by name; the two fields that Arrow has no plain type for
(`StepRow.tables`, `RunRow.steps`) are JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from toolkit.errors import StoreError
from toolkit.ledger import RunRow, StepRow
from toolkit.tables import arrow_schema, table

if TYPE_CHECKING:
    import pyarrow as pa


def steps_to_arrow(rows: Iterable[StepRow]) -> pa.Table:
    return _rows(
        "steps",
        [
            {
                **vars(row),
                "tables": json.dumps(dict(row.tables), sort_keys=True),
                "shared": json.dumps(dict(row.shared), sort_keys=True),
            }
            for row in rows
        ],
    )


def steps_from_arrow(rows: pa.Table) -> list[StepRow]:
    return [_step(row) for row in rows.to_pylist()]


def _step(row: dict[str, Any]) -> StepRow:
    shared = dict(_json(row["shared"], f"the shared rows of step {row['key']}"))
    return StepRow(**{**row, "tables": counts(row["tables"], row["key"]), "shared": shared})


def run_to_arrow(row: RunRow) -> pa.Table:
    return _rows("runs", [{**vars(row), "steps": json.dumps(row.steps)}])


def runs_from_arrow(rows: pa.Table) -> list[RunRow]:
    return [
        RunRow(**{**row, "steps": tuple(_json(row["steps"], f"the steps of run {row['run']}"))})
        for row in rows.to_pylist()
    ]


def counts(text: str, step: str) -> dict[str, int]:
    """The rows that a step wrote to each table, from the ledger's text."""
    return dict(_json(text, f"the tables of step {step}"))


def stored_count(row: StepRow, name: str) -> int:
    """How many rows of a table are stored under a step; of shared rows, only those that it wrote
    first.
    """
    if not table(name).shared:
        return row.tables.get(name, 0)
    return sum(owner == row.key for owner in row.shared.values())


def _json(text: str, subject: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreError(
            f"The ledger cannot be read: {subject} are not JSON ({error}). `toolkit store check` "
            "names files that are not what was written; put them back from a copy of the store."
        ) from error


def check_count(table: str, count: int, expected: int) -> None:
    """Refuse a table whose number of rows differs from the ledger's."""
    if count != expected:
        raise StoreError(
            f"{table} holds {count:,} rows of these steps, and the ledger says {expected:,}. "
            "`toolkit store check` names the step; run it again into another store."
        )


def _rows(name: str, values: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(values, schema=arrow_schema(name))
