"""The features that are screened, as columns: the two values that each is set to, how often it
fires, and its statistics in the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, choices, nearest
from toolkit.features.addresses import locate
from toolkit.features.comparisons import Comparison, read_comparisons, rows_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from toolkit.work import Inputs

    from .params import Candidates

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ComparedFeatures:
    """Features of one comparison, by space and then by index.

    `space` indexes `spaces`, `values` has a column per group, `rate` is the share of samples in
    which a feature fires, `fired` their number.
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
        """The features of these rows."""
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name not in ("comparison", "groups", "spaces")
        }
        return ComparedFeatures(self.comparison, self.groups, self.spaces, **columns)

    def of_space(self, space: int) -> Array:
        """The rows of one space."""
        import numpy as np

        return np.flatnonzero(self.space == space)


def read_features(
    inputs: Inputs, between: tuple[str, str] | None, half: str, seed: int | None = None
) -> ComparedFeatures:
    """Every feature with a defined d, in the comparison that a screen with this seed uses."""
    comparison = _comparison(read_comparisons(inputs), between, half)
    _check_seed(comparison, half, seed)
    groups = comparison.group_names
    rows = rows_of(inputs.read("features"), comparison)
    spaces = sorted(set(rows["space"].to_pylist()))
    d_keys, d = _column(rows, spaces, "d", comparison.name)

    def aligned(stat: str, group: str) -> Array:
        return _aligned(rows, spaces, d_keys, stat, group)

    import numpy as np

    return ComparedFeatures(
        comparison,
        (groups[0], groups[1]),
        spaces,
        d_keys >> 32,
        d_keys & 0xFFFFFFFF,
        np.stack([aligned("mean", group) for group in groups], axis=1),
        np.mean([aligned("density", group) for group in groups], axis=0),
        aligned("fired", "").astype(np.int64),
        d,
        aligned("q", comparison.name),
    )


def _comparison(
    comparisons: Sequence[Comparison], between: tuple[str, str] | None, half: str
) -> Comparison:
    """The comparison of two groups on units that the screen does not use."""
    pairs = [comparison for comparison in comparisons if comparison.effect == "d"]
    names = sorted({comparison.name for comparison in pairs})
    if between is not None and " vs ".join(between) not in names:
        requested = " vs ".join(between)
        raise DataError(
            f"between: no stage compared '{requested}'.{nearest(requested, names)} Comparisons: "
            f"{choices(names)}."
        )
    if between is None and len(names) != 1:
        raise DataError(
            f"between: the needed stages made {len(names)} comparisons ({choices(names)}); name "
            "the groups of one."
        )
    matching = [
        comparison
        for comparison in pairs
        if comparison.name == (" vs ".join(between) if between else names[0])
    ]
    unseen = [comparison for comparison in matching if comparison.half == "select"]
    usable = unseen or (
        [comparison for comparison in matching if comparison.half == "all"] if half == "all" else []
    )
    if not usable:
        halves = sorted({comparison.half for comparison in matching})
        raise DataError(
            f"half: '{matching[0].name}' was compared on {choices(halves)} of the units "
            "only, and a screen takes its decision points from units that the comparison did not "
            "see. Compare with `half: select`, or screen with `half: all` to describe the same "
            "units."
        )
    if len(usable) > 1:
        labels = choices([comparison.label for comparison in usable])
        raise DataError(
            f"between: {len(usable)} comparisons of '{matching[0].name}' are needed here "
            f"({labels}). Need one of their stages only."
        )
    return usable[0]


def _check_seed(comparison: Comparison, half: str, seed: int | None) -> None:
    """Refuse a comparison whose halves were drawn by another seed, where the halves matter."""
    if half != "all" and None not in (comparison.seed, seed) and comparison.seed != seed:
        raise DataError(
            f"half: the units of '{comparison.name}' were split by seed {comparison.seed} and "
            f"those of this stage by seed {seed}, so units that chose the features could confirm "
            f"them. Set `seed: {comparison.seed}` in this stage."
        )


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


def _aligned(
    rows: pa.Table, spaces: Sequence[str], target_keys: Array, stat: str, group: str
) -> Array:
    """A statistic of the features with these keys; a missing one is an error."""
    import numpy as np

    keys, numbers = _column(rows, spaces, stat, group)
    positions = np.searchsorted(keys, target_keys)
    is_present = (
        np.append(keys, -1)[positions] == target_keys
        if len(keys)
        else np.zeros(len(target_keys), bool)
    )
    if not is_present.all():
        key = int(target_keys[int(np.argmin(is_present))])
        group_part = f" of {group}" if group else ""
        raise DataError(
            f"feature {key & 0xFFFFFFFF} of space {spaces[key >> 32]}: its '{stat}'{group_part} "
            "is missing, though it has 'd'. A screen needs what `compare.welch` writes (mean, "
            "density, d, q, fired); compare the groups again."
        )
    return numbers[positions]


def family(compared: ComparedFeatures, rule: Candidates, spaces: Mapping[str, Any]) -> Array:
    """The rows of the features to screen, in order. `spaces`: rows of table `spaces`, by id."""
    import numpy as np

    if rule.features:
        return _named_rows(compared, rule.features, spaces)
    fires_enough = compared.fired >= rule.min_count
    passing = fires_enough & (abs(compared.d) >= rule.min_abs_d)
    if rule.max_q is not None:
        passing &= compared.q <= rule.max_q
    if not passing.any():
        _refuse_none(compared, rule, fires_enough)
    rows = np.flatnonzero(passing)
    sort_key = -abs(compared.d[rows]) if rule.by == "abs_d" else compared.q[rows]
    rows = rows[np.lexsort((compared.feature[rows], compared.space[rows], sort_key))]
    if rule.top is None:
        return np.sort(rows)
    if rule.per == "run":
        return np.sort(rows[: rule.top])
    parts = [rows[compared.space[rows] == space][: rule.top] for space in np.unique(compared.space)]
    return np.sort(np.concatenate(parts))


def _refuse_none(compared: ComparedFeatures, rule: Candidates, fires_enough: Array) -> None:
    smallest_q = float(compared.q[fires_enough].min()) if fires_enough.any() else 1.0
    limit = f"q <= {rule.max_q:g} and " if rule.max_q is not None else ""
    raise DataError(
        f"No feature can be screened: of {int(fires_enough.sum())} that fired in at least "
        f"{rule.min_count} samples none has {limit}|d| >= {rule.min_abs_d:g} (smallest q: "
        f"{smallest_q:.3g}). Compare more units, or set candidates.max_q and candidates.min_abs_d."
    )


def with_unfired(
    compared: ComparedFeatures, rule: Candidates, spaces: Mapping[str, Any]
) -> ComparedFeatures:
    """Add named features that never fired, with 0 in both groups, if the rule asks for them."""
    import numpy as np

    if rule.unfired == "refuse" or not rule.features:
        return compared
    known_keys = {
        (compared.space[row] << 32) | compared.feature[row] for row in range(len(compared))
    }
    keys = []
    for address in rule.features:
        space_row, index = locate(address, list(spaces.values()))
        space = str(space_row["space"])
        if space in compared.spaces:
            keys.append((compared.spaces.index(space) << 32) | index)
    missing = np.array(sorted(set(keys) - known_keys), dtype=np.int64)
    if not len(missing):
        return compared
    zeros = np.zeros(len(missing))
    added = {
        "space": missing >> 32,
        "feature": missing & 0xFFFFFFFF,
        "values": np.zeros((len(missing), 2)),
        "rate": zeros,
        "fired": zeros.astype(np.int64),
        "d": zeros,
        "q": zeros + 1,
    }
    joined = {
        name: np.concatenate([getattr(compared, name), values]) for name, values in added.items()
    }
    order = np.argsort((joined["space"].astype(np.int64) << 32) | joined["feature"], kind="stable")
    columns = {name: column[order] for name, column in joined.items()}
    return ComparedFeatures(compared.comparison, compared.groups, compared.spaces, **columns)


def _named_rows(
    compared: ComparedFeatures, addresses: Sequence[str], spaces: Mapping[str, Any]
) -> Array:
    """Rows of the features at these addresses; one that never fired is refused."""
    import numpy as np

    keys = (compared.space.astype(np.int64) << 32) | compared.feature
    rows = []
    for address in addresses:
        space_row, index = locate(address, list(spaces.values()))
        space = str(space_row["space"])
        key = (compared.spaces.index(space) << 32) | index if space in compared.spaces else -1
        row = int(np.searchsorted(keys, key))
        if row >= len(keys) or keys[row] != key:
            raise DataError(
                f"candidates.features: feature {address} never fired in the samples that were "
                f"compared ({compared.comparison.name}), so it has no value to be set to. Leave "
                "it out, or set `unfired: screen`."
            )
        rows.append(row)
    return np.unique(np.array(rows))
