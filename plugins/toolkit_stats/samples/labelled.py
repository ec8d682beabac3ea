"""Which samples carry which label, which of them are independent, and folds that no cluster
crosses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.work import Work
from toolkit_stats.samples.groups import FEWEST, group_design
from toolkit_stats.samples.params import Between, TwoGroups

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["FEWEST", "Labelled", "blocks", "folds", "two_groups"]


@dataclass(frozen=True)
class Labelled:
    """The samples of the groups: `label` is the index of each one's group in `names`, `cluster` its
    independent cluster.

    `left_out` says what was left out of each group.
    """

    names: tuple[str, ...]
    samples: list[str]
    units: list[str]
    prompts: list[str]
    tokens: list[int]
    label: npt.NDArray[np.int64]
    cluster: npt.NDArray[np.int64]
    left_out: tuple[str, ...]

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
        sizes = [
            prompt
            for prompt, label in zip(self.prompts, self.label.tolist(), strict=True)
            if label == number
        ]
        size = (
            f"{len(sizes)} samples in {self.clusters(number)} clusters ({len(set(sizes))} distinct "
            "prompts)"
        )
        return f"{self.names[number]}: {size}{self.left_out[number]}"


def two_groups(work: Work) -> Labelled:
    """The samples of `between`, one group after the other; a group with too few clusters is
    refused.
    """
    import numpy as np

    params = work.params
    settings = {name: getattr(params, name) for name in Between.model_fields}
    design = group_design(replace(work, params=TwoGroups.model_validate(settings)))
    rows = work.inputs.read("samples").select(["sample", "token_ids"]).to_pylist()
    tokens = {row["sample"]: len(row["token_ids"]) for row in rows}
    labelled = Labelled(
        params.between,
        design.samples,
        [row["unit"] for row in design.rows],
        [row["cluster"] for row in design.rows],
        [tokens[sample] for sample in design.samples],
        np.repeat(
            np.arange(len(design.groups)), [group.end - group.start for group in design.groups]
        ),
        design.joined,
        tuple(group.describe_left_out() for group in design.groups),
    )
    _check_joined(labelled)
    return labelled


def _check_joined(data: Labelled) -> None:
    """Refuse groups with too few clusters after joining units and prompts across both groups."""
    for number, name in enumerate(data.names):
        if data.clusters(number) < FEWEST:
            raise DataError(
                f"between: group '{name}' has {data.clusters(number)} independent clusters once "
                f"units and equal prompts are joined over both groups ({data.sizes()}); at least "
                f"{FEWEST} are needed. Give units whose prompts the other group does not have, or "
                "set `cluster: none` if units are independent all the same."
            )


def folds(data: Labelled, max_folds: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The fold of each sample. A cluster is never split; groups are spread over folds as evenly as
    clusters allow.
    """
    import numpy as np

    count = min(max_folds, *(data.clusters(number) for number in range(len(data.names))))
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
            f"folds: the clusters cannot be shared out so that {count} folds each have both groups "
            f"({data.sizes()}). One cluster holds most of a group: samples with equal prompts are "
            "one cluster. Give the experiment more distinct prompts."
        )
    return fold[data.cluster]


def blocks(rows: Sequence[Mapping[str, Any]], table: str) -> pa.Table:
    """An Arrow table from dicts."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    return pa.Table.from_pylist(list(rows), schema=arrow_schema(table))
