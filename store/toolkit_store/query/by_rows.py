"""Queries of a space answered by scanning the rows of `activations`: for a run without an index,
such as one still running.

`toolkit_store.query.by_index.ByIndex` gives the same answers, by the same methods, from postings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.tables import arrow_schema
from toolkit_store.filters import equals, holds
from toolkit_store.query.committed_rows import CommittedRows

if TYPE_CHECKING:
    import polars as pl

_COLUMNS = ("sample", "position", "features", "values")


class ByRows:
    """A space of a run, answered from its rows."""

    def __init__(self, rows: CommittedRows, space: str) -> None:
        self._rows, self._space = rows, space

    def activations(self, feature: int) -> pl.DataFrame:
        """Sample, position and value of a feature, in the order of samples and positions."""
        return self._rows_with(feature).sort("sample", "position")

    def top(self, feature: int, k: int) -> pl.DataFrame:
        """Sample, position, value and unit of its largest values."""
        entries = (
            self._rows_with(feature)
            .sort(["value", "sample", "position"], descending=[True, False, False])
            .head(k)
        )
        units = self._rows.samples(entries["sample"].to_list(), ["sample", "unit"]).unique("sample")
        return entries.join(units, on="sample", how="left", maintain_order="left")

    def entries(self, feature: int) -> int:
        """The number of positions at which it fired."""
        return self._rows_with(feature).height

    def directory(self) -> pl.DataFrame:
        """Feature, samples in which it fired (`count`), entries and largest value."""
        import polars as pl

        entries = self._all().group_by("feature", "sample", "position").agg(pl.col("value").max())
        return entries.group_by("feature").agg(
            pl.col("sample").n_unique().alias("count"),
            pl.len().cast(pl.UInt64).alias("entries"),
            pl.col("value").max().alias("max"),
        )

    def looked_at(self) -> tuple[int, int]:
        """How many samples, and how many of their tokens, have rows in the space."""
        batches = self._rows.activations(equals("space", self._space), ["sample", "position"])
        columns = ((batch["sample"], batch["position"]) for batch in batches)
        places = {
            sample_position
            for samples, positions in columns
            for sample_position in zip(samples.to_pylist(), positions.to_pylist(), strict=True)
        }
        return len({sample for sample, _ in places}), len(places)

    def coactive_counts(self, feature: int) -> pl.DataFrame:
        """Each feature, the number of positions at which it fired together with this one (`both`),
        and at all (`count`).
        """
        import polars as pl

        entries = self._all().select("sample", "position", "feature").unique()
        positions = entries.filter(pl.col("feature") == feature).select("sample", "position")
        both = (
            entries.join(positions, on=["sample", "position"], how="semi")
            .group_by("feature")
            .agg(both=pl.len())
        )
        counts = entries.group_by("feature").agg(count=pl.len())
        joined = counts.join(both, on="feature", how="left").with_columns(
            pl.col("both").fill_null(0)
        )
        return joined.select(
            pl.col(name).cast(kind) for name, kind in coactive_schema().items()
        ).sort("feature")

    def _rows_with(self, feature: int) -> pl.DataFrame:
        import polars as pl

        flat = self._flat(f"{equals('space', self._space)} AND {holds('features', feature)}")
        return (
            flat.filter(pl.col("feature") == feature)
            .group_by("sample", "position")
            .agg(pl.col("value").max())
        )

    def _all(self) -> pl.DataFrame:
        return self._flat(equals("space", self._space))

    def _flat(self, where: str) -> pl.DataFrame:
        """One row per entry."""
        import polars as pl

        empty = pl.DataFrame(arrow_schema("activations").empty_table()).select(_COLUMNS)
        parts = [
            pl.DataFrame(batch).select(_COLUMNS)
            for batch in self._rows.activations(where, _COLUMNS)
        ]
        some = pl.concat([empty, *parts]).filter(pl.col("features").list.len() > 0)
        return some.explode("features", "values").rename({"features": "feature", "values": "value"})


def coactive_schema() -> dict[str, Any]:
    """The columns of `coactive_counts`."""
    import polars as pl

    return {"feature": pl.UInt32, "both": pl.Int64, "count": pl.Int64}
