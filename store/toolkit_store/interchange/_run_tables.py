"""The committed rows of a run, for an export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, DataError
from toolkit.ledger import RunRow, StepRow
from toolkit.tables import table
from toolkit_store.filters import among
from toolkit_store.query.committed_rows import CommittedRows
from toolkit_store.write.ledger import check_count

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from toolkit_store.store import Store


@dataclass(frozen=True)
class RunTables:
    """The committed rows of one run."""

    store: Store
    row: RunRow
    steps: Sequence[StepRow]

    @property
    def id(self) -> str:
        """The run's id."""
        return self.row.run

    @property
    def folder(self) -> Path:
        """The folder with its manifest and journal."""
        return self.store.folder / "runs" / self.id

    def keys(self, name: str) -> list[str]:
        """The steps that wrote rows to a table."""
        return [step.key for step in self.steps if step.tables.get(name)]

    def read(self, name: str) -> pa.Table:
        """A table's rows, sorted by its key; if several steps wrote one key, the first row."""
        import polars as pl

        rows = self.store.read(name, self.keys(name))
        keys = pl.DataFrame(rows.select(list(table(name).key)))
        return rows.filter(
            keys.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_arrow()
        )

    @cached_property
    def spaces(self) -> dict[str, dict[str, Any]]:
        """Id of a space -> its row of `spaces`."""
        return {row["space"]: row for row in self.read("spaces").to_pylist()}

    @cached_property
    def samples(self) -> dict[str, dict[str, Any]]:
        """Id of a sample -> its row of `samples`, in order of ids."""
        return {row["sample"]: row for row in self.read("samples").to_pylist()}

    def activations(
        self, spaces: Iterable[str] | None = None
    ) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
        """Each space with its rows (sample, position, features, values), by sample and position;
        one is read at a time.
        """
        import polars as pl

        columns = ("space", "sample", "position", "features", "values")
        for space in self._chosen(self._with_activations(), spaces):
            rows = self._rows.read(
                "activations", self.keys("activations"), {"space": [space]}, columns
            )
            yield self.spaces[space], _merged(pl.DataFrame(rows)).drop("space").rechunk()

    @cached_property
    def _rows(self) -> CommittedRows:
        return CommittedRows(self.store, self.steps)

    def _with_activations(self) -> list[str]:
        """The spaces that have rows; all rows have to be there."""
        counts: Counter[str] = Counter()
        for where in among("step", self.keys("activations")):
            for batch in self._rows.find_in_batches("activations", where, ["space"]):
                counts.update(dict(batch["space"].value_counts().iter_rows()))
        expected = sum(step.tables.get("activations", 0) for step in self.steps)
        check_count(f"Table 'activations' in {self.store.uri}", counts.total(), expected)
        return list(counts)

    def _chosen(self, there: Iterable[str], requested: Iterable[str] | None) -> list[str]:
        known = sorted(there)
        if not known:
            raise BadInput(
                f"Run {self.id} has no activations to export. Stages that extract write them: "
                "extract.activations."
            )
        for space in known:
            if space not in self.spaces:
                raise DataError(
                    f"space {space}: it has activations in run {self.id}, but table 'spaces' does "
                    "not describe it."
                )
        if requested is None:
            return known
        missing = [space for space in requested if space not in known]
        if missing:
            raise BadInput(
                f"Run {self.id} has no activations in space {missing[0]}. It has some in: "
                f"{', '.join(known)}."
            )
        return list(dict.fromkeys(requested))


def _merged(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per sample and position. If two steps stored the same one, each entry has its largest
    value, as in a query.
    """
    import polars as pl

    position_key = ["space", "sample", "position"]
    repeated = rows.select(pl.struct(position_key).is_duplicated()).to_series()
    if not repeated.any():
        return rows
    entries = (
        rows.filter(repeated)
        .explode("features", "values")
        .group_by([*position_key, "features"])
        .agg(pl.col("values").max())
    )
    filled = (
        entries.drop_nulls("features")
        .sort([*position_key, "features"])
        .group_by(position_key, maintain_order=True)
    )
    lists = filled.agg(pl.col("features", "values"))
    once = (
        rows.filter(repeated).select(position_key).unique().join(lists, on=position_key, how="left")
    )  # where nothing fired there are no entries
    whole = once.with_columns(pl.col("features", "values").fill_null([]))
    return pl.concat([rows.filter(~repeated), whole.select(rows.columns)]).sort(position_key)


def run_tables(store: Store, run: str, also: Iterable[str] = ()) -> RunTables:
    """The run of that id; `also`: keys of steps in its journal that its last row may lack."""
    states = store.run_states(run)
    if not states:
        raise BadInput(f"{store.uri} has no run '{run}'. All runs: toolkit runs.")
    return RunTables(store, states[0], store.steps(sorted({*states[0].steps, *also})))
