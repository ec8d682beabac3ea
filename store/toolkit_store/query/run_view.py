"""Queries of one run, answered as polars frames.

A `RunView` reads the committed steps of one run. For each space, `toolkit_store.query.by_index`
answers if the run has an index; otherwise, as during a run, `toolkit_store.query.by_rows` does.
Both give the same answers. A space is named by its id; `RunView.feature` finds it for an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, choices, nearest
from toolkit.features.addresses import locate
from toolkit.ledger import RunRow, StepRow
from toolkit.tables import TABLES
from toolkit_store import derived_steps
from toolkit_store.filters import equals
from toolkit_store.index.postings import number_key, space_key
from toolkit_store.index.projections import DecoderRows, projected, projection_key
from toolkit_store.query.by_index import ByIndex, RunIndex
from toolkit_store.query.by_rows import ByRows
from toolkit_store.query.by_sample import entries_of, rows_of, values_at
from toolkit_store.query.committed_rows import CommittedRows
from toolkit_store.query.similar import nearest_rows, slices
from toolkit_store.store import Store

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


SUMMARY = "*"
"""The `sample` of a row of `effects` that summarises all samples."""


class RunView:
    """The committed rows of one run. Made by `Features.run`."""

    def __init__(self, store: Store, state: RunRow, steps: Sequence[StepRow]) -> None:
        self.store, self.state, self.steps = store, state, steps
        self.id = state.run
        self._rows = CommittedRows(store, steps)
        self._answerers: dict[str, ByIndex | ByRows] = {}

    @property
    def partial(self) -> bool:
        """Whether the run is not done, so that answers are about what has committed so far."""
        return self.state.state != "done"

    # --- spaces ---

    def spaces(self) -> pl.DataFrame:
        """The spaces of the run: model, hookpoint, SAE and address behind each id."""
        return self._rows.table("spaces")

    def check_space(self, space: str) -> None:
        """Refuse a space that the run does not have."""
        if space not in self._declared and space not in self._spaces:
            known = self._spaces
            raise BadInput(
                f"Run {self.id} has no space '{space}'.{nearest(space, known)} Spaces: "
                f"{choices(known)}."
            )

    @cached_property
    def _declared(self) -> frozenset[str]:
        return frozenset(self.spaces()["space"].to_list())

    @cached_property
    def _spaces(self) -> list[str]:
        """Ids of spaces with activations, or declared."""
        results = set(self._declared)
        if self._numbering is not None:
            return sorted(results | set(derived_steps.spaces_of(self._numbering)))
        for batch in self._rows.activations(None, ["space"]):
            results.update(batch["space"].unique().to_pylist())
        return sorted(results)

    # --- by index or by rows ---

    def _answers(self, space: str) -> ByIndex | ByRows:
        """The object that answers queries about a space; refuses an unknown space."""
        if space not in self._answerers:
            step = self._index_steps.get(space)
            if step is None:
                self.check_space(space)
            self._answerers[space] = (
                ByRows(self._rows, space) if step is None else ByIndex(self._index, step)
            )
        return self._answerers[space]

    @cached_property
    def _numbering(self) -> StepRow | None:
        """The step that numbered the samples, if the run has an index."""
        cover = self._rows.cover
        return next(iter(self.store.index_steps([number_key(cover)])), None) if cover else None

    @cached_property
    def _index_steps(self) -> dict[str, str]:
        """Space -> the step that holds its postings."""
        if self._numbering is None:
            return {}
        keys = {
            space_key(self._numbering.key, space): space
            for space in derived_steps.spaces_of(self._numbering)
        }
        return {keys[row.key]: row.key for row in self.store.index_steps(keys)}

    @cached_property
    def _index(self) -> RunIndex:
        assert self._numbering is not None
        return RunIndex(self._rows, self._numbering.key)

    def prefetch(self, spaces: Iterable[str]) -> None:
        """Load the directories of these spaces together before they are queried; unknown spaces are
        refused.
        """
        requested = list(spaces)
        for space in requested:
            if space not in self._index_steps:
                self.check_space(space)
        if steps := [self._index_steps[space] for space in requested if space in self._index_steps]:
            self._index.prefetch(steps)

    # --- one feature ---

    def feature(self, address: str) -> tuple[str, int]:
        """Space and index of a feature by its address, as on the command line:
        `run.top(*run.feature("25/2059"))`.
        """
        space, index = locate(address, self.spaces().to_dicts())
        return str(space["space"]), index

    def activations(self, space: str, feature: int) -> pl.DataFrame:
        """Where a feature fired, and how strongly: sample, position, value, in the order of samples
        and positions.
        """
        _check_feature(feature)
        return self._answers(space).activations(feature)

    def top(self, space: str, feature: int, k: int = 20) -> pl.DataFrame:
        """The largest values of a feature: sample, position, value, unit."""
        _check_feature(feature)
        check_row_limit(k)
        return self._answers(space).top(feature, k)

    def entries(self, space: str, feature: int) -> int:
        """The number of positions at which a feature fired."""
        _check_feature(feature)
        return self._answers(space).entries(feature)

    def tokens(self, space: str, feature: int, sample: str) -> pl.DataFrame:
        """The tokens of a sample with the feature's value: 0 where it did not fire, null where
        nothing was kept.
        """
        import polars as pl

        _check_feature(feature)
        row = self._rows.samples([sample], ["sample", "pieces"]).head(1)
        if row.is_empty():
            raise BadInput(f"Run {self.id} has no sample '{sample}'.")
        pieces = row["pieces"][0]
        values = self.values(space, feature, [sample]).drop("sample")
        frame = pl.DataFrame(
            {"position": range(len(pieces)), "piece": pieces},
            {"position": pl.Int32, "piece": pl.String},
        )
        return frame.join(values, on="position", how="left", maintain_order="left")

    def values(self, space: str, feature: int, samples: Sequence[str]) -> pl.DataFrame:
        """The feature's value at every stored position of these samples, 0 where it did not fire:
        sample, position, value.
        """
        _check_feature(feature)
        return values_at(self._rows, space, feature, samples)

    def coactive(self, space: str, feature: int, k: int = 20) -> pl.DataFrame:
        """Features that fired at the same positions: at how many together (`both`), at how many at
        all (`count`), and the Jaccard index.
        """
        import polars as pl

        _check_feature(feature)
        check_row_limit(k)
        counts = self._answers(space).coactive_counts(feature)
        total = counts.filter(pl.col("feature") == feature)["both"].sum()
        others = counts.filter((pl.col("feature") != feature) & (pl.col("both") > 0))
        scored = others.with_columns(
            jaccard=pl.col("both") / (total + pl.col("count") - pl.col("both"))
        )
        return scored.sort(["jaccard", "both", "feature"], descending=[True, True, False]).head(k)

    # --- one sample ---

    def sample(
        self, sample: str, position: int | None = None, space: str | None = None
    ) -> pl.DataFrame:
        """The active features of a sample, the strongest first at each position: space, position,
        feature, value.
        """
        import polars as pl

        entries = entries_of(rows_of(self._rows, sample, space))
        return entries if position is None else entries.filter(pl.col("position") == position)

    def positions(self, sample: str, spaces: Sequence[str] | None = None) -> list[int]:
        """The positions of a sample with stored activations, in any space or in one of these."""
        rows = rows_of(self._rows, sample, None).select(["space", "position"]).to_pylist()
        return sorted({row["position"] for row in rows if spaces is None or row["space"] in spaces})

    def samples(self, names: Sequence[str]) -> pl.DataFrame:
        """The rows of table `samples` for these samples; an unknown sample has none."""
        return self._rows.samples(names, list(TABLES["samples"].columns)).unique(
            "sample", keep="first", maintain_order=True
        )

    # --- all features of a space ---

    def directory(self, space: str) -> pl.DataFrame:
        """Every feature of a space that fired: feature, number of samples (`count`), number of
        positions (`entries`), largest value.
        """
        return self._answers(space).directory()

    def frequent(self, space: str, at_least: int = 1) -> pl.DataFrame:
        """Features that fired in at least `at_least` samples: feature, number of samples, largest
        value; the most frequent first.
        """
        import polars as pl

        features = self.directory(space).filter(pl.col("count") >= at_least)
        return features.select("feature", "count", "max").sort(
            ["count", "feature"], descending=[True, False]
        )

    def looked_at(self, space: str) -> tuple[int, int]:
        """How many samples, and how many of their tokens, have rows in a space."""
        return self._answers(space).looked_at()

    def features(self, space: str | None = None, stat: str | None = None) -> pl.DataFrame:
        """Statistics, tests and labels of features, one row per statistic: the columns of table
        `features`, and `stage`.
        """
        import polars as pl

        where = {
            name: [value] for name, value in (("space", space), ("stat", stat)) if value is not None
        }
        return pl.DataFrame(self._rows.by_stage("features", where))

    def labels(self, space: str, features: Iterable[int]) -> pl.DataFrame:
        """Labels of features: feature, label (the first by group, if there are several)."""
        import polars as pl

        where = f"{equals('stat', 'label')} AND {equals('space', space)}"
        rows = pl.DataFrame(
            self._rows.find("features", where, ["feature", "group", "text", "step"])
        )
        condition = pl.col("feature").is_in(list(features)) & pl.col("step").is_in(
            self._rows.writers("features")
        )
        ours = rows.filter(condition & pl.col("text").is_not_null())
        return (
            ours.sort("group")
            .unique("feature", keep="first", maintain_order=True)
            .select("feature", label="text")
        )

    def effects(
        self,
        space: str | None = None,
        feature: int | None = None,
        arm: str | None = None,
        *,
        samples: bool = False,
    ) -> pl.DataFrame:
        """What interventions did: summaries over samples, or with `samples` one row per sample; and
        `stage`.
        """
        import polars as pl

        if feature is not None:
            _check_feature(feature)
        where = {
            name: [value] for name, value in (("space", space), ("arm", arm)) if value is not None
        }
        whose = {} if feature is None else {"feature": [feature]}
        kind = {} if samples else {"sample": [SUMMARY]}
        effects_rows = pl.DataFrame(self._rows.by_stage("effects", {**where, **whose, **kind}))
        return effects_rows.filter(pl.col("sample") != SUMMARY) if samples else effects_rows

    def similar(
        self, space: str, feature: int, k: int = 20, rows: DecoderRows | np.ndarray | None = None
    ) -> pl.DataFrame:
        """Features of the space with the nearest decoder direction: feature, cosine.

        `rows` are the space's decoder rows, or a function that gives a range of them. Without them,
        the store's projections of the SAE (`projections`) are used, if there are any: cosines are
        then approximate.
        """
        check_row_limit(k)
        rows = self.projections(space) if rows is None else rows
        if rows is None:
            raise BadInput(
                "The decoder rows of the space are needed: give `rows`, an array or a function of "
                "a range; or keep projections in the store, where the SAE files are: toolkit store "
                "project"
            )
        width = self._width(space, rows)
        if not 0 <= feature < width:
            raise BadInput(
                f"There is no feature {feature} in space '{space}'; its width is {width} (0 to "
                f"{width - 1})."
            )
        return nearest_rows(rows if callable(rows) else slices(rows), width, feature, k)

    def projections(self, space: str) -> np.ndarray | None:
        """The stored projections of the space's decoder, one row per feature; None if there are
        none.
        """
        results = [
            row
            for row in self.spaces().to_dicts()
            if row["space"] == space and row["sae"] is not None
        ]
        return projected(self.store, results[0]["sae_hash"]) if results else None

    def _width(self, space: str, rows: Any) -> int:
        import polars as pl

        if not callable(rows):
            return len(rows)
        space_row = self.spaces().filter(pl.col("space") == space)
        if space_row.is_empty():
            raise BadInput(
                f"Run {self.id} does not say how wide space '{space}' is; give `rows` as an array."
            )
        return int(space_row["width"][0])

    # --- SQL ---

    def sql(self, text: str, k: int | None = None) -> pl.DataFrame:
        """One SELECT over the tables of the run, in polars' SQL; with `k`, its first rows. It can
        neither write nor read anything else.
        """
        from toolkit_store.query.sql import select

        check_row_limit(k or 0)
        with self.store.reading():
            return select(text, self.lazy, max_rows=k)

    def lazy(self, name: str) -> pl.LazyFrame:
        """A table of the run, read lazily. Tables that the store derives were written by the
        store's own steps.
        """
        import polars as pl

        from toolkit_store.query.lazy import lazy_table

        if TABLES[name].shared:
            return pl.DataFrame(self._rows.table(name)).lazy()
        steps = (
            [row.key for row in self._own_steps if row.tables.get(name)]
            if TABLES[name].derived
            else self._rows.writers(name)
        )
        return lazy_table(self.store.database, name, steps)

    @cached_property
    def _own_steps(self) -> list[StepRow]:
        """The store's own steps that derived something from this run: its index, and projections of
        its SAEs.
        """
        hashes = dict.fromkeys(
            row["sae_hash"] for row in self.spaces().to_dicts() if row["sae"] is not None
        )
        keys = [*self._index_steps.values(), *map(projection_key, hashes)]
        return [*([self._numbering] if self._numbering else []), *self.store.index_steps(keys)]


def _check_feature(feature: int) -> None:
    if not 0 <= feature < 1 << 32:
        raise BadInput(
            f"There is no feature {feature}: features are numbered from 0 to the width of their "
            "space."
        )


def check_row_limit(k: int) -> None:
    if k < 0:
        raise BadInput(f"k={k}: the number of rows must be 0 or more.")
