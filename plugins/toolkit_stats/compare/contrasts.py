"""What report sections read: the contrasts in table `features`, feature by feature, and the spaces
under short names.

Rows of other parts are left alone; a contrast is a group that has `p`, `q`, `significant` and an
effect: d of two groups, r of a trend, eta2 of several. Two tests of the same groups are two
contrasts, told apart by the test that the text of their rows names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit_stats.samples.positions import mark_of, rows_marked

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
    """A space as figures name it: `short` is its layer where that says which one, else more."""

    id: str
    short: str
    hookpoint: str
    address: str


@dataclass(frozen=True, eq=False)
class Found:
    """One contrast, an entry a feature, by space and then by feature. What is undefined is NaN.

    `d` is the effect, whichever it is; `a` is what a positive one is higher in. `discovered` goes
    by q alone, `twin` does in this SAE what another discovery does in another SAE of the same site.
    """

    name: str
    group: str
    a: str
    b: str
    effect: str
    how: str
    sizes: Sequence[str]
    spaces: Sequence[Space]
    space: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    d: npt.NDArray[np.float64]
    p: npt.NDArray[np.float64]
    q: npt.NDArray[np.float64]
    significant: npt.NDArray[np.bool_]
    discovered: npt.NDArray[np.bool_]
    twin: npt.NDArray[np.bool_]
    adjusted: str
    adjusted_significant: npt.NDArray[np.bool_]

    @property
    def sides(self) -> tuple[str, ...]:
        """The groups whose means say what differs."""
        return {"d": (self.a, self.b), "r": ("",)}.get(self.effect, ())

    @property
    def symbol(self) -> str:
        """The effect's letter."""
        return SYMBOLS[self.effect]

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
    rows = rows.filter(
        pc.is_in(
            rows["stat"],
            value_set=_strings([*STATS, *EFFECTS, *MARKS, "significant_adjusted", "mean"]),
        )
    )
    means = _of(rows, "stat", "mean")
    spaces = read_spaces(inputs, _unique(rows["space"]))
    for group in _unique(_of(rows, "stat", "q")["group"]):
        own = _of(rows, "group", group)
        said = _unique(_of(own, "stat", "q")["text"])
        for how in said:
            test = how.rpartition(": ")[0]
            stats = {
                stat: _of(_of(own, "stat", stat), "text", how if stat == "q" else test)
                for stat in (*STATS, *EFFECTS, "discovered")
            }
            stats |= {
                stat: _beside(_of(own, "stat", stat), test)
                for stat in ("same_as", "significant_adjusted")
            }
            effect = next((name for name in EFFECTS if len(stats[name])), None)
            sides = _sides(group, effect, _unique(means["group"]))
            if sides and effect and all(len(stats[stat]) for stat in STATS):
                name = group if len(said) == 1 else f"{group}, {test}"
                yield _contrast(
                    (name, group, *sides),
                    effect,
                    how,
                    stats,
                    rows_marked(means, mark_of(test)),
                    spaces,
                )


def _sides(group: str, effect: str | None, groups: Sequence[str]) -> tuple[str, str] | None:
    """What positive and negative effects are higher in."""
    if effect == "r":
        of = group.removeprefix("trend of ")
        return f"high {of}", f"low {of}"
    if effect == "eta2":
        return "one group or another", "none"
    return next(((a, b) for a in groups for b in groups if f"{a} vs {b}" == group), None)


def _of(rows: pa.Table, column: str, value: str) -> pa.Table:
    """The rows with that value; an empty one stands for none."""
    import pyarrow.compute as pc

    return rows.filter(pc.equal(pc.fill_null(rows[column], ""), value))


def _beside(rows: pa.Table, test: str) -> pa.Table:
    """The rows whose text says, after the test, what more is known."""
    import pyarrow.compute as pc

    return rows.filter(pc.starts_with(pc.fill_null(rows["text"], ""), f"{test}: "))


def _contrast(
    names: tuple[str, str, str, str],
    effect: str,
    how: str,
    rows: Mapping[str, pa.Table],
    means: pa.Table,
    spaces: Sequence[Space],
) -> Found:
    """Each statistic laid beside the others by (space, feature); of rows that say the same thing
    twice, the first.
    """
    import numpy as np
    import pyarrow.compute as pc

    keys: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for stat, own in rows.items():
        at = (
            pc.index_in(own["space"], value_set=_strings([space.id for space in spaces]))
            .to_numpy()
            .astype(np.int64)
        )
        keys[stat], first = np.unique(
            (at << 32) | own["feature"].to_numpy().astype(np.int64), return_index=True
        )
        numbers[stat] = own["number"].to_numpy()[first].astype(np.float64)
    cells = keys["q"]
    laid = {
        stat: _laid(cells, keys[stat], numbers[stat])
        for stat in (*STATS, effect, *MARKS, "significant_adjusted")
    }
    words = _unique(rows["significant_adjusted"]["text"])
    return Found(
        *names,
        effect,
        how,
        [
            f"{side}: {size}"
            for side in names[2:]
            for size in _unique(_of(means, "group", side)["text"])
            if size
        ],
        spaces,
        space=cells >> 32,
        feature=cells & 0xFFFFFFFF,
        d=laid[effect],
        p=laid["p"],
        q=laid["q"],
        significant=laid["significant"] == 1.0,
        discovered=laid["discovered"] == 1.0,
        twin=~np.isnan(laid["same_as"]),
        adjusted=words[0].removeprefix(f"{how.rpartition(': ')[0]}: ") if words else "",
        adjusted_significant=laid["significant_adjusted"] == 1.0,
    )


def _laid(
    cells: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64]
) -> Any:
    import numpy as np

    if not len(keys):
        return np.full(len(cells), np.nan)
    at = np.minimum(np.searchsorted(keys, cells), len(keys) - 1)
    return np.where(keys[at] == cells, numbers[at], np.nan)


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
