"""Which samples carry which label, which of them are independent, and folds that no cluster crosses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from toolkit.errors import DataError, choices, nearest
from toolkit.randomness import half
from toolkit.records import Params, Work

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

FEWEST = 3
"""Clusters that a group needs before anything is said about it."""


def _different(pair: tuple[str, str]) -> tuple[str, str]:
    if pair[0] == pair[1]:
        raise ValueError(f"both groups are '{pair[0]}'; name two different ones")
    return pair


Pair = Annotated[tuple[str, str], AfterValidator(_different)]


class TwoGroups(Params):
    """Two groups of samples, and what is independent among them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    by: str = Field(min_length=1, description="The metadata key that names a sample's group.")
    between: Pair = Field(description="The two groups; positive effects are higher in the first.")
    half: Literal["all", "select", "confirm"] = Field("all", description="Which half of the units is used, or all of them.")


@dataclass(frozen=True)
class Labelled:
    """The samples of the groups: `label` numbers the group of each by its place in `names`, `cluster` what is independent."""

    names: tuple[str, ...]
    samples: list[str]
    units: list[str]
    prompts: list[str]
    tokens: list[int]
    label: npt.NDArray[np.int64]
    cluster: npt.NDArray[np.int64]

    @property
    def contrast(self) -> str:
        """How rows name the comparison."""
        return " vs ".join(self.names)

    def sizes(self) -> str:
        """Samples, clusters and distinct prompts of each group, for people."""
        return "; ".join(self._size(number) for number in range(len(self.names)))

    def clusters(self, number: int) -> int:
        """How many clusters have samples of a group."""
        return len(set(self.cluster[self.label == number].tolist()))

    def _size(self, number: int) -> str:
        own = [prompt for prompt, label in zip(self.prompts, self.label.tolist(), strict=True) if label == number]
        return f"{self.names[number]}: {len(own)} samples in {self.clusters(number)} clusters ({len(set(own))} distinct prompts)"


def two_groups(work: Work) -> Labelled:
    """The samples of `between`; a group with too few clusters is refused."""
    params = work.params
    found = labelled(work, params.by, params.between, params.half)
    for number, name in enumerate(found.names):
        if found.clusters(number) < FEWEST:
            raise DataError(
                f"between: group '{name}' has {found.clusters(number)} independent clusters ({found.sizes()}); at least {FEWEST} are "
                f"needed. Give the experiment more units, or compare other groups."
            )
    return found


def labelled(work: Work, by: str, names: Sequence[str], which: str = "all") -> Labelled:
    """The samples whose metadata `by` is one of `names`, in the half of the units that is asked for."""
    import numpy as np

    from ._statistics import clusters_of

    label_of = labels(work.inputs.read("sample_meta"), by)
    rows = work.inputs.read("samples").select(["sample", "unit", "cluster", "token_ids"]).to_pylist()
    rows = [row for row in rows if row["sample"] in label_of]
    _check_names(Counter(label_of[row["sample"]] for row in rows), by, names)
    kept = [row for row in rows if label_of[row["sample"]] in names]
    kept = [row for row in kept if which == "all" or half(work.seed, row["unit"]) == which]
    joins = [np.unique([row[column] for row in kept], return_inverse=True)[1] for column in ("unit", "cluster")]
    return Labelled(
        tuple(names),
        [row["sample"] for row in kept],
        [row["unit"] for row in kept],
        [row["cluster"] for row in kept],
        [len(row["token_ids"]) for row in kept],
        np.array([list(names).index(label_of[row["sample"]]) for row in kept], dtype=np.int64),
        clusters_of(joins, len(kept)),
    )


def labels(meta: pa.Table, by: str) -> dict[str, str]:
    """The label of each sample that has one, numbers as a spec writes them."""
    import pyarrow.compute as pc

    rows = meta.filter(pc.equal(meta["key"], by)).to_pylist()
    if not rows:
        known = [str(key) for key in pc.unique(meta["key"]).to_pylist()]
        raise DataError(
            f"by: no sample has metadata '{by}'.{nearest(by, known)} The samples have: {choices(known) if known else 'none'}."
        )
    found = {row["sample"]: row["string"] if row["string"] is not None else _written(row["number"]) for row in rows}
    return {sample: label for sample, label in found.items() if label is not None}


def _written(number: float | None) -> str | None:
    return None if number is None else f"{int(number)}" if number.is_integer() else repr(number)


def _check_names(sizes: Mapping[str, int], by: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in sizes:
            there = ", ".join(f"{group} ({size} samples)" for group, size in sorted(sizes.items())) or "none"
            raise DataError(f"between: no sample has {by} '{name}'.{nearest(name, sizes)} Groups by '{by}': {there}.")


def folds(data: Labelled, wanted: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A fold for each sample. A cluster lies in one fold whole; groups are spread over folds as evenly as clusters allow."""
    import numpy as np

    count = min(wanted, *(data.clusters(number) for number in range(len(data.names))))
    sizes: npt.NDArray[np.float64] = np.zeros((int(data.cluster.max()) + 1, len(data.names)))
    np.add.at(sizes, (data.cluster, data.label), 1.0)
    sizes /= sizes.sum(axis=0)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order].sum(axis=1), kind="stable")]
    filled, fold = np.zeros((count, len(data.names))), np.empty(len(sizes), dtype=np.int64)
    for cluster in order:
        fold[cluster] = np.argmin((filled * sizes[cluster]).sum(axis=1) + 1e-9 * filled.sum(axis=1))
        filled[fold[cluster]] += sizes[cluster]
    if (filled.min(axis=0) <= 0).any() or count < 2:
        raise DataError(
            f"folds: the clusters cannot be shared out so that {count} folds each have both groups ({data.sizes()}). One cluster holds "
            f"most of a group: samples with equal prompts are one cluster. Give the experiment more distinct prompts."
        )
    return fold[data.cluster]


def blocks(rows: Sequence[Mapping[str, Any]], table: str) -> pa.Table:
    """An Arrow table from dicts."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    return pa.Table.from_pylist(list(rows), schema=arrow_schema(table))
