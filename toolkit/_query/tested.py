"""The features that a comparison tested, as numbers: a run may have hundreds of thousands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit._query.ranking import entries_by_stat
from toolkit._query.run import Run

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class TestedFeatures:
    """One row per feature: number of the space, feature, effect, p, q, significant; the lowest q
    first.
    """

    run: Run
    rows: pl.DataFrame
    spaces: Sequence[str]

    def named(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Some of the rows with the address of each feature."""
        import polars as pl

        addresses = [
            self.run.label(self.spaces[space], feature)
            for space, feature in rows.select("space", "feature").iter_rows()
        ]
        others = rows.drop("space", "feature")
        return others.insert_column(0, pl.Series("address", addresses, pl.String))


def tested_features(run: Run, comparison: str, effect: str) -> TestedFeatures:
    """The features of a comparison."""
    import polars as pl

    stats = [effect, "p", "q", "significant"]
    where = {"comparison": [comparison], "stat": stats}
    entries, names = entries_by_stat(run, None, where)
    kinds = {"space": pl.Int32, "feature": pl.UInt32}
    pairs = [rows.select(*kinds) for rows in entries.values()]
    features = pl.concat(pairs).unique() if pairs else pl.DataFrame(schema=kinds)
    for stat in stats:
        if stat in entries:
            rows = entries[stat].select(*kinds, pl.col("number").alias(stat))
            first = rows.unique(list(kinds), keep="first")
            features = features.join(first, on=list(kinds), how="left")
        else:
            features = features.with_columns(pl.lit(None, pl.Float64).alias(stat))
    return TestedFeatures(run, features.sort(["q", "p", *kinds], nulls_last=True), names["space"])
