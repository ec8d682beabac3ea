"""Which features are screened, which values they are set to, and which random features stand beside
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.comparisons import Comparison, read_comparisons, rows_of
from toolkit.errors import DataError, choices, nearest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from toolkit.work import Inputs


@dataclass(frozen=True)
class Feature:
    """One feature with what the source data say of it: group means, and the share of samples in
    which it fires.
    """

    space: str
    index: int
    values: tuple[float, float]
    rate: float
    fired: int
    d: float
    q: float


@dataclass(frozen=True)
class Known:
    """Every feature that fired, by space, and the two groups."""

    groups: tuple[str, str]
    features: Mapping[str, Sequence[Feature]]


def known(inputs: Inputs, between: tuple[str, str] | None) -> Known:
    """Read what `compare.welch` wrote; without `between`, of the one comparison there is."""
    comparison = _comparison(read_comparisons(inputs), between)
    stats: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    for row in rows_of(inputs.read("features"), comparison).to_pylist():
        of_feature = stats.setdefault((row["space"], row["feature"]), {})
        of_feature[row["stat"], row["group"]] = row["number"]
    first, second = comparison.group_names
    made: dict[str, list[Feature]] = {}
    for (space, index), found in sorted(stats.items()):
        if found.get(("d", comparison.name)) is not None:
            feature = _feature(space, index, found, (first, second), comparison.name)
            made.setdefault(space, []).append(feature)
    return Known((first, second), made)


def _comparison(comparisons: Sequence[Comparison], between: tuple[str, str] | None) -> Comparison:
    """The comparison whose features are screened: rows of two are never mixed."""
    of_groups = [one for one in comparisons if one.effect == "d"]
    names = sorted({one.name for one in of_groups})
    same = [one for one in of_groups if between is None or one.group_names == tuple(between)]
    if between is not None and not same:
        asked = " vs ".join(between)
        raise DataError(
            f"between: no stage compared '{asked}'.{nearest(asked, names)} Comparisons: "
            f"{choices(names) if names else 'none'}."
        )
    if len({one.group_names for one in same}) != 1:
        raise DataError(
            f"between: the needed stages made {len(names)} comparisons "
            f"({choices(names) if names else 'none'}); name the groups of one."
        )
    if len(same) > 1:
        labels = choices([one.label for one in same])
        raise DataError(
            f"needs: {len(same)} of the needed stages compared '{same[0].name}' ({labels}), and "
            "their numbers differ. Need only the stage whose features are to be screened."
        )
    return same[0]


def _feature(
    space: str,
    index: int,
    found: Mapping[tuple[str, str], float],
    groups: tuple[str, str],
    contrast: str,
) -> Feature:
    def number(stat: str, group: str) -> float:
        if found.get((stat, group)) is None:
            raise DataError(
                f"feature {index} of space {space}: its '{stat}'{f' of {group}' if group else ''} "
                "is missing beside its 'd'. A screen needs what `compare.welch` writes (mean, "
                "density, d, q, fired); compare the groups again."
            )
        return found[stat, group]

    means, rates = ([number(stat, group) for group in groups] for stat in ("mean", "density"))
    fired, d, q = int(number("fired", "")), number("d", contrast), number("q", contrast)
    return Feature(space, index, (means[0], means[1]), sum(rates) / 2, fired, d, q)


def chosen(
    everything: Known, *, top: int, alpha: float, min_abs_d: float, min_count: int
) -> list[Feature]:
    """The candidates: significant, large enough, fired often enough; the largest |d| first."""
    fired = [
        feature
        for found in everything.features.values()
        for feature in found
        if feature.fired >= min_count
    ]
    passing = [feature for feature in fired if feature.q <= alpha and abs(feature.d) >= min_abs_d]
    if not passing:
        best = min((feature.q for feature in fired), default=1.0)
        raise DataError(
            f"No feature can be screened: of {len(fired)} that fired in at least {min_count} "
            f"samples none has q <= {alpha:g} and |d| >= {min_abs_d:g} (smallest q: {best:.3g}). "
            "Compare more units, or raise alpha."
        )
    return sorted(passing, key=lambda feature: (-abs(feature.d), feature.space, feature.index))[
        :top
    ]


def matched(
    feature: Feature,
    everything: Known,
    taken: set[tuple[str, int]],
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """Random features of the same space that fire about as often: drawn from the nearest in firing
    rate, candidates left out.

    Norms match by construction: an edit is as long as the change of the value, and every decoder
    row it goes along has length 1.
    """
    others = [
        other
        for other in everything.features[feature.space]
        if (other.space, other.index) not in taken
    ]
    if len(others) < count:
        raise DataError(
            f"random: {count} random features were asked for, the space of feature {feature.index} "
            f"has {len(others)} others that fired. Ask for fewer."
        )
    near = sorted(others, key=lambda other: (abs(other.rate - feature.rate), other.index))[
        : 3 * count
    ]
    return sorted(
        near[at].index for at in rng.choice(len(near), size=count, replace=False).tolist()
    )


def as_rows(rows: Sequence[Mapping[str, Any]], table: str) -> pa.Table:
    """An Arrow table from dicts."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    return pa.Table.from_pylist(list(rows), schema=arrow_schema(table))
