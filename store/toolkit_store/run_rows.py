"""The committed rows of one run, read from the tables: what every answer of `toolkit_store.query` is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from toolkit.records import StepRow
from toolkit.tables import arrow_schema
from toolkit_store import indexing
from toolkit_store.database import among
from toolkit_store.store import Store

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


class RunRows:
    """The rows that these steps wrote."""

    def __init__(self, store: Store, steps: Sequence[StepRow]) -> None:
        self.store, self.steps = store, steps
        self._database = store.database

    @cached_property
    def cover(self) -> list[str]:
        """The steps that wrote activations."""
        return indexing.covered(self.steps)

    def writers(self, name: str) -> list[str]:
        """The steps that wrote to a table."""
        return [row.key for row in self.steps if row.tables.get(name)]

    def find(self, name: str, where: str, columns: Sequence[str]) -> pa.Table:
        """Rows of a table that match, of any run: whose they are is for the caller to look at."""
        with self.store.reading():
            return self._database.rows(name, where, columns)

    def find_in_batches(self, name: str, where: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The same, a few thousand rows at a time."""
        import polars as pl

        with self.store.reading():
            for batch in self._database.batches(name, where, columns):
                yield pl.DataFrame(batch)

    def activations(self, where: str | None, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows of `activations` of this run, in batches."""
        import pyarrow as pa
        import pyarrow.compute as pc

        cover = pa.array(self.cover, pa.string())
        with self.store.reading():
            for batch in self._database.batches("activations", where, [*columns, "step"]) if self.cover else ():
                yield batch.filter(pc.is_in(batch["step"], value_set=cover))

    def samples(self, names: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        """Rows of `samples` for these samples."""
        import polars as pl

        parts = [pl.DataFrame(self.find("samples", where, [*columns, "step"])) for where in among("sample", names)]
        empty = pl.DataFrame(arrow_schema("samples", step=True).empty_table()).select(*columns, "step")
        return pl.concat([empty, *parts]).filter(pl.col("step").is_in(self.writers("samples"))).select(columns)

    def table(self, name: str, *, stage: bool = False) -> pl.DataFrame:
        """A whole table of the run, which is small; with `stage`, a column that says which stage wrote each row."""
        import polars as pl

        if not stage:
            return pl.DataFrame(self.store.read(name, self.writers(name)))
        stages: dict[str, list[str]] = {}
        for row in self.steps:
            if row.tables.get(name):
                stages.setdefault(row.stage, []).append(row.key)
        parts = [pl.DataFrame(self.store.read(name, keys)).with_columns(stage=pl.lit(at)) for at, keys in stages.items()]
        return pl.concat([pl.DataFrame(arrow_schema(name).empty_table()).with_columns(stage=pl.lit("")), *parts])
