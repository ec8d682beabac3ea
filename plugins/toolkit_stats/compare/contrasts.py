"""Reads contrasts for report sections: the rows of `features` by feature, and the spaces with short
names.

A contrast is one row of table `comparisons` with its rows of `features`: `p`, `q`, `significant`
and an effect, which is d of two groups, r of a trend, eta2 of several. Rows of other parts are
ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.features.comparisons import Comparison, distinct_labels, read_comparisons, rows_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from toolkit.work import Inputs

STATS = ("p", "q", "significant")
EFFECTS = {"d": "Cohen's d", "r": "correlation r", "eta2": "share of the spread between groups"}
SYMBOLS = {"d": "d", "r": "r", "eta2": "\N{GREEK SMALL LETTER ETA}\N{SUPERSCRIPT TWO}"}
MARKS = ("discovered", "same_as")


@dataclass(frozen=True)
class Space:
    """A space with its name in figures: `short` is its layer where that is unique, else a longer
    name.
    """

    id: str
    short: str
    hookpoint: str
    address: str


@dataclass(frozen=True, eq=False)
class ContrastTable:
    """One contrast with one entry per feature, sorted by space and feature.

    Undefined numbers are NaN. `name` is unique among the contrasts of the run. `d` is the effect,
    whichever it is; `a` names the group in which a positive effect is higher. `discovered` goes by
    q alone, `twin` marks a duplicate of a discovery in another SAE of the same site.
    """

    comparison: Comparison
    name: str
    a: str
    b: str
    spaces: Sequence[Space]
    space: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    d: npt.NDArray[np.float64]
    p: npt.NDArray[np.float64]
    q: npt.NDArray[np.float64]
    significant: npt.NDArray[np.bool_]
    discovered: npt.NDArray[np.bool_]
    twin: npt.NDArray[np.bool_]
    adjusted_significant: npt.NDArray[np.bool_]

    @property
    def group(self) -> str:
        """The group of its rows in table `features`."""
        return self.comparison.name

    @property
    def effect(self) -> str:
        """The statistic that is the effect."""
        return self.comparison.effect

    @property
    def how(self) -> str:
        """The test, and how it was corrected."""
        return self.comparison.describe()

    @property
    def sizes(self) -> list[str]:
        """The groups and their sizes."""
        return [
            f"{group.name or self.comparison.by}: {group.describe()}"
            for group in self.comparison.groups
        ]

    @property
    def adjusted(self) -> str:
        """The covariates of the adjusted test; empty without one."""
        return self.comparison.adjusted

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the two groups."""
        return {"d": (self.a, self.b), "r": ("",)}.get(self.effect, ())

    @property
    def symbol(self) -> str:
        """The effect's letter."""
        return SYMBOLS[self.effect]

    def address(self, index: int) -> str:
        """The address of an entry's feature: LAYER/INDEX."""
        return f"{self.spaces[self.space[index]].short}/{self.feature[index]}"

    def ranking(self) -> npt.NDArray[np.int64]:
        """Entries with a defined d, by ascending q and then by descending |d|."""
        import numpy as np

        known = np.flatnonzero(~np.isnan(self.d))
        return known[np.lexsort((-np.abs(self.d[known]), self.q[known]))]


def read_contrasts(inputs: Inputs) -> Iterator[ContrastTable]:
    """Every contrast in `features`, in order of their names."""
    if "features" not in inputs.tables():
        return
    comparisons = [each for each in read_comparisons(inputs) if each.effect in EFFECTS]
    names = distinct_labels(comparisons)
    features = inputs.read("features")
    for comparison in comparisons:
        rows = rows_of(features, comparison)
        stats = {
            stat: _of(rows, stat)
            for stat in (*STATS, comparison.effect, *MARKS, "significant_adjusted")
        }
        if all(len(stats[stat]) for stat in (*STATS, comparison.effect)):
            spaces = read_spaces(inputs, _unique(rows["space"]))
            yield _contrast(comparison, names[comparison.id], stats, spaces)


def _sides(comparison: Comparison) -> tuple[str, str]:
    """The groups in which positive and negative effects are higher."""
    if comparison.effect == "r":
        return f"high {comparison.by}", f"low {comparison.by}"
    if comparison.effect == "eta2":
        return "one group or another", "none"
    group_a, group_b = comparison.group_names
    return group_a, group_b


def _of(rows: pa.Table, stat: str) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.equal(rows["stat"], stat))


def _contrast(
    comparison: Comparison, name: str, rows: Mapping[str, pa.Table], spaces: Sequence[Space]
) -> ContrastTable:
    """Aligns the statistics by (space, feature)."""
    import numpy as np
    import pyarrow.compute as pc

    ids = _strings([space.id for space in spaces])
    keys: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for stat, values in rows.items():
        space = pc.index_in(values["space"], value_set=ids).to_numpy().astype(np.int64)
        feature = values["feature"].to_numpy().astype(np.int64)
        keys[stat], rows_of_keys = np.unique((space << 32) | feature, return_index=True)
        numbers[stat] = values["number"].to_numpy()[rows_of_keys].astype(np.float64)
    cells = keys["q"]
    columns = {stat: _aligned(cells, keys[stat], numbers[stat]) for stat in rows}
    return ContrastTable(
        comparison,
        name,
        *_sides(comparison),
        spaces,
        space=cells >> 32,
        feature=cells & 0xFFFFFFFF,
        d=columns[comparison.effect],
        p=columns["p"],
        q=columns["q"],
        significant=columns["significant"] == 1.0,
        discovered=columns["discovered"] == 1.0,
        twin=~np.isnan(columns["same_as"]),
        adjusted_significant=columns["significant_adjusted"] == 1.0,
    )


def _aligned(
    cells: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64]
) -> Any:
    import numpy as np

    if not len(keys):
        return np.full(len(cells), np.nan)
    indices = np.minimum(np.searchsorted(keys, cells), len(keys) - 1)
    return np.where(keys[indices] == cells, numbers[indices], np.nan)


# --- spaces ---------------------------------------------------------------------------------------


def read_spaces(inputs: Inputs, ids: Sequence[str]) -> list[Space]:
    """The spaces of these ids, by layer, under the shortest names that tell them apart."""
    rows = (
        {row["space"]: row for row in inputs.read("spaces").to_pylist()}
        if "spaces" in inputs.tables()
        else {}
    )
    unknown = {"hookpoint": "", "address": "", "sae": ""}
    facts = {id: {**unknown, **rows.get(id, {})} for id in ids}
    ordered = sorted(
        ids,
        key=lambda id: (
            _layer(facts[id]["hookpoint"]),
            facts[id]["hookpoint"],
            facts[id]["address"],
            id,
        ),
    )
    short = _short_names({id: facts[id] for id in ordered})
    return [
        Space(id, short[id], facts[id]["hookpoint"] or id, facts[id]["address"] or id)
        for id in ordered
    ]


def _layer(hookpoint: str) -> float:
    number = hookpoint.rpartition(".")[2]
    return float(number) if number.isdecimal() else float("inf")


def _short_names(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    layers = [str(row["hookpoint"]).rpartition(".")[2] for row in facts.values()]
    hookpoints = [str(row["hookpoint"]) for row in facts.values()]
    saes = [
        f"{layer}:{row['sae'] or 'raw'}" for layer, row in zip(layers, facts.values(), strict=True)
    ]
    for names in (layers, hookpoints, saes, [str(row["address"]) for row in facts.values()]):
        if all(names) and len(set(names)) == len(names):
            return dict(zip(facts, names, strict=True))
    return {id: id for id in facts}


def _unique(column: pa.ChunkedArray) -> list[str]:
    import pyarrow.compute as pc

    return sorted(str(value or "") for value in pc.unique(column).to_pylist())


def _strings(values: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
