"""The stage `compare.welch`: two groups of samples, every feature, one correction over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from toolkit.errors import DataError, choices, nearest
from toolkit.randomness import half
from toolkit.records import Params, Rows, Work
from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ._statistics import Contrast, Moments


def _different(pair: tuple[str, str]) -> tuple[str, str]:
    if pair[0] == pair[1]:
        raise ValueError(f"both groups are '{pair[0]}'; name two different ones")
    return pair


class Welch(Params):
    """Which groups to compare, what is independent, and what is called significant."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    by: str = Field(min_length=1, description="The metadata key that names a sample's group.")
    between: Annotated[tuple[str, str], AfterValidator(_different)] = Field(
        description="The two groups; positive effects are higher in the first."
    )
    unit: Literal["unit", "sample"] = Field("unit", description="What is independent: units (games, say) or single samples.")
    cluster: Literal["prompt", "none"] = Field("prompt", description="Whether samples with equal prompts count as one cluster.")
    half: Literal["all", "select", "confirm"] = Field("all", description="Which half of the units is used, or all of them.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Share of false discoveries to allow among significant features.")
    min_abs_d: float = Field(0.0, ge=0, description="Smallest |d| that is called significant.")
    correct: Literal["bh"] = Field("bh", description="Correction for many tests: bh is Benjamini-Hochberg.")
    pool: Literal["max", "mean"] = Field("max", description="How several positions of a sample become one value.")


@dataclass(frozen=True)
class _Group:
    """Where a group's samples stand among those compared, and the number of each one's independent cluster."""

    name: str
    rows: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int64]

    def size(self) -> str:
        """What stands behind its numbers, for people."""
        return f"{len(self.rows)} samples in {int(self.clusters.max()) + 1} clusters"


@dataclass(frozen=True)
class _Compared:
    """One space: the features that fired, and both groups' moments."""

    space: str
    features: npt.NDArray[np.int64]
    a: Moments
    b: Moments
    contrast: Contrast


def compare_welch(work: Work) -> Rows:
    """Test each feature that fired, correct over all features of all spaces, and give one row a feature and statistic."""
    import numpy as np

    from ._statistics import benjamini_hochberg

    samples, groups = _groups(work)
    spaces = _spaces(work)
    if not spaces:
        return
    found = list(_compare(work, samples, groups, spaces))
    family = sum(row["width"] for row in spaces.values())
    q = benjamini_hochberg(np.concatenate([one.contrast.p for one in found]), family)
    ends = np.cumsum([len(one.features) for one in found])[:-1]
    for one, own in zip(found, np.split(q, ends), strict=True):
        yield "features", _rows(one, own, groups, work.params, family)


# --- samples and their groups -------------------------------------------------------------------------------------------


def _groups(work: Work) -> tuple[list[str], tuple[_Group, _Group]]:
    """Ids of the samples compared, and the two groups among them."""
    params = work.params
    group_of = _labels(work.inputs.read("sample_meta"), params.by)
    rows = work.inputs.read("samples").select(["sample", "unit", "cluster"]).to_pylist()
    rows = [row for row in rows if row["sample"] in group_of]
    _check_names(Counter(group_of[row["sample"]] for row in rows), params)
    wanted = [row for row in rows if group_of[row["sample"]] in params.between]
    kept = [row for row in wanted if params.half == "all" or half(work.seed, row["unit"]) == params.half]
    first, second = (_group(name, kept, [group_of[row["sample"]] == name for row in kept], params) for name in params.between)
    return [row["sample"] for row in kept], (first, second)


def _labels(meta: pa.Table, by: str) -> dict[str, str]:
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
    """A number as a spec writes it: whole ones without a point."""
    return None if number is None else f"{int(number)}" if number.is_integer() else repr(number)


def _check_names(sizes: Mapping[str, int], params: Welch) -> None:
    for name in params.between:
        if name not in sizes:
            there = ", ".join(f"{group} ({size} samples)" for group, size in sorted(sizes.items())) or "none"
            raise DataError(
                f"between: no sample has {params.by} '{name}'.{nearest(name, sizes)} Groups by '{params.by}': {there}."
            )


def _group(name: str, rows: Sequence[Mapping[str, Any]], belongs: Sequence[bool], params: Welch) -> _Group:
    """Clusters are made inside a group: a unit with samples in both is one cluster in each."""
    import numpy as np

    from ._statistics import clusters_of

    own = [row for row, there in zip(rows, belongs, strict=True) if there]
    if not own:
        raise DataError(
            f"between: no unit with {params.by} '{name}' falls into the half '{params.half}'. "
            f"Take `half: all`, or give the experiment more units."
        )
    columns = [column for column, joins in (("unit", params.unit == "unit"), ("cluster", params.cluster == "prompt")) if joins]
    labels = [np.unique([row[column] for row in own], return_inverse=True)[1] for column in columns]
    clusters = clusters_of(labels, len(own))
    if clusters.max() < 1:
        raise DataError(
            f"between: group '{name}' has {len(own)} sample{'s'[: len(own) > 1]} but 1 independent cluster (unit: {params.unit}, "
            f"cluster: {params.cluster}); a test needs at least 2 to see a spread. Give the experiment more units."
        )
    return _Group(name, np.flatnonzero(belongs), clusters)


# --- spaces and their features ------------------------------------------------------------------------------------------


def _spaces(work: Work) -> dict[str, dict[str, Any]]:
    """Every space that is described, also one in which nothing fired: its features are part of the family."""
    import pyarrow.compute as pc

    rows = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    for space in pc.unique(work.inputs.read("activations")["space"]).to_pylist():
        if space not in rows:
            raise DataError(
                f"space {space}: it has activations, but table 'spaces' does not describe it, so its width is unknown. "
                f"Let the stage that writes the activations write 'spaces' too. Spaces described: {choices(rows) if rows else 'none'}."
            )
    return dict(sorted(rows.items()))


def _compare(
    work: Work, samples: list[str], groups: tuple[_Group, _Group], spaces: Mapping[str, Mapping[str, Any]]
) -> Iterator[_Compared]:
    import pyarrow.compute as pc

    from ._entries import read_space
    from ._statistics import moments, welch

    activations = work.inputs.read("activations")
    work.report.phase("compute")
    for done, (space, facts) in enumerate(spaces.items()):
        rows = activations.filter(pc.equal(activations["space"], space))
        fired = read_space(rows, samples, facts["width"], work.params.pool, f"{space} ({facts['address']})")
        a, b = (moments(fired.matrix[group.rows], group.clusters) for group in groups)
        yield _Compared(space, fired.features, a, b, welch(a, b))
        work.report.progress(done + 1, len(spaces))


# --- rows ---------------------------------------------------------------------------------------------------------------


def _rows(one: _Compared, q: npt.NDArray[np.float64], groups: tuple[_Group, _Group], params: Welch, family: int) -> pa.Table:
    """The statistics of a space, a block of rows each."""
    import numpy as np
    import pyarrow as pa

    test, between = one.contrast, f"{groups[0].name} vs {groups[1].name}"
    significant = (q <= params.alpha) & (np.abs(test.d) >= params.min_abs_d)
    blocks: list[tuple[str, str, npt.NDArray[Any], str | None]] = []
    for group, side in zip(groups, (one.a, one.b), strict=True):
        blocks.append(("mean", group.name, side.mean, group.size()))
        blocks.append(("density", group.name, side.fired / side.samples, None))
    blocks += [(stat, between, getattr(test, stat), None) for stat in ("d", "t", "df", "p")]
    blocks.append(("q", between, q, f"{params.correct} over {family}"))
    blocks.append(("significant", between, significant.astype(np.float64), None))
    blocks.append(("fired", "", (one.a.fired + one.b.fired).astype(np.float64), None))
    tables = [_block(one, *block) for block in blocks]
    return pa.concat_tables(tables)


def _block(one: _Compared, stat: str, group: str, numbers: npt.NDArray[np.float64], text: str | None) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    count = len(one.features)
    words = [pa.repeat(pa.scalar(word, pa.string()), count) for word in (one.space, stat, group, text)]
    feature = pa.array(one.features.astype(np.uint32))
    number = pa.array(numbers, mask=np.isnan(numbers))
    return pa.table([words[0], feature, words[1], words[2], number, words[3]], schema=arrow_schema("features"))
