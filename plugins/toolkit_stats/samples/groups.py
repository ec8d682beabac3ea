"""Builds a design from tables: which samples are compared, in which groups, and which of them are
one cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, choices, nearest
from toolkit.features.comparisons import ComparedGroup
from toolkit.statistics.halves import in_half, joined_by_state
from toolkit.tables import written
from toolkit.work import Work
from toolkit_stats.samples.params import REST, Compare, SeveralGroups, TwoGroups

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

OWN_UNITS = ("unit", "game", "sentence")
STATE = "state"
"""The metadata key that holds the state of a game."""
FEWEST = 3
"""The fewest independent clusters of a group: with fewer, their spread cannot be estimated."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """A group of samples: rows `start` to `end` of those compared, with the cluster number of
    each.
    """

    name: str
    start: int
    end: int
    clusters: npt.NDArray[np.int64]
    units: int
    prompts: int
    not_measured: int = 0
    """Samples that were left out because a space has no row of them."""
    shared: int = 0
    """Samples of this half that were left out: the select half has their prompts."""

    @property
    def count(self) -> int:
        """How many independent clusters it has."""
        return int(self.clusters.max()) + 1

    def compared(self) -> ComparedGroup:
        """What table `comparisons` records of it."""
        return ComparedGroup(
            name=self.name,
            samples=self.end - self.start,
            units=self.units,
            prompts=self.prompts,
            clusters=self.count,
            not_measured=self.not_measured,
            shared=self.shared,
        )

    def size(self) -> str:
        """The sizes, for people."""
        return self.compared().describe()

    def describe_left_out(self) -> str:
        """What was left out, for people; empty where nothing was."""
        return self.compared().describe_left_out()


@dataclass(frozen=True, eq=False)
class Design:
    """The samples compared, group after group. A *cell* is a cluster within its group: what is
    independent.

    `joined` numbers clusters over all groups: a unit with samples in two groups is two cells and
    one joined cluster.
    """

    samples: list[str]
    groups: tuple[Group, ...]
    cells: npt.NDArray[np.int64]
    group_of_cell: npt.NDArray[np.int64]
    joined: npt.NDArray[np.int64]
    rows: Sequence[Row] = field(repr=False)

    @property
    def size(self) -> int:
        """How many samples are compared."""
        return len(self.samples)


def group_design(work: Work, measured: Set[str] | None = None) -> Design:
    """The groups that a comparison names; for `SeveralGroups` without names, all groups. Only
    `measured` samples, if given.
    """
    params = work.params
    label_of, rows = _labelled(work, words_of(work, params.by, "by"))
    if isinstance(params, TwoGroups) and REST in params.between:
        label_of = _with_rest(label_of, params)
    sizes = Counter(label_of[row["sample"]] for row in rows)
    names = _names(sizes, params)
    return _design(
        work,
        names,
        [[row for row in rows if label_of[row["sample"]] == name] for name in names],
        measured,
    )


def trend_design(
    work: Work, measured: Set[str] | None = None
) -> tuple[Design, npt.NDArray[np.float64]]:
    """All samples that have the number, as one group, and the number of each."""
    import numpy as np

    number_of, rows = _labelled(work, _numbers(work))
    design = _design(work, ("",), [rows], measured)
    numbers = np.array([number_of[sample] for sample in design.samples])
    if not np.ptp(numbers):
        raise DataError(
            f"by: '{work.params.by}' is {numbers[0]:g} in each of the {len(numbers)} samples "
            "compared; nothing can follow a number that does not change. Take another key, or "
            "samples that differ in it."
        )
    return design, numbers


def _labelled(work: Work, value_of: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Row]]:
    return value_of, [row for row in _samples(work) if row["sample"] in value_of]


def _samples(work: Work) -> list[Row]:
    rows: list[Row] = work.inputs.read("samples").select(["sample", "unit", "cluster"]).to_pylist()
    if work.params.cluster != "state":
        return rows
    state_of = words_of(work, STATE, "cluster")
    lacking = next((row["sample"] for row in rows if row["sample"] not in state_of), None)
    if lacking is not None:
        raise DataError(
            f"cluster: sample '{lacking}' has no metadata '{STATE}', so samples with equal "
            "states cannot be found. Source `games` gives it to every decision; elsewhere set "
            "`cluster: prompt`."
        )
    return list(joined_by_state(rows, state_of))


# --- metadata -------------------------------------------------------------------------------------


def metadata(work: Work, key: str, param: str) -> list[Row]:
    """The rows of a metadata key, which some sample must have."""
    import pyarrow.compute as pc

    meta: pa.Table = work.inputs.read("sample_meta")
    rows: list[Row] = meta.filter(pc.equal(meta["key"], key)).to_pylist()
    if not rows:
        known = [str(key) for key in pc.unique(meta["key"]).to_pylist()]
        raise DataError(
            f"{param}: no sample has metadata '{key}'.{nearest(key, known)} The samples have: "
            f"{choices(known) if known else 'none'}."
        )
    return rows


def words_of(work: Work, key: str, param: str) -> dict[str, str]:
    """Each sample's value as a spec writes it: whole numbers without a point."""
    return {
        row["sample"]: row["string"] if row["string"] is not None else written(row["number"])
        for row in metadata(work, key, param)
        if row["string"] is not None or row["number"] is not None
    }


def _numbers(work: Work) -> dict[str, float]:
    rows = metadata(work, work.params.by, "by")
    for row in rows:
        if (
            row["number"] is None
            or row["number"] != row["number"]
            or abs(row["number"]) == float("inf")
        ):
            shown = row["string"] if row["string"] is not None else row["number"]
            raise DataError(
                f"by: '{work.params.by}' is {shown!r} in sample '{row['sample']}'; a correlation "
                "follows numbers. Take a key whose values are finite numbers, or compare groups "
                "(compare.welch, compare.kruskal)."
            )
    return {row["sample"]: row["number"] for row in rows}


# --- groups ---------------------------------------------------------------------------------------


def _with_rest(label_of: Mapping[str, str], params: TwoGroups) -> dict[str, str]:
    if REST in label_of.values():
        raise DataError(
            f"between: '{REST}' means all other samples, but there are samples whose {params.by} "
            f"is '{REST}'. Give that group another name, or name both groups."
        )
    named = next(name for name in params.between if name != REST)
    return {sample: label if label == named else REST for sample, label in label_of.items()}


def _names(sizes: Mapping[str, int], params: Compare) -> tuple[str, ...]:
    between = params.between if isinstance(params, TwoGroups | SeveralGroups) else None
    values = (
        ", ".join(
            f"{group} ({size} sample{'s'[: size != 1]})" for group, size in sorted(sizes.items())
        )
        or "none"
    )
    for name in between or ():
        if name not in sizes:
            raise DataError(
                f"between: no sample has {params.by} '{name}'.{nearest(name, sizes)} Groups by "
                f"'{params.by}': {values}."
            )
    if between is None and len(sizes) < 2:
        raise DataError(
            f"by: '{params.by}' names fewer than two groups. Groups by '{params.by}': {values}."
        )
    return between or tuple(sorted(sizes))


def _design(
    work: Work, names: Sequence[str], grouped: Sequence[list[Row]], measured: Set[str] | None
) -> Design:
    """Build clusters within each group: a unit with samples in two groups is a cluster in each."""
    import numpy as np

    unit_of = _units(work)
    in_part, shared = in_half(
        work.seed, _samples(work), work.params.half, prompts=work.params.cluster != "none"
    )
    of_groups = [
        [row for row in rows_of_group if row["sample"] in in_part] for rows_of_group in grouped
    ]
    rows = [
        _measured(work.params, name, rows_of_group, measured)
        for name, rows_of_group in zip(names, of_groups, strict=True)
    ]
    groups: list[Group] = []
    for name, rows_of_group, of_half, everything in zip(
        names, rows, of_groups, grouped, strict=True
    ):
        crossing = sum(row["sample"] in shared for row in everything)
        start, left_out = groups[-1].end if groups else 0, len(of_half) - len(rows_of_group)
        groups.append(
            _group(
                work.params, name, rows_of_group, start, unit_of, left_out=left_out, shared=crossing
            )
        )
    counts = [group.count for group in groups]
    every = [row for rows_of_group in rows for row in rows_of_group]
    cells = np.concatenate(
        [group.clusters + sum(counts[:index]) for index, group in enumerate(groups)]
    )
    joined = _clusters(work.params, every, unit_of)
    return Design(
        [row["sample"] for row in every],
        tuple(groups),
        cells,
        np.repeat(np.arange(len(groups)), counts),
        joined,
        every,
    )


def _measured(params: Compare, name: str, rows: list[Row], measured: Set[str] | None) -> list[Row]:
    measured_rows = rows if measured is None else [row for row in rows if row["sample"] in measured]
    if rows and not measured_rows:
        where = f"between: of group '{name}'" if name else f"by: of those with '{params.by}'"
        raise DataError(
            f"{where} none of the {len(rows)} samples has a row of activations in every space, so "
            "that `missing: leave_out` leaves none. Extract at tokens that these samples have."
        )
    return measured_rows


def _units(work: Work) -> Callable[[Row], str]:
    unit = work.params.unit
    if unit in (*OWN_UNITS, "sample"):
        column = "sample" if unit == "sample" else "unit"
        return lambda row: str(row[column])
    units = words_of(work, unit, "unit")

    def unit_of(row: Row) -> str:
        if row["sample"] not in units:
            raise DataError(
                f"unit: sample '{row['sample']}' has no metadata '{unit}', so the unit that it "
                "belongs to is unknown. Take `unit: unit` (the samples' own), `unit: sample`, or "
                "a key that every compared sample has."
            )
        return units[row["sample"]]

    return unit_of


def _group(
    params: Compare,
    name: str,
    rows: list[Row],
    start: int,
    unit_of: Callable[[Row], str],
    *,
    left_out: int,
    shared: int,
) -> Group:
    where = f"between: group '{name}'" if name else f"by: '{params.by}'"
    if not rows:
        raise DataError(_empty_group(params, name, shared))
    clusters = _clusters(params, rows, unit_of)
    group = Group(
        name,
        start,
        start + len(rows),
        clusters,
        units=len({row["unit"] for row in rows}),
        prompts=len({row["cluster"] for row in rows}),
        not_measured=left_out,
        shared=shared,
    )
    if group.count < FEWEST:
        joined = params.cluster != "none" and group.units >= FEWEST
        advice = (
            "Equal prompts join its units: give the experiment more distinct prompts, or set "
            "`cluster: none` if units are independent all the same (games that open with one "
            "prompt)."
            if joined
            else "Give the experiment more units."
        )
        raise DataError(
            f"{where} has {group.size()} (unit: {params.unit}, cluster: {params.cluster}, half: "
            f"{params.half}); a test needs at least {FEWEST} independent clusters to estimate a "
            "spread. "
            f"{advice}"
        )
    return group


def _empty_group(params: Compare, name: str, shared: int) -> str:
    """Why a group has no sample in its half."""
    with_key = f"with {params.by} '{name}'" if name else f"with '{params.by}'"
    start = "between" if name else "by"
    if not shared:
        return (
            f"{start}: no unit {with_key} falls into the half '{params.half}'. Take `half: all`, "
            "or give the experiment more units."
        )
    subject = (
        f"the one sample {with_key} in the half 'confirm' has a prompt"
        if shared == 1
        else (f"all {shared} samples {with_key} in the half 'confirm' have prompts")
    )
    return (
        f"{start}: {subject} that the select half has too, so that nothing new is left to "
        f"confirm on. "
        "Give the experiment more distinct prompts, or set `cluster: none` if units are "
        "independent all the same (games that open with one prompt)."
    )


def _clusters(
    params: Compare, rows: Sequence[Row], unit_of: Callable[[Row], str]
) -> npt.NDArray[np.int64]:
    """Cluster numbers: samples that share a unit or a prompt, directly or through others, are one
    cluster.
    """
    import numpy as np

    from toolkit_stats.math.means import clusters_of

    joins = [] if params.unit == "sample" else [_numbered(map(unit_of, rows))]
    joins += [_numbered(row["cluster"] for row in rows)] if params.cluster != "none" else []
    return clusters_of([np.array(codes) for codes in joins], len(rows))


def _numbered(words: Iterable[str]) -> list[int]:
    """Equal words get equal numbers, from 0."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(word, len(numbers)) for word in words]
