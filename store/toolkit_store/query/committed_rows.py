"""The committed rows of one run, read from the tables: the basis of every answer of
`toolkit_store.query`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from toolkit.ledger import StepRow
from toolkit.tables import TABLES, arrow_schema
from toolkit_store import derived_steps
from toolkit_store.filters import among
from toolkit_store.store import Store
from toolkit_store.write.rows import ordered

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


Where = Mapping[str, Sequence[str] | Sequence[int]]
"""The allowed values of each column."""


class CommittedRows:
    """The rows that these steps wrote."""

    def __init__(self, store: Store, steps: Sequence[StepRow]) -> None:
        self.store, self.steps = store, steps
        self._database = store.database

    @cached_property
    def cover(self) -> list[str]:
        """The steps that wrote activations."""
        return derived_steps.covered(self.steps)

    def writers(self, name: str) -> list[str]:
        """The steps that wrote to a table."""
        return [row.key for row in self.steps if row.tables.get(name)]

    def find(self, name: str, where: str, columns: Sequence[str]) -> pa.Table:
        """Matching rows of a table, of any run: the caller selects by run."""
        with self.store.reading():
            return self._database.rows(name, where, columns)

    def find_in_batches(
        self, name: str, where: str, columns: Sequence[str]
    ) -> Iterator[pl.DataFrame]:
        """Matching rows of a table in batches of a few thousand."""
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
            for batch in (
                self._database.batches("activations", where, [*columns, "step"])
                if self.cover
                else ()
            ):
                yield batch.filter(pc.is_in(batch["step"], value_set=cover))

    def samples(self, names: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        """Rows of `samples` for these samples."""
        import polars as pl

        parts = [
            pl.DataFrame(self.find("samples", where, [*columns, "step"]))
            for where in among("sample", names)
        ]
        empty = pl.DataFrame(arrow_schema("samples", step=True).empty_table()).select(
            *columns, "step"
        )
        return (
            pl.concat([empty, *parts])
            .filter(pl.col("step").is_in(self.writers("samples")))
            .select(columns)
        )

    def table(self, name: str) -> pl.DataFrame:
        """A whole table of the run, for small tables."""
        import polars as pl

        return pl.DataFrame(self.store.read(name, self.writers(name)))

    def stages(self, name: str, stage: str | None = None) -> dict[str, list[str]]:
        """Stage -> its steps that wrote to a table; of one stage if it is named."""
        out: dict[str, list[str]] = {}
        for row in self.steps:
            if row.tables.get(name) and stage in (None, row.stage):
                out.setdefault(row.stage, []).append(row.key)
        return out

    def values(self, name: str, column: str, where: Where, stage: str | None = None) -> list[str]:
        """The distinct texts of a column in matching rows, read a batch at a time."""
        keys = [key for keys in self.stages(name, stage).values() for key in keys]
        results: set[str] = set()
        for step_filter in among("step", keys):
            for batch in self.find_in_batches(
                name, " AND ".join(filter(None, [matching(where), step_filter])), [column]
            ):
                results.update(batch[column].unique().to_list())
        return sorted(results)

    def by_stage(
        self,
        name: str,
        where: Where | None = None,
        columns: Sequence[str] | None = None,
        stage: str | None = None,
    ) -> pa.Table:
        """The rows of a table that match, in the order of its key, with a column `stage` that says
        which stage wrote each; only those of one stage if it is named.
        """
        import pyarrow as pa

        selected = list(TABLES[name].columns if columns is None else columns)
        schema = pa.schema(
            [
                *(arrow_schema(name).field(column) for column in selected),
                pa.field("stage", pa.string()),
            ]
        )
        parts = []
        for index, keys in self.stages(name, stage).items():
            rows = self.read(name, keys, where, selected)
            parts.append(rows.append_column("stage", pa.repeat(pa.scalar(index), rows.num_rows)))
        return pa.concat_tables([schema.empty_table(), *parts])

    def stage_batches(
        self, name: str, columns: Sequence[str], stage: str | None = None
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        """Each stage that wrote to a table, or the one that is named, with its rows, a few thousand
        at a time.
        """
        for stage_name, keys in self.stages(name, stage).items():
            for step_filter in among("step", keys):
                for batch in self.find_in_batches(name, step_filter, columns):
                    yield stage_name, batch

    def encoded(
        self, name: str, where: Where, columns: Sequence[str], stage: str | None = None
    ) -> pa.Table:
        """The rows of `by_stage`, in any order and read a batch at a time, with every text as a
        number of a dictionary: a word that many rows repeat takes four bytes in each.
        """
        import pyarrow as pa

        schema = pa.schema([arrow_schema(name).field(column) for column in columns])
        named = schema.append(pa.field("stage", pa.string()))
        parts = [_encoded(named.empty_table())]
        for stage_name, keys in self.stages(name, stage).items():
            for step_filter in among("step", keys):
                condition = " AND ".join(filter(None, [matching(where), step_filter]))
                with self.store.reading():
                    for batch in self._database.batches(name, condition, columns):
                        word = pa.repeat(pa.scalar(stage_name), batch.num_rows)
                        parts.append(_encoded(batch.append_column("stage", word)))
        return pa.concat_tables(parts).unify_dictionaries()

    def read(
        self, name: str, keys: Sequence[str], where: Where | None, columns: Sequence[str]
    ) -> pa.Table:
        """The rows of these steps that match, in the order of the table's key."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not where:
            return self.store.read(name, keys, columns)
        if TABLES[name].shared:
            rows = self.store.read(name, keys)
            for column, values in where.items():
                rows = rows.filter(pc.is_in(rows[column], value_set=pa.array(values)))
            return rows.select(list(columns))
        needed = list(dict.fromkeys([*columns, *TABLES[name].key, "step"]))
        parts = [
            self.find(name, f"{matching(where)} AND {step_filter}", needed)
            for step_filter in among("step", keys)
        ]
        return ordered(name, pa.concat_tables(parts)).select(list(columns))


def _encoded(rows: pa.Table) -> pa.Table:
    """The rows with their columns of texts dictionary-encoded."""
    import pyarrow as pa

    columns = [
        column.dictionary_encode() if pa.types.is_string(column.type) else column
        for column in rows.columns
    ]
    return pa.table(columns, names=rows.column_names)


def matching(where: Where) -> str:
    """A filter for rows in which every named column has one of its allowed values."""
    return " AND ".join(
        f"({' OR '.join(_one_of(column, values))})" for column, values in where.items()
    )


def _one_of(column: str, values: Sequence[str] | Sequence[int]) -> Iterator[str]:
    yield from among(f"`{column}`", [value for value in values if isinstance(value, str)])
    if numbers := [str(int(value)) for value in values if not isinstance(value, str)]:
        yield f"`{column}` IN ({', '.join(numbers)})"
    if not values:
        yield "false"
