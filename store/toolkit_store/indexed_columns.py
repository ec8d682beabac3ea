"""Which columns of a table have an index, of which kind, and from how many rows on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from toolkit.tables import TABLES

ALWAYS: Mapping[str, str] = MappingProxyType({"activations": "sample", "postings": "place"})
"""Table -> the column that has an index from the first row on."""
IF_LARGE: Mapping[str, str] = MappingProxyType(
    {"activations": "space", "features": "space", "samples": "sample"}
)
"""Large table -> another column with an index, without which a query for one space or sample scans
the whole table.
"""
LARGE_FROM = 100_000
"""Rows from which a table is large. It then has an index of its steps too: every commit checks
whether the table has rows of a step, and reading the column takes 45 ms per million rows.
"""
_B_TREES = ("sample", "place")
"""The columns whose index is a B-tree: nearly every row has a distinct value."""


def is_large_table(rows: int) -> bool:
    """Whether a table of so many rows has the indexes of a large table."""
    return rows >= LARGE_FROM


def columns_to_index(name: str, table: Any) -> list[str]:
    """The columns of a table that have an index at its present size."""
    rows = table.count_rows()
    columns = [ALWAYS[name]] if name in ALWAYS and rows else []
    if TABLES[name].ledger or not is_large_table(rows):
        return columns
    return [*columns, "step", *([IF_LARGE[name]] if name in IF_LARGE else [])]


def index_config(column: str) -> Any:
    """LanceDB's kind of index for a column."""
    from lancedb.index import Bitmap, BTree

    return BTree() if column in _B_TREES else Bitmap()
