"""Which features are screened, as columns: the two values each is set to, how often it fires, and
what the comparison says of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from toolkit.addresses import locate
from toolkit.comparisons import Comparison, read_comparisons, rows_of
from toolkit.errors import DataError, choices, nearest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from toolkit.work import Inputs

    from .params import Candidates

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ComparedFeatures:
    """Features of one comparison, by space and then by index.

    `space` counts in `spaces`, `values` has a column for each group, `rate` is the share of samples
    in which a feature fires, `fired` their number.
    """

    comparison: Comparison
    groups: tuple[str, str]
    spaces: Sequence[str]
    space: Array
    feature: Array
    values: Array
    rate: Array
    fired: Array
    d: Array
    q: Array

    def __len__(self) -> int:
        return len(self.feature)

    def take(self, rows: Array) -> ComparedFeatures:
        """Some of them."""
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name not in ("comparison", "groups", "spaces")
        }
        return ComparedFeatures(self.comparison, self.groups, self.spaces, **columns)

    def of_space(self, space: int) -> Array:
        """Rows of one space."""
        import numpy as np

        return np.flatnonzero(self.space == space)


def read_features(inputs: Inputs, between: tuple[str, str] | None, half: str) -> ComparedFeatures:
    """Every feature with a defined d in the comparison that a screen draws on."""
    comparison = _comparison(read_comparisons(inputs), between, half)
    names = comparison.group_names
    rows = rows_of(inputs.read("features"), comparison)
    spaces = sorted(set(rows["space"].to_pylist()))
    d_keys, d = _column(rows, spaces, "d", comparison.name)

    def beside(stat: str, group: str) -> Array:
        return _aligned(rows, spaces, d_keys, stat, group)

    import numpy as np

    return ComparedFeatures(
        comparison,
        (names[0], names[1]),
        spaces,
        d_keys >> 32,
        d_keys & 0xFFFFFFFF,
        np.stack([beside("mean", group) for group in names], axis=1),
        np.mean([beside("density", group) for group in names], axis=0),
        beside("fired", "").astype(np.int64),
        d,
        beside("q", comparison.name),
    )


def _comparison(
    there: Sequence[Comparison], between: tuple[str, str] | None, half: str
) -> Comparison:
    """The comparison of two groups on units that the screen does not use."""
    pairs = [one for one in there if one.effect == "d"]
    names = sorted({one.name for one in pairs})
    if between is not None and " vs ".join(between) not in names:
        asked = " vs ".join(between)
        raise DataError(
            f"between: no stage compared '{asked}'.{nearest(asked, names)} Comparisons: "
            f"{choices(names)}."
        )
    if between is None and len(names) != 1:
        raise DataError(
            f"between: the needed stages made {len(names)} comparisons "
            f"({choices(names)}); name the "
            "groups of one."
        )
    named = [one for one in pairs if one.name == (" vs ".join(between) if between else names[0])]
    unseen = [one for one in named if one.half == "select"]
    fitting = unseen or ([one for one in named if one.half == "all"] if half == "all" else [])
    if not fitting:
        halves = sorted({one.half for one in named})
        raise DataError(
            f"half: '{named[0].name}' was compared on {choices(halves)} of the units only, and a "
            "screen takes its decision points from units that the comparison did not see. Compare "
            "with `half: select`, or screen with `half: all` to describe the same units."
        )
    if len(fitting) > 1:
        labels = choices([one.label for one in fitting])
        raise DataError(
            f"between: {len(fitting)} comparisons of '{named[0].name}' are needed here ({labels}). "
            "Need one of their stages only."
        )
    return fitting[0]


def _column(rows: pa.Table, spaces: Sequence[str], stat: str, group: str) -> tuple[Array, Array]:
    """Sorted keys (space << 32 | feature) of a statistic where it is defined, and its numbers."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = pc.and_(pc.equal(rows["stat"], stat), pc.equal(rows["group"], group))
    chosen = rows.filter(pc.and_(mask, pc.is_valid(rows["number"])))
    space = pc.index_in(chosen["space"], value_set=pa.array(list(spaces))).to_numpy()
    keys = (space.astype(np.int64) << 32) | chosen["feature"].to_numpy().astype(np.int64)
    order = np.argsort(keys, kind="stable")
    return keys[order], chosen["number"].to_numpy()[order]


def _aligned(rows: pa.Table, spaces: Sequence[str], wanted: Array, stat: str, group: str) -> Array:
    """A statistic of the features in `wanted`; one that is missing is an error."""
    import numpy as np

    keys, numbers = _column(rows, spaces, stat, group)
    places = np.searchsorted(keys, wanted)
    held = np.append(keys, -1)[places] == wanted if len(keys) else np.zeros(len(wanted), bool)
    if not held.all():
        key = int(wanted[int(np.argmin(held))])
        of = f" of {group}" if group else ""
        raise DataError(
            f"feature {key & 0xFFFFFFFF} of space {spaces[key >> 32]}: its '{stat}'{of} is missing "
            "beside its 'd'. A screen needs what `compare.welch` writes (mean, density, d, q, "
            "fired); compare the groups again."
        )
    return numbers[places]


def family(everything: ComparedFeatures, rule: Candidates, spaces: Mapping[str, Any]) -> Array:
    """Rows of the features to be screened, by space and index. `spaces`: rows of table `spaces`."""
    import numpy as np

    if rule.features:
        return _named(everything, rule.features, spaces)
    fired = everything.fired >= rule.min_count
    passing = fired & (abs(everything.d) >= rule.min_abs_d)
    if rule.max_q is not None:
        passing &= everything.q <= rule.max_q
    if not passing.any():
        _refuse_none(everything, rule, fired)
    rows = np.flatnonzero(passing)
    size = -abs(everything.d[rows]) if rule.by == "abs_d" else everything.q[rows]
    rows = rows[np.lexsort((everything.feature[rows], everything.space[rows], size))]
    if rule.top is None:
        return np.sort(rows)
    if rule.per == "run":
        return np.sort(rows[: rule.top])
    parts = [
        rows[everything.space[rows] == space][: rule.top] for space in np.unique(everything.space)
    ]
    return np.sort(np.concatenate(parts))


def _refuse_none(everything: ComparedFeatures, rule: Candidates, fired: Array) -> None:
    best = float(everything.q[fired].min()) if fired.any() else 1.0
    limit = f"q <= {rule.max_q:g} and " if rule.max_q is not None else ""
    raise DataError(
        f"No feature can be screened: of {int(fired.sum())} that fired in at least "
        f"{rule.min_count} samples none has {limit}|d| >= {rule.min_abs_d:g} (smallest q: "
        f"{best:.3g}). Compare more units, or set candidates.max_q and candidates.min_abs_d."
    )


def with_unfired(
    everything: ComparedFeatures, rule: Candidates, spaces: Mapping[str, Any]
) -> ComparedFeatures:
    """With the named features that never fired, where the rule asks for them: 0 in both groups."""
    import numpy as np

    if rule.unfired == "refuse" or not rule.features:
        return everything
    known = {
        (everything.space[row] << 32) | everything.feature[row] for row in range(len(everything))
    }
    keys = []
    for address in rule.features:
        found, index = locate(address, list(spaces.values()))
        space = str(found["space"])
        if space in everything.spaces:
            keys.append((everything.spaces.index(space) << 32) | index)
    missing = np.array(sorted(set(keys) - known), dtype=np.int64)
    if not len(missing):
        return everything
    none = np.zeros(len(missing))
    added = {
        "space": missing >> 32,
        "feature": missing & 0xFFFFFFFF,
        "values": np.zeros((len(missing), 2)),
        "rate": none,
        "fired": none.astype(np.int64),
        "d": none,
        "q": none + 1,
    }
    joined = {name: np.concatenate([getattr(everything, name), new]) for name, new in added.items()}
    order = np.argsort((joined["space"].astype(np.int64) << 32) | joined["feature"], kind="stable")
    columns = {name: column[order] for name, column in joined.items()}
    return ComparedFeatures(everything.comparison, everything.groups, everything.spaces, **columns)


def _named(
    everything: ComparedFeatures, addresses: Sequence[str], spaces: Mapping[str, Any]
) -> Array:
    """Rows of the features at these addresses; one that never fired is refused."""
    import numpy as np

    keys = (everything.space.astype(np.int64) << 32) | everything.feature
    rows = []
    for address in addresses:
        found, index = locate(address, list(spaces.values()))
        space = str(found["space"])
        key = (everything.spaces.index(space) << 32) | index if space in everything.spaces else -1
        place = int(np.searchsorted(keys, key))
        if place >= len(keys) or keys[place] != key:
            raise DataError(
                f"candidates.features: feature {address} never fired in the samples that were "
                f"compared ({everything.comparison.name}), so it has no value to be set to. Leave "
                "it out, or say `unfired: screen`."
            )
        rows.append(place)
    return np.unique(np.array(rows))
