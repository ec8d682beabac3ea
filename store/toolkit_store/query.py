"""Questions to a store, answered as polars frames: `toolkit_store.open(folder).run().top(space, 2059)`.

A `RunView` looks at the committed steps of one run. Where the run's index is there (`toolkit_store.indexing`), a feature is one
row of `postings`, found by a B-tree; without it, as while a run goes on, the rows of `activations` are searched. Both ways give
the same answer. A space is named by its id, which `toolkit.addresses` finds for an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, choices, nearest
from toolkit.records import RunRow, StepRow
from toolkit.tables import TABLES, arrow_schema
from toolkit_store import indexing
from toolkit_store.database import Database, among, equals, holds
from toolkit_store.postings import BLOCK, LAST_BLOCK, number_key, place, places, space_key
from toolkit_store.store import Store, open_store

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

Decoder = Callable[[int, int], "np.ndarray"]
"""Gives the decoder rows of the features from the first up to, not including, the last."""

SUMMARY = "*"
"""The sample of a row of `effects` that sums up all samples."""

_DIRECTORIES = 64
_DECODER_ROWS = 4096


def open_features(path: str | Path) -> Features:
    """A store for reading, or `StoreNotUsable` saying what is there and what to do."""
    return Features(open_store(path, read_only=True))


class Features:
    """A store's runs and what they found."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def runs(self) -> list[RunRow]:
        """The latest state of each run, oldest first."""
        return self.store.run_states()

    def run(self, run_id: str | None = None, *, steps: Iterable[str] = ()) -> RunView:
        """A run, the newest by default. `steps` names more of its steps, for one that is running and uses steps of others."""
        states = {row.run: row for row in self.runs()}
        if not states:
            raise BadInput(f"{self.store.folder} holds no runs yet. Start one: toolkit run SPEC")
        name = next(reversed(states)) if run_id is None else run_id
        if name not in states:
            raise BadInput(f"There is no run '{name}' in {self.store.folder}.{nearest(name, states)} Runs: {choices(states)}.")
        return RunView(self.store, states[name], self._steps(states[name], steps))

    def _steps(self, state: RunRow, more: Iterable[str]) -> list[StepRow]:
        """Of a run that is not done, also those that it has committed since its state was written."""
        keys = {*state.steps, *more}
        if state.state == "done":
            return self.store.steps(sorted(keys))
        return [row for row in self.store.steps() if row.key in keys or row.run == state.run]

    def diff(self, run_a: str, run_b: str, space: str) -> pl.DataFrame:
        """How often and how strongly each feature fired in two runs, the largest change of rate first.

        A feature is compared with itself: the space has to be the same one in both.
        """
        import polars as pl

        views = self.run(run_a), self.run(run_b)
        for view in views:
            view.check_space(space)
        sides = [
            view.frequent(space, 1)
            .with_columns(rate=pl.col("count") / max(view.samples_in(space), 1))
            .rename({"count": f"count_{side}", "max": f"max_{side}", "rate": f"rate_{side}"})
            for side, view in zip("ab", views, strict=True)
        ]
        both = sides[0].join(sides[1], on="feature", how="full", coalesce=True)
        filled = both.with_columns(pl.col("count_a", "count_b", "rate_a", "rate_b").fill_null(0))
        changed = filled.with_columns(change=pl.col("rate_b") - pl.col("rate_a"))
        named = changed.select(
            pl.lit(space).alias("space"), pl.lit(views[0].id).alias("run_a"), pl.lit(views[1].id).alias("run_b"), pl.all()
        )
        return named.sort([pl.col("change").abs(), "feature"], descending=[True, False])

    def sql(self, text: str, run_id: str | None = None) -> pl.DataFrame:
        """One SELECT over the tables of a run, in polars' SQL. It can neither write nor read anything else."""
        return self.run(run_id).sql(text)


class RunView:
    """The committed rows of one run. Made by `Features.run`."""

    def __init__(self, store: Store, state: RunRow, steps: Sequence[StepRow]) -> None:
        self.store, self.state, self.steps = store, state, steps
        self.id = state.run
        self._database: Database = store.database
        self._directories: dict[str, pl.DataFrame] = {}

    @property
    def partial(self) -> bool:
        """Whether the run is not done, so that answers are about what has committed so far."""
        return self.state.state != "done"

    # --- spaces ---

    def spaces(self) -> pl.DataFrame:
        """The spaces of the run: model, hookpoint, SAE and address behind each id."""
        return self._table("spaces")

    @cached_property
    def _spaces(self) -> list[str]:
        """Ids of spaces with activations, or declared."""
        row = self._numbering
        found = set(self.spaces()["space"].to_list())
        if row is not None:
            return sorted(found | set(indexing.spaces_of(row)))
        for batch in self._rows(None, ["space"]):
            found.update(batch["space"].unique().to_pylist())
        return sorted(found)

    def check_space(self, space: str) -> None:
        """Refuse a space that the run does not have."""
        if space not in self._spaces:
            known = self._spaces
            raise BadInput(f"Run {self.id} has no space '{space}'.{nearest(space, known)} Spaces: {choices(known)}.")

    # --- one feature ---

    def activations(self, space: str, feature: int) -> pl.DataFrame:
        """Where a feature fired, and how strongly: sample, position, value, in the order of samples and positions."""
        step = self._indexed(space)
        if step is None:
            return self._searched(space, feature).sort("sample", "position")
        return self._named(self._postings(step, feature))

    def top(self, space: str, feature: int, k: int = 20) -> pl.DataFrame:
        """Where a feature fired hardest: sample, position, value, unit."""
        step = self._indexed(space)
        if step is None:
            found = self._searched(space, feature).sort(["value", "sample", "position"], descending=[True, False, False]).head(k)
            return found.join(self._units(found["sample"].to_list()), on="sample", how="left", maintain_order="left")
        best = self._postings(step, feature, k).top_k(k, by=["value", "number", "position"], reverse=[False, True, True])
        ordered = best.sort(["value", "number", "position"], descending=[True, False, False])
        return self._named(ordered, unit=True)

    def entries(self, space: str, feature: int) -> int:
        """At how many places a feature fired."""
        import polars as pl

        if self._indexed(space) is None:
            return self._searched(space, feature).height
        return int(self._directory(space).filter(pl.col("feature") == feature)["entries"].sum())

    def tokens(self, space: str, feature: int, sample: str) -> pl.DataFrame:
        """The tokens of a sample with the feature's value: 0 where it did not fire, null where nothing was kept."""
        import polars as pl

        found = self._of_samples([sample], ["sample", "pieces"]).head(1)
        if found.is_empty():
            raise BadInput(f"Run {self.id} has no sample '{sample}'.")
        pieces = found["pieces"][0]
        rows = self._rows_of(sample, space)
        fired = _exploded(rows).filter(pl.col("feature") == feature).group_by("position").agg(pl.col("value").max())
        kept = rows.select("position").unique().join(fired, on="position", how="left").with_columns(pl.col("value").fill_null(0))
        frame = pl.DataFrame({"position": range(len(pieces)), "piece": pieces}, {"position": pl.Int32, "piece": pl.String})
        return frame.join(kept, on="position", how="left", maintain_order="left")

    def coactive(self, space: str, feature: int, k: int = 20) -> pl.DataFrame:
        """Features that fired at the same places: in how many together (`both`), in how many themselves, and the Jaccard index."""
        import polars as pl

        counts = self._together(space, feature)
        own = counts.filter(pl.col("feature") == feature)["both"].sum()
        others = counts.filter((pl.col("feature") != feature) & (pl.col("both") > 0))
        scored = others.with_columns(jaccard=pl.col("both") / (own + pl.col("count") - pl.col("both")))
        return scored.sort(["jaccard", "both", "feature"], descending=[True, True, False]).head(k)

    # --- one sample ---

    def sample(self, sample: str, position: int | None = None, space: str | None = None) -> pl.DataFrame:
        """What is active on a sample, the strongest first within each place: space, position, feature, value."""
        import polars as pl

        rows = self._rows_of(sample, space)
        if position is not None:
            rows = rows.filter(pl.col("position") == position)
        found = _exploded(rows).group_by("space", "position", "feature").agg(pl.col("value").max())
        return found.sort(["space", "position", "value", "feature"], descending=[False, False, True, False])

    def samples(self, names: Sequence[str]) -> pl.DataFrame:
        """The rows of table `samples` for these samples; one that there is not has none."""
        return self._of_samples(names, list(TABLES["samples"].columns)).unique("sample", keep="first", maintain_order=True)

    # --- all features of a space ---

    def frequent(self, space: str, at_least: int = 1) -> pl.DataFrame:
        """Features that fired in at least so many samples: feature, number of samples, largest value; the most frequent first."""
        import polars as pl

        found = self._directory(space).filter(pl.col("count") >= at_least)
        return found.select("feature", "count", "max").sort(["count", "feature"], descending=[True, False])

    def samples_in(self, space: str) -> int:
        """How many samples have rows in a space."""
        step = self._indexed(space)
        if step is not None:
            return int(self._read("feature_index", equals("step", step), ["samples"])["samples"][0])
        return len({name for batch in self._rows(equals("space", space), ["sample"]) for name in batch["sample"].to_pylist()})

    def features(self, space: str | None = None, stat: str | None = None) -> pl.DataFrame:
        """What was found out about features, a row a statistic: the columns of table `features`, and `stage`."""
        import polars as pl

        found = self._table("features", stage=True)
        wanted = [pl.col(name) == value for name, value in (("space", space), ("stat", stat)) if value is not None]
        return found.filter(*wanted) if wanted else found

    def labels(self, space: str, features: Iterable[int]) -> pl.DataFrame:
        """What features are said to stand for: feature, label (of several the first, by their group)."""
        import polars as pl

        where = f"{equals('stat', 'label')} AND {equals('space', space)}"
        found = self._read("features", where, ["feature", "group", "text", "step"])
        wanted = pl.col("feature").is_in(list(features)) & pl.col("step").is_in(self._writers("features"))
        ours = found.filter(wanted & pl.col("text").is_not_null())
        return ours.sort("group").unique("feature", keep="first", maintain_order=True).select("feature", label="text")

    def effects(
        self, space: str | None = None, feature: int | None = None, arm: str | None = None, *, samples: bool = False
    ) -> pl.DataFrame:
        """What interventions did: summaries over samples, or with `samples` a row a sample; and `stage`."""
        import polars as pl

        found = self._table("effects", stage=True)
        asked = (("space", space), ("feature", feature), ("arm", arm))
        wanted = [pl.col(name) == value for name, value in asked if value is not None]
        return found.filter((pl.col("sample") == SUMMARY) != samples, *wanted)

    def similar(self, space: str, feature: int, k: int = 20, rows: Decoder | np.ndarray | None = None) -> pl.DataFrame:
        """Features of the space with the nearest decoder direction: feature, cosine.

        `rows` are the space's decoder rows, or a function that gives a range of them.
        """
        import numpy as np
        import polars as pl

        if rows is None:
            raise BadInput("The decoder rows of the space are needed: give `rows`, an array or a function of a range.")
        give = rows if callable(rows) else _slices(rows)
        width = self._width(space, rows)
        if not 0 <= feature < width:
            raise BadInput(f"There is no feature {feature} in space '{space}'; its width is {width} (0 to {width - 1}).")
        own = _unit_rows(give(feature, feature + 1))[0]
        parts = [_unit_rows(give(first, min(first + _DECODER_ROWS, width))) @ own for first in range(0, width, _DECODER_ROWS)]
        cosines = np.concatenate(parts)
        frame = pl.DataFrame({"feature": np.arange(width, dtype=np.uint32), "cosine": cosines})
        return frame.filter(pl.col("feature") != feature).sort(["cosine", "feature"], descending=[True, False]).head(k)

    def _width(self, space: str, rows: Any) -> int:
        import polars as pl

        if not callable(rows):
            return len(rows)
        found = self.spaces().filter(pl.col("space") == space)
        if found.is_empty():
            raise BadInput(f"Run {self.id} does not say how wide space '{space}' is; give `rows` as an array.")
        return int(found["width"][0])

    # --- SQL ---

    def sql(self, text: str) -> pl.DataFrame:
        """One SELECT over the tables of the run, in polars' SQL. It can neither write nor read anything else."""
        from toolkit_store.sql import select

        with self.store.reading():
            return select(text, lambda name: self._lazy(name))

    def _lazy(self, name: str) -> pl.LazyFrame:
        """A table of the run that is read, column by column as needed, when the frame is collected."""
        import polars as pl
        from polars.io.plugins import register_io_source

        schema = pl.DataFrame(arrow_schema(name).empty_table()).schema
        steps = self._writers(name)

        def batches(
            columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            left = n_rows
            for where in among("step", steps):
                for batch in self._database.batches(name, where, columns or list(schema)):
                    frame = pl.DataFrame(batch)
                    frame = frame if predicate is None else frame.filter(predicate)
                    yield frame if left is None else frame.head(left)
                    left = None if left is None else left - len(frame)
                    if left is not None and left <= 0:
                        return

        lazy: pl.LazyFrame = register_io_source(batches, schema=schema)
        return lazy.unique(TABLES[name].key, keep="first") if TABLES[name].facts else lazy

    # --- by the index ---

    @cached_property
    def _cover(self) -> list[str]:
        return indexing.covered(self.steps)

    @cached_property
    def _numbering(self) -> StepRow | None:
        """The step that numbered the samples, if the run has an index."""
        return next(iter(self.store.index_steps([number_key(self._cover)])), None) if self._cover else None

    @cached_property
    def _index(self) -> dict[str, str]:
        """Space -> the step that holds its postings."""
        if self._numbering is None:
            return {}
        keys = {space_key(self._numbering.key, space): space for space in indexing.spaces_of(self._numbering)}
        return {keys[row.key]: row.key for row in self.store.index_steps(keys)}

    def _indexed(self, space: str) -> str | None:
        """The step with the postings of a space, None if it is not indexed; refuses a space that is not there."""
        step = self._index.get(space)
        if step is None:
            self.check_space(space)
        return step

    @cached_property
    def _samples(self) -> pl.DataFrame:
        """Sample and unit by number."""
        assert self._numbering is not None
        return self._read("sample_index", equals("step", self._numbering.key), ["number", "sample", "unit"]).sort("number")

    def _postings(self, step: str, feature: int, k: int | None = None) -> pl.DataFrame:
        """Number, position and value of the entries of a feature; with `k`, of enough blocks to hold the k largest."""
        import polars as pl

        columns = ["step", "feature", "count", "samples", "positions", "values"]
        first = self._blocks(step, feature, _is_place(step, feature, 0), columns)
        parts = [first]
        if first["count"].sum() == BLOCK:  # a full block: there may be more
            ranges = self._more(step, feature, first, k)
            parts += [self._blocks(step, feature, where, columns) for where in ranges]
        found = pl.concat(parts).select("samples", "positions", "values")
        flat = found.explode("samples", "positions", "values") if found.height else found.select(pl.all().list.first())
        return flat.rename({"samples": "number", "positions": "position", "values": "value"})

    def _more(self, step: str, feature: int, first: pl.DataFrame, k: int | None) -> list[str]:
        """Filters for the further blocks. Of a dense feature the k largest entries lie in the k blocks with the largest maxima."""
        import polars as pl

        beyond = f"place > {place(step, feature)} AND place <= {place(step, feature, LAST_BLOCK)}"
        heads = self._blocks(step, feature, beyond, ["step", "feature", "block", "max"])
        if k is not None:
            heads = heads.sort(["max", "block"], descending=[True, False]).head(k)
        if k is not None and k <= BLOCK:
            reached = first.select(pl.col("values").list.explode().top_k(k).min()).item()
            heads = heads.filter(pl.col("max") > reached)
        return [_is_place(step, feature, block) for block in sorted(heads["block"].to_list())]

    def _blocks(self, step: str, feature: int, where: str, columns: Sequence[str]) -> pl.DataFrame:
        """Blocks of postings; places are hashes, so another step or feature may have the same."""
        import polars as pl

        found = self._read("postings", where, columns)
        return found.filter((pl.col("step") == step) & (pl.col("feature") == feature))

    def _named(self, found: pl.DataFrame, *, unit: bool = False) -> pl.DataFrame:
        """With the samples' names instead of their numbers."""
        import polars as pl

        rows = self._samples[found["number"]]
        columns = {"sample": rows["sample"], "position": found["position"], "value": found["value"]}
        return pl.DataFrame({**columns, "unit": rows["unit"]} if unit else columns)

    def _directory(self, space: str) -> pl.DataFrame:
        """Feature, samples in which it fired, entries and largest value. Of an index it never changes, so it is kept."""
        step = self._indexed(space)
        if step is None:
            return self._counted(space)
        if step not in self._directories:
            while len(self._directories) >= _DIRECTORIES:
                del self._directories[next(iter(self._directories))]
            found = self._read("feature_index", equals("step", step), ["block", "features", "counts", "fired", "maxima"])
            lists = (
                found.sort("block")
                .select("features", "fired", "counts", "maxima")
                .explode("features", "fired", "counts", "maxima")
            )
            renamed = lists.rename({"features": "feature", "fired": "count", "counts": "entries", "maxima": "max"})
            self._directories[step] = renamed.drop_nulls("feature")
        return self._directories[step]

    def _together(self, space: str, feature: int) -> pl.DataFrame:
        """Feature, places where it fired together with the given one, and all its places."""
        import polars as pl

        step = self._indexed(space)
        if step is None:
            return self._together_searched(space, feature)
        own = self._postings(step, feature)
        target = _Places(own["number"].to_numpy(), own["position"].to_numpy())
        first, last = places(step)
        where = f"place >= {first} AND place <= {last}"
        batches = self._batches("postings", where, ["step", "feature", "count", "samples", "positions"])
        own_blocks = (batch.filter(pl.col("step") == step) for batch in batches)
        parts = [_both(batch, target) for batch in own_blocks if batch.height]
        counted = (
            pl.concat([pl.DataFrame(schema=_together_schema()), *parts]).group_by("feature").agg(pl.col("both", "count").sum())
        )
        return counted.sort("feature")

    # --- by the rows ---

    def _writers(self, name: str) -> list[str]:
        return [row.key for row in self.steps if row.tables.get(name)]

    def _rows(self, where: str | None, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows of `activations` of this run, in batches."""
        import pyarrow as pa
        import pyarrow.compute as pc

        cover = pa.array(self._cover, pa.string())
        with self.store.reading():
            for batch in self._database.batches("activations", where, [*columns, "step"]) if self._cover else ():
                yield batch.filter(pc.is_in(batch["step"], value_set=cover))

    def _rows_of(self, sample: str, space: str | None) -> pl.DataFrame:
        import polars as pl

        where = equals("sample", sample) + (f" AND {equals('space', space)}" if space is not None else "")
        found = self._read("activations", where, ["space", "position", "features", "values", "step"])
        return found.filter(pl.col("step").is_in(self._cover))

    def _searched(self, space: str, feature: int) -> pl.DataFrame:
        """Sample, position and value of a feature from the rows."""
        import polars as pl

        where = f"{equals('space', space)} AND {holds('features', feature)}"
        columns = ["sample", "position", "features", "values"]
        empty = pl.DataFrame(arrow_schema("activations").empty_table()).select(columns)
        parts = [pl.DataFrame(batch).select(columns) for batch in self._rows(where, columns)]
        flat = _exploded(pl.concat([empty, *parts])).filter(pl.col("feature") == feature)
        return flat.group_by("sample", "position").agg(pl.col("value").max())

    def _counted(self, space: str) -> pl.DataFrame:
        """The directory of a space from the rows."""
        import polars as pl

        flat = self._flat(space)
        entries = flat.group_by("feature", "sample", "position").agg(pl.col("value").max())
        return entries.group_by("feature").agg(
            pl.col("sample").n_unique().alias("count"),
            pl.len().cast(pl.UInt64).alias("entries"),
            pl.col("value").max().alias("max"),
        )

    def _flat(self, space: str) -> pl.DataFrame:
        import polars as pl

        columns = ["sample", "position", "features", "values"]
        empty = pl.DataFrame(arrow_schema("activations").empty_table()).select(columns)
        rows = [pl.DataFrame(batch).select(columns) for batch in self._rows(equals("space", space), columns)]
        return _exploded(pl.concat([empty, *rows]))

    def _together_searched(self, space: str, feature: int) -> pl.DataFrame:
        import polars as pl

        entries = self._flat(space).select("sample", "position", "feature").unique()
        own = entries.filter(pl.col("feature") == feature).select("sample", "position")
        both = entries.join(own, on=["sample", "position"], how="semi").group_by("feature").agg(both=pl.len())
        counts = entries.group_by("feature").agg(count=pl.len())
        joined = counts.join(both, on="feature", how="left").with_columns(pl.col("both").fill_null(0))
        return joined.select(pl.col(name).cast(kind) for name, kind in _together_schema().items()).sort("feature")

    def _units(self, samples: Sequence[str]) -> pl.DataFrame:
        return self._of_samples(samples, ["sample", "unit"]).unique("sample")

    def _of_samples(self, samples: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        """Rows of `samples` for these samples."""
        import polars as pl

        steps = self._writers("samples")
        parts = [self._read("samples", where, [*columns, "step"]) for where in among("sample", samples)]
        empty = pl.DataFrame(arrow_schema("samples", step=True).empty_table()).select(*columns, "step")
        return pl.concat([empty, *parts]).filter(pl.col("step").is_in(steps)).select(columns)

    # --- tables ---

    def _table(self, name: str, *, stage: bool = False) -> pl.DataFrame:
        """A whole table of the run, which is small."""
        import polars as pl

        if not stage:
            return pl.DataFrame(self.store.read(name, self._writers(name)))
        stages: dict[str, list[str]] = {}
        for row in self.steps:
            if row.tables.get(name):
                stages.setdefault(row.stage, []).append(row.key)
        parts = [pl.DataFrame(self.store.read(name, keys)).with_columns(stage=pl.lit(at)) for at, keys in stages.items()]
        return pl.concat([pl.DataFrame(arrow_schema(name).empty_table()).with_columns(stage=pl.lit("")), *parts])

    def _read(self, name: str, where: str, columns: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        with self.store.reading():
            return pl.DataFrame(self._database.rows(name, where, columns))

    def _batches(self, name: str, where: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        import polars as pl

        with self.store.reading():
            for batch in self._database.batches(name, where, columns):
                yield pl.DataFrame(batch)


class _Places:
    """Places as sorted numbers, to ask which of others are among them; most are ruled out by their sample alone."""

    def __init__(self, numbers: np.ndarray, positions: np.ndarray) -> None:
        import numpy as np

        self._codes = np.sort(_coded(numbers, positions))
        self._samples = np.zeros(int(numbers.max(initial=0)) + 1, bool)
        self._samples[numbers] = True

    def hold(self, numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Whether each place is one of these."""
        import numpy as np

        out: np.ndarray = self._samples[np.minimum(numbers, len(self._samples) - 1)] & (numbers < len(self._samples))
        near = np.flatnonzero(out)
        codes = _coded(numbers[near], positions[near])
        at = np.minimum(np.searchsorted(self._codes, codes), max(len(self._codes) - 1, 0))
        out[near] = self._codes[at] == codes if len(self._codes) else False
        return out


def _together_schema() -> dict[str, Any]:
    import polars as pl

    return {"feature": pl.UInt32, "both": pl.Int64, "count": pl.Int64}


def _coded(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    import numpy as np

    coded: np.ndarray = (numbers.astype(np.uint64) << np.uint64(32)) | positions.astype(np.uint64)
    return coded


def _both(batch: pl.DataFrame, target: _Places) -> pl.DataFrame:
    """Per block: in how many of its entries the target fired too."""
    import numpy as np
    import polars as pl

    counts = batch["count"].to_numpy().astype(np.int64)
    held = target.hold(batch["samples"].explode().to_numpy(), batch["positions"].explode().to_numpy())
    both = np.add.reduceat(held, np.cumsum(counts) - counts, dtype=np.int64)
    return pl.DataFrame({"feature": batch["feature"], "both": both, "count": counts})


def _exploded(rows: pl.DataFrame) -> pl.DataFrame:
    """One row an entry: the lists' columns become `feature` and `value`."""
    import polars as pl

    some = rows.filter(pl.col("features").list.len() > 0)
    return some.explode("features", "values").rename({"features": "feature", "values": "value"})


def _is_place(step: str, feature: int, block: int) -> str:
    return f"place = {place(step, feature, block)}"


def _slices(rows: np.ndarray) -> Decoder:
    def give(first: int, last: int) -> np.ndarray:
        part: np.ndarray = rows[first:last]
        return part

    return give


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; those of length zero stay as they are."""
    import numpy as np

    wide = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: np.ndarray = wide / np.where(lengths == 0, 1, lengths)
    return unit
