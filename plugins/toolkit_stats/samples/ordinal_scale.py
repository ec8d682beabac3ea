"""Samples on an ordinal scale, and the activations at their final tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.activations.kept_positions import Activations
from toolkit.activations.rows import BySpace
from toolkit.errors import DataError
from toolkit.features.comparisons import ComparedGroup
from toolkit.tables import written
from toolkit.work import Work
from toolkit_stats.samples.groups import metadata

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


@dataclass(frozen=True)
class OrdinalScale:
    """The labelled samples: their labels, positions of final tokens, and clusters."""

    samples: list[str]
    units: list[str]
    prompts: list[str]
    last: Mapping[str, int]
    label: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]
    cluster: npt.NDArray[np.int64]

    def describe(self) -> str:
        """How many samples and clusters each label has, for people."""
        return "; ".join(self._count(float(value)) for value in self.labels)

    def group(self, value: float, used: npt.NDArray[np.bool_]) -> ComparedGroup:
        """What table `comparisons` records of a label; samples outside `used` are shared."""
        rows = [int(row) for row in (self.label == value).nonzero()[0]]
        return ComparedGroup(
            name=written(value),
            samples=len(rows),
            units=len({self.units[row] for row in rows}),
            prompts=len({self.prompts[row] for row in rows}),
            clusters=len({int(self.cluster[row]) for row in rows}),
            shared=sum(not used[row] for row in rows),
        )

    def _count(self, value: float) -> str:
        is_value = self.label == value
        return (
            f"label {written(value)}: {int(is_value.sum())} samples in "
            f"{len(set(self.cluster[is_value].tolist()))} clusters"
        )


def read_scale(work: Work) -> OrdinalScale:
    """The labelled samples; missing labels are refused, or left out where the params say so."""
    import numpy as np

    from toolkit_stats.math.means import clusters_of

    params = work.params
    rows = (
        work.inputs.read("samples").select(["sample", "unit", "cluster", "token_ids"]).to_pylist()
    )
    number = _numbers(work, params.by)
    _check(rows, number, params)
    rows = [row for row in rows if number.get(row["sample"]) in params.labels]
    joins = [
        np.unique([row[column] for row in rows], return_inverse=True)[1]
        for column in ("unit", "cluster")
    ]
    return OrdinalScale(
        [row["sample"] for row in rows],
        [row["unit"] for row in rows],
        [row["cluster"] for row in rows],
        {row["sample"]: len(row["token_ids"]) - 1 for row in rows},
        np.array([number[row["sample"]] for row in rows], dtype=np.float64),
        np.array(params.labels, dtype=np.float64),
        clusters_of(joins, len(rows)),
    )


def _numbers(work: Work, by: str) -> dict[str, float | None]:
    rows = metadata(work, by, "by")
    words = [row for row in rows if row["string"] is not None]
    if words:
        raise DataError(
            f"by: sample '{words[0]['sample']}' has {by} '{words[0]['string']}', which is not a "
            "number. A ranking needs an ordinal label; compare groups of words with compare.welch."
        )
    return {row["sample"]: row["number"] for row in rows}


def _check(rows: list[dict[str, Any]], number: Mapping[str, float | None], params: Any) -> None:
    """Check the labels: one outside the scale is an error, a missing one too unless `missing`
    allows it.
    """
    for row in rows:
        value = number.get(row["sample"])
        if value is None and params.missing == "error":
            raise DataError(
                f"by: sample '{row['sample']}' has no {params.by}. Label it, or set `missing: "
                "null` to leave such samples out."
            )
        if value is not None and value not in params.labels:
            raise DataError(
                f"by: sample '{row['sample']}' has {params.by} {written(value)}, which is none of "
                f"the labels {', '.join(written(label) for label in params.labels)}. Correct "
                "the label, or name all values under `labels`."
            )
    present = set(number.values())
    for label in params.labels:
        needed = params.missing == "error" or label in (params.labels[0], params.labels[-1])
        if label not in present and needed:
            raise DataError(
                f"by: no sample has {params.by} {written(label)}, so its mean is unknown, and a "
                "feature cannot be said to rise over it. Add samples, name other `labels`, or set "
                "`missing: null` (never for the lowest and the highest)."
            )


def reader(work: Work, scale: OrdinalScale) -> Callable[[str, str], pa.Table]:
    """A function that returns the rows of a space at the requested positions."""
    if work.params.at != "last":
        activations = Activations(work.inputs, work.params.at)
        return lambda space, named: activations.of(space, scale.samples, named)
    by_space = BySpace(work.inputs.read("activations"))
    return lambda space, named: _final_rows(by_space.of(space), scale, named)


def _final_rows(rows: pa.Table, scale: OrdinalScale, named: str) -> pa.Table:
    """The rows at the final tokens; a sample without one is an error, since a missing row is not a
    zero.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(list(scale.last), pa.string())
    last = pa.array(list(scale.last.values()), pa.int32())
    indices = pc.index_in(rows["sample"], value_set=names)
    rows = rows.filter(
        pc.fill_null(pc.equal(rows["position"], last.take(indices.combine_chunks())), False)
    )
    if rows.num_rows != len(scale.samples):
        measured = set(rows["sample"].to_pylist())
        lacking = next(
            (sample for sample in scale.samples if sample not in measured), scale.samples[0]
        )
        raise DataError(
            f"space {named}: sample '{lacking}' has no row at its final token (position "
            f"{scale.last[lacking]}). A ranking reads final tokens: extract with `at: last` or "
            "`at: all`, from the same samples."
        )
    return rows
