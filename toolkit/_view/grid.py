"""A table of a page, which can be downloaded as CSV or Parquet."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]
MAX_ROWS = 200
"""The most rows of a table that a page shows; the download has all rows of the grid."""


@dataclass(frozen=True)
class Grid:
    """A table with a name. `links` has, by column, the function for the address behind a cell."""

    name: str
    caption: str
    frame: pl.DataFrame
    links: Mapping[str, Callable[[Row], str | None]] = field(default_factory=dict)
    why: str = "No rows."
    """The text in place of an empty table."""

    @property
    def heads(self) -> Sequence[str]:
        """The columns with at least one value."""
        shown = self.frame.head(MAX_ROWS)
        return [name for name in shown.columns if shown[name].null_count() < shown.height]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that the page shows."""
        return self.frame.head(MAX_ROWS).to_dicts()

    @property
    def hidden(self) -> int:
        """The number of rows that only the download has."""
        return max(0, self.frame.height - MAX_ROWS)

    def is_number(self, head: str) -> bool:
        """Whether a column is numeric, and so aligned to the right."""
        return self.frame[head].dtype.is_numeric()

    def link(self, head: str, row: Row) -> str | None:
        """The address behind a cell."""
        return self.links[head](row) if head in self.links and row[head] is not None else None

    def csv(self) -> bytes:
        """All rows as CSV."""
        return self.frame.write_csv().encode()

    def parquet(self) -> bytes:
        """All rows as a Parquet file."""
        buffer = io.BytesIO()
        self.frame.write_parquet(buffer)
        return buffer.getvalue()


FORMATS: Mapping[str, tuple[Callable[[Grid], bytes], str]] = {
    "csv": (Grid.csv, "text/csv; charset=utf-8"),
    "parquet": (Grid.parquet, "application/vnd.apache.parquet"),
}
