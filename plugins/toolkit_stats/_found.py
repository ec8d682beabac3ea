"""What report sections read: the contrasts in table `features`, feature by feature, and the spaces under short names.

Rows of other parts are left alone; a contrast is a group that has all of `d`, `p`, `q` and `significant`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from toolkit.records import Inputs

STATS = ("d", "p", "q", "significant")


@dataclass(frozen=True)
class Space:
    """A space as figures name it: `short` is its layer where that says which one, else more."""

    id: str
    short: str
    hookpoint: str
    address: str


@dataclass(frozen=True, eq=False)
class Found:
    """One contrast, an entry a feature, by space and then by feature. What is undefined is NaN."""

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

    def address(self, at: int) -> str:
        """Where an entry's feature lives: LAYER/INDEX."""
        return f"{self.spaces[self.space[at]].short}/{self.feature[at]}"

    def ranking(self) -> npt.NDArray[np.int64]:
        """Entries with a known d: smallest q first, among equals the largest |d|."""
        import numpy as np

        known = np.flatnonzero(~np.isnan(self.d))
        return known[np.lexsort((-np.abs(self.d[known]), self.q[known]))]


def read_contrasts(inputs: Inputs) -> Iterator[Found]:
    """Every contrast in `features`, in order of their names."""
    import pyarrow.compute as pc

    if "features" not in inputs.tables():
        return
    rows = inputs.read("features")
    rows = rows.filter(pc.is_in(rows["stat"], value_set=_strings([*STATS, "mean"])))
    groups = _unique(rows.filter(pc.equal(rows["stat"], "mean"))["group"])
    spaces = read_spaces(inputs, _unique(rows["space"]))
    for name in _unique(rows.filter(pc.equal(rows["stat"], "q"))["group"]):
        own = rows.filter(pc.equal(rows["group"], name))
        sides = [(a, b) for a in groups for b in groups if f"{a} vs {b}" == name]
        if sides and set(STATS) <= set(_unique(own["stat"])):
            yield _contrast(name, sides[0], own, spaces)


def _contrast(name: str, sides: tuple[str, str], rows: pa.Table, spaces: Sequence[Space]) -> Found:
    """Each statistic laid beside the others by (space, feature); of rows that say the same thing twice, the first."""
    import numpy as np
    import pyarrow.compute as pc

    keys: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for stat in STATS:
        own = rows.filter(pc.equal(rows["stat"], stat))
        at = pc.index_in(own["space"], value_set=_strings([space.id for space in spaces])).to_numpy().astype(np.int64)
        keys[stat], first = np.unique((at << 32) | own["feature"].to_numpy().astype(np.int64), return_index=True)
        numbers[stat] = own["number"].to_numpy()[first].astype(np.float64)
    cells = keys["q"]
    laid = {stat: _laid(cells, keys[stat], numbers[stat]) for stat in STATS}
    return Found(
        name,
        *sides,
        spaces,
        space=cells >> 32,
        feature=cells & 0xFFFFFFFF,
        d=laid["d"],
        p=laid["p"],
        q=laid["q"],
        significant=laid["significant"] == 1.0,
    )


def _laid(cells: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64]) -> Any:
    import numpy as np

    at = np.minimum(np.searchsorted(keys, cells), len(keys) - 1)
    return np.where(keys[at] == cells, numbers[at], np.nan)


# --- spaces -------------------------------------------------------------------------------------------------------------


def read_spaces(inputs: Inputs, ids: Sequence[str]) -> list[Space]:
    """The spaces of these ids, by layer, under the shortest names that tell them apart."""
    rows = {row["space"]: row for row in inputs.read("spaces").to_pylist()} if "spaces" in inputs.tables() else {}
    unknown = {"hookpoint": "", "address": "", "sae": ""}
    facts = {id: {**unknown, **rows.get(id, {})} for id in ids}
    ordered = sorted(ids, key=lambda id: (_layer(facts[id]["hookpoint"]), facts[id]["hookpoint"], facts[id]["address"], id))
    short = _short_names({id: facts[id] for id in ordered})
    return [Space(id, short[id], facts[id]["hookpoint"] or id, facts[id]["address"] or id) for id in ordered]


def _layer(hookpoint: str) -> float:
    number = hookpoint.rpartition(".")[2]
    return float(number) if number.isdecimal() else float("inf")


def _short_names(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    layers = [str(row["hookpoint"]).rpartition(".")[2] for row in facts.values()]
    hookpoints = [str(row["hookpoint"]) for row in facts.values()]
    saes = [f"{layer}:{row['sae'] or 'raw'}" for layer, row in zip(layers, facts.values(), strict=True)]
    for names in (layers, hookpoints, saes, [str(row["address"]) for row in facts.values()]):
        if all(names) and len(set(names)) == len(names):
            return dict(zip(facts, names, strict=True))
    return {id: id for id in facts}


def _unique(column: pa.ChunkedArray) -> list[str]:
    import pyarrow.compute as pc

    return sorted(str(value) for value in pc.unique(column).to_pylist())


def _strings(values: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
