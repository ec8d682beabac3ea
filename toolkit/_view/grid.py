"""A table of a page, which can be downloaded as CSV or Parquet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._query.text import plain, shown
from toolkit.figures import escaped

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]
PART_ROWS = 20_000
"""Rows of a file that are written at a time."""
MAX_ROWS = 100
"""The most rows of a table that a page shows; the download has all rows of the grid."""

WORDY = frozenset(
    {"text", "reason", "reply", "label", "verdict", "note", "needs", "first", "second"}
)
"""Columns of texts, whose lines are broken."""


@dataclass(frozen=True)
class Grid:
    """A table with a name. `links` has, by column, the function for the address behind a cell."""

    name: str
    caption: str
    frame: pl.DataFrame
    links: Mapping[str, Callable[[Row], str | None]] = field(default_factory=dict)
    why: str = "No rows."
    """The text in place of an empty table."""
    parts: Callable[[], Iterator[pl.DataFrame]] | None = None
    """All rows for a download, a few thousand at a time, of a table that may not fit in memory; the
    first part has the columns of all.
    """
    height: int | None = None
    """The number of all rows, where `frame` has only those that the page shows."""

    @property
    def heads(self) -> Sequence[str]:
        """The columns with at least one value."""
        shown = self.frame.head(MAX_ROWS)
        return [name for name in shown.columns if shown[name].null_count() < shown.height]

    @property
    def body(self) -> str:
        """The rows that the page shows, as HTML. A template would take three times as long."""
        kinds = {head: self._kind(head) for head in self.heads}
        return "".join(
            f"<tr>{''.join(self._cell(head, row, kind) for head, kind in kinds.items())}</tr>"
            for row in self.frame.head(MAX_ROWS).to_dicts()
        )

    def _kind(self, head: str) -> str:
        if self.is_number(head):
            return ' class="number"'
        return ' class="words"' if head in WORDY else ""

    def _cell(self, head: str, row: Row, kind: str) -> str:
        text, to = escaped(plain(shown(row[head]))), self.link(head, row)
        return f"<td{kind}>{text if to is None else _linked(text, to)}</td>"

    @property
    def hidden(self) -> int:
        """The number of rows that only the download has."""
        shown = min(MAX_ROWS, self.frame.height)
        return (self.frame.height if self.height is None else self.height) - shown

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


def _linked(text: str, to: str) -> str:
    return f'<a href="{escaped(to)}">{text}</a>'


def write_csv(parts: Iterable[pl.DataFrame], path: Path) -> None:
    """Write parts of a table as one CSV file."""
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            part.write_csv(file, include_header=number == 0)


def write_parquet(parts: Iterable[pl.DataFrame], path: Path) -> None:
    """Write parts of a table as one Parquet file, a row group each."""
    import pyarrow.parquet as pq

    rest = iter(parts)
    first = next(rest).to_arrow()
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for part in rest:
            writer.write_table(part.to_arrow().cast(first.schema))


WRITERS: Mapping[str, Callable[[Iterable[pl.DataFrame], Path], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
}
FORMATS: Mapping[str, tuple[Callable[[Grid], bytes], str]] = {
    "csv": (Grid.csv, "text/csv; charset=utf-8"),
    "parquet": (Grid.parquet, "application/vnd.apache.parquet"),
}
