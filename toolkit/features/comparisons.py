"""Comparisons: the rows of table `comparisons`, and the rows of `features` that belong to them.

A stage that compares groups writes one row of `comparisons` and marks each of its rows of
`features` with the row's id. Readers choose rows by that id, never by text; sentences for people
are made from the row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from toolkit.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Inputs

OF_FAMILY = {"all": "", "space": " of this space", "discovered": " chosen in the select half"}
"""How a sentence names the family that a correction runs over."""


@dataclass(frozen=True, kw_only=True)
class ComparedGroup:
    """One group of a comparison and its sizes."""

    name: str
    samples: int
    units: int
    prompts: int
    clusters: int
    not_measured: int = 0
    """Samples left out because a space has no row for them."""
    shared: int = 0
    """Samples of the confirm half left out because the select half has their prompts."""

    def describe(self) -> str:
        """The sizes as text."""
        counts = (
            (self.samples, "sample"),
            (self.units, "unit"),
            (self.prompts, "distinct prompt"),
            (self.clusters, "cluster"),
        )
        samples, units, prompts, clusters = (counted(number, word) for number, word in counts)
        return f"{samples} of {units}, {prompts}, {clusters}{self.describe_left_out()}"

    def describe_left_out(self) -> str:
        """The samples left out, as text; empty if there are none."""
        left = f", {self.not_measured} not measured" if self.not_measured else ""
        if self.shared:
            left += f", {self.shared} left out whose prompts the select half has"
        return left


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison that was made: a row of table `comparisons`."""

    id: str = ""
    part: str
    """The stage part, such as `compare.welch`."""
    test: str
    """The test, such as `welch` or `mann_whitney within round`."""
    by: str
    """The metadata key that names the groups, or whose number the trend follows."""
    effect: str
    """The statistic that is the effect: d, r, eta2 or score_sound."""
    groups: tuple[ComparedGroup, ...]
    half: str
    """Which half of the units: all, select or confirm."""
    positions: str
    """The selector of the positions read, as JSON; empty if all kept positions were read."""
    unit: str
    cluster: str
    """How samples are joined into clusters: by prompt, state or none."""
    family: str
    """Which tests share a correction: all, space or discovered."""
    tested: Mapping[str, int]
    """The number of features in the family, by space."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """The address of each space, for messages."""
    min_count: int = 0
    min_density: float = 0.0
    correction: str
    alpha: float
    min_effect: float = 0.0
    adjusted: str = ""
    """The covariates of the second, adjusted test; empty without one."""
    seed: int | None = None
    """The seed that drew the halves."""

    @property
    def name(self) -> str:
        """What is compared: `a vs b`, `trend of KEY`, or `groups of KEY`."""
        if self.effect == "d":
            return " vs ".join(group.name for group in self.groups)
        return f"groups of {self.by}" if self.effect == "eta2" else f"trend of {self.by}"

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names of the groups, in order; none for a trend."""
        return tuple(group.name for group in self.groups if group.name)

    @property
    def label(self) -> str:
        """Test, positions and half, which distinguish comparisons of the same groups."""
        read = f", at {shown_positions(self.positions)}" if self.positions else ""
        half = f", half {self.half}" if self.half != "all" else ""
        return f"{self.test}{read}{half}"

    def family_of(self, space: str) -> int:
        """The number of features corrected together with those of a space."""
        if self.family == "space":
            return self.tested.get(space, 0)
        return sum(self.tested.values())

    def describe(self, space: str = "") -> str:
        """The test and, after a colon, how p was corrected and what counts as significant."""
        fired = []
        if self.min_count:
            fired.append(f"at least {self.min_count} samples")
        if self.min_density:
            fired.append(f"at least {self.min_density:g} of the samples")
        which = OF_FAMILY.get(self.family, "")
        if fired:
            which += f" that fired in {' and '.join(fired)}"
        cut = f", |{self.effect}| >= {self.min_effect:g}" if self.min_effect else ""
        sizes = {self.family_of(space_id) for space_id in ([space] if space else self.tested)}
        count = " or ".join(str(size) for size in sorted(sizes)) or "0"
        return (
            f"{self.label}: {self.correction} over {count} features{which}, "
            f"alpha {self.alpha:g}{cut}"
        )

    def row(self) -> dict[str, Any]:
        """The row of table `comparisons`."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        addresses = facts.pop("addresses")
        facts["comparison"] = facts.pop("id")
        facts["groups"] = [asdict(group) for group in self.groups]
        facts["tested"] = [
            {"space": space, "address": addresses.get(space, ""), "features": count}
            for space, count in sorted(self.tested.items())
        ]
        return facts

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Comparison:
        """Read a row of table `comparisons`."""
        facts = {key: value for key, value in row.items() if key not in ("comparison", "step")}
        facts["groups"] = tuple(ComparedGroup(**group) for group in row["groups"])
        facts["tested"] = {entry["space"]: entry["features"] for entry in row["tested"]}
        named = {entry["space"]: entry["address"] for entry in row["tested"] if entry["address"]}
        facts["addresses"] = named
        return cls(id=row["comparison"], **facts)

    def with_id(self, step: str) -> Comparison:
        """The comparison with an id made from the step's key and all recorded fields."""
        facts = json.dumps([step, self.row()], sort_keys=True, separators=(",", ":"))
        return replace(self, id=hashlib.sha256(facts.encode()).hexdigest()[:16])

    def table(self) -> pa.Table:
        """The one row, as Arrow."""
        import pyarrow as pa

        from toolkit.tables import arrow_schema

        return pa.Table.from_pylist([self.row()], schema=arrow_schema("comparisons"))


def shown_positions(positions: str) -> str:
    """The recorded selector as text: `last` and `all` without quotes."""
    selector = json.loads(positions) if positions else ""
    return selector if isinstance(selector, str) else positions


def read_comparisons(inputs: Inputs) -> list[Comparison]:
    """Every comparison of the needed stages, each once, sorted by what is compared and how."""
    if "comparisons" not in inputs.tables():
        return []
    return comparisons_of(inputs.read("comparisons"))


def comparisons_of(rows: pa.Table) -> list[Comparison]:
    """The comparisons of a table, each once, sorted by what is compared and how."""
    results = {row["comparison"]: Comparison.of(row) for row in rows.to_pylist()}
    return sorted(
        results.values(), key=lambda comparison: (comparison.name, comparison.label, comparison.id)
    )


def addresses_of(inputs: Inputs) -> dict[str, str]:
    """The address of each space that the needed stages extracted or compared."""
    compared = [comparison.addresses for comparison in read_comparisons(inputs)]
    result = {space: address for known in compared for space, address in known.items()}
    if "spaces" in inputs.tables():
        rows = inputs.read("spaces").to_pylist()
        result |= {row["space"]: str(row["address"]) for row in rows}
    return result


def rows_of(features: pa.Table, comparison: Comparison) -> pa.Table:
    """The rows of table `features` that a comparison wrote."""
    import pyarrow.compute as pc

    return features.filter(pc.equal(features["comparison"], comparison.id))


def distinct_labels(comparisons: Iterable[Comparison]) -> dict[str, str]:
    """By id, the shortest unique name of each comparison: what is compared and, only where needed,
    how.
    """
    every = list(comparisons)
    names: dict[str, str] = {}
    for comparison in every:
        alike = [other for other in every if other.name == comparison.name]
        names[comparison.id] = comparison.name if len(alike) == 1 else _among(comparison, alike)
    return names


def _among(comparison: Comparison, alike: Sequence[Comparison]) -> str:
    same = [other.id for other in alike if other.label == comparison.label]
    number = f" ({same.index(comparison.id) + 1})" if len(same) > 1 else ""
    return f"{comparison.name}, {comparison.label}{number}"
