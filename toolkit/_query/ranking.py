"""The order in which the features of a run are listed: one line per feature and comparison, as
numbers, since a run may have millions of lines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit._query.run import Run
from toolkit._query.text import Row

if TYPE_CHECKING:
    import polars as pl

EFFECT_STATS = ("d", "r", "eta2")
TEST_STATS = (*EFFECT_STATS, "t", "df", "p", "q", "significant")
"""Statistics of a comparison, whose `group` names both groups."""
TESTED = ("d", "q")
"""Statistics that only tests write."""
RANKED = "rank_sound"
"""The statistic of rankings, which decides the order if it exists."""
SMALLEST_FIRST = ("p", "q", RANKED)
KEYS = ("stage", "space", "group")
"""The columns of lines that are numbers of names."""


@dataclass(frozen=True)
class RankedLines:
    """Lines in order: numbers of the stage, space and compared groups (`group`; empty where none
    are compared), the feature, and whether the difference is significant. `names` has the names by
    number, in the order in which they sort.
    """

    lines: pl.DataFrame
    names: Mapping[str, Sequence[str]]
    compared: frozenset[str] = frozenset()
    """The compared groups of all lines; empty if nothing is compared, and each line is a feature of
    a stage.
    """

    @property
    def height(self) -> int:
        """The number of lines."""
        return int(self.lines.height)

    def chosen(self, spaces: Collection[str] | None, stage: str | None) -> RankedLines:
        """The lines of these spaces, of one stage if it is named."""
        import polars as pl

        chosen_names = {"space": spaces, "stage": None if stage is None else [stage]}
        lines = self.lines
        for key, wanted in chosen_names.items():
            if wanted is not None:
                numbers = [place for place, name in enumerate(self.names[key]) if name in wanted]
                lines = lines.filter(pl.col(key).is_in(numbers))
        groups = {self.names["group"][number] for number in lines["group"].unique()}
        return replace(self, lines=lines, compared=self.compared & groups)

    def significant(self) -> RankedLines:
        """The lines of significant differences."""
        return replace(self, lines=self.lines.filter(self.lines["significant"]))

    def rows(self, start: int, count: int) -> list[Row]:
        """Some lines, with names: stage, space, feature, group."""
        lines = self.lines.slice(start, count).to_dicts()
        return [
            {
                "feature": line["feature"],
                **{key: self.names[key][line[key]] for key in KEYS},
            }
            for line in lines
        ]


def rank(
    run: Run, stage: str | None, where: Mapping[str, Sequence[Any]], by: str | None = None
) -> RankedLines:
    """Rank the features of these rows: by a statistic, else by the tests. Refuses a statistic that
    no feature here has.
    """
    import polars as pl

    run.check_stage("features", stage)
    needed = {*TESTED, *EFFECT_STATS, RANKED, "significant", *([by] if by else ())}
    entries, names = entries_by_stat(run, stage, {**where, "stat": sorted(needed)})
    tests = [entries[stat] for stat in TESTED if stat in entries]
    if by and by not in entries:
        check_stats(run, stage, where, [by])
    if not tests:
        entries, names = entries_by_stat(run, stage, where)
    parts = tests or list(entries.values())
    on = ["stage", "space", "feature", *(["group"] if tests else [])]
    lines = pl.concat(part.select(on) for part in parts).unique() if parts else _no_lines()
    order = [by] if by else [RANKED, "q", *EFFECT_STATS] if tests else []
    for stat in dict.fromkeys([*order, "significant"]):
        lines = _with_stat(lines, entries.get(stat), stat)
    if "group" not in lines.columns:
        lines = lines.with_columns(group=pl.lit(names["group"].index(""), pl.Int32))
    ranked = lines.sort(
        [*(f"stat {stat}" for stat in order), "space", "feature", "stage", "group"],
        descending=[*(stat not in SMALLEST_FIRST for stat in order), *[False] * 4],
        nulls_last=True,
    )
    significant = (pl.col("stat significant") == 1).fill_null(value=False)
    kept = ranked.select("stage", "space", "feature", "group", significant=significant)
    groups = {names["group"][number] for part in tests for number in part["group"].unique()}
    return RankedLines(kept, names, frozenset(groups))


def why_none(run: Run, ranked: RankedLines, stage: str | None, in_spaces: bool) -> str:
    """Why no feature is listed, of a stage or of some spaces if they are chosen."""
    if ranked.height:
        return (
            f"No difference is significant in run {run.id}: 'significant' is 1 in none of the rows "
            "that the options select."
        )
    return run.why("features", stage, "in these spaces" if in_spaces else "")


def check_stats(
    run: Run, stage: str | None, where: Mapping[str, Sequence[Any]], stats: Sequence[str]
) -> None:
    """Refuse a statistic that no feature here has, unless no feature has any."""
    from toolkit.errors import BadInput, choices, nearest

    known = run.rows.values("features", "stat", where, stage) if stats else []
    if known and (unknown := next((stat for stat in stats if stat not in known), None)):
        raise BadInput(
            f"No feature here has the statistic '{unknown}'.{nearest(unknown, known)} Statistics: "
            f"{choices(known)}."
        )


def entries_by_stat(
    run: Run, stage: str | None, where: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, pl.DataFrame], dict[str, list[str]]]:
    """The matching rows of `features` by statistic, with numbers in place of names; and the names
    by number.
    """
    import numpy as np
    import polars as pl

    from toolkit.features.addresses import layer_of

    heads = ("space", "feature", "stat", "group", "number")
    table = run.rows.encoded("features", where, heads, stage)
    layers = {row["space"]: layer_of(row) for row in run.spaces}
    places = {space: (layer is None, layer or 0, space) for space, layer in layers.items()}
    names: dict[str, list[str]] = {}
    columns: dict[str, Any] = {}
    for key in (*KEYS, "stat"):
        words, numbers = _numbered(table[key])
        known = sorted({*words, ""} if key == "group" else words)
        if key == "space":
            known.sort(key=lambda space: places.get(space, (True, 0, space)))
        number_of = {word: number for number, word in enumerate(known)}
        in_order = np.array([number_of[word] for word in words], np.int32)
        columns[key], names[key] = in_order[numbers], known
    number = pl.Series(table["number"].combine_chunks()).fill_nan(None)
    feature = pl.Series(table["feature"].combine_chunks())
    frame = pl.DataFrame({**columns, "feature": feature, "number": number})
    by_stat = frame.partition_by("stat", as_dict=True, include_key=False)
    return {names["stat"][stat]: rows for (stat,), rows in by_stat.items()}, names


def _numbered(column: Any) -> tuple[list[str], Any]:
    """The words of a dictionary-encoded column, and the number of the word in each row."""
    import numpy as np

    if not column.num_chunks:
        return [], np.zeros(0, np.int32)
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return column.chunk(0).dictionary.to_pylist(), numbers


def _no_lines() -> pl.DataFrame:
    import polars as pl

    kinds = {"stage": pl.Int32, "space": pl.Int32, "feature": pl.UInt32}
    return pl.DataFrame(schema=kinds)


def _with_stat(lines: pl.DataFrame, entries: pl.DataFrame | None, stat: str) -> pl.DataFrame:
    """Add a statistic of each line to sort by: its absolute value, unless small values are strong.
    Of a statistic per group, the largest.
    """
    import polars as pl

    if entries is None:
        return lines.with_columns(pl.lit(None, pl.Float64).alias(f"stat {stat}"))
    on = [name for name in lines.columns if name in ("stage", "space", "feature", "group")]
    keys = on if stat in TEST_STATS else [name for name in on if name != "group"]
    size = pl.col("number").abs()
    pick = size.min() if stat in SMALLEST_FIRST else size.max()
    values = entries.group_by(keys).agg(pick.alias(f"stat {stat}"))
    return lines.join(values, on=keys, how="left")
