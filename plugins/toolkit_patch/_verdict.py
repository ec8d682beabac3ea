"""From outcomes at points to intervals, corrected p-values and a verdict with its reason for each
feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from ._candidates import Feature
    from ._params import Delta

    Floats = np.ndarray[Any, np.dtype[np.float64]]

ALL = "*"
SPECIFIC, RANDOM = "specific", "random"


class HasChances(Protocol):
    """What one edit gave at one point."""

    @property
    def chances(self) -> Floats: ...
    @property
    def kl(self) -> float: ...


Found = Mapping[tuple["Feature", str], Sequence[HasChances]]


@dataclass(frozen=True)
class Judge:
    """What verdicts need beside the numbers. `owners`: the (sample, unit) pairs of each point."""

    params: Delta
    names: Sequence[str]
    groups: tuple[str, str]
    owners: Sequence[Sequence[tuple[str, str]]]
    weights: Floats = field(init=False)
    clusters: Any = field(init=False)

    def __post_init__(self) -> None:
        import numpy as np

        object.__setattr__(
            self, "weights", np.array([float(len(owners)) for owners in self.owners])
        )
        object.__setattr__(self, "clusters", _clusters(self.owners))

    @property
    def column(self) -> int:
        """Of the outcome that verdicts are about."""
        return list(self.names).index(self.params.outcome or next(iter(self.params.outcomes)))


@dataclass(frozen=True)
class Estimate:
    """A mean over decision points with its 95 % interval, from independent clusters."""

    mean: float
    low: float
    high: float
    p: float


def summaries(
    judge: Judge, features: Sequence[Feature], found: Found
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `effects` over all points, with q over everything that was tried, and rows of
    `features` with the verdicts.
    """
    rows: list[dict[str, Any]] = []
    for feature in features:
        rows += _arms(judge, feature, found)
        rows.append(_random(judge, feature, found))
    _correct(rows)
    by_feature = {(feature.space, feature.index): feature for feature in features}
    own = {
        key: [row for row in rows if (row["space"], row["feature"]) == key] for key in by_feature
    }
    return rows, [
        _verdict_row(judge, feature, own[key], found) for key, feature in by_feature.items()
    ]


def _arms(judge: Judge, feature: Feature, found: Found) -> list[dict[str, Any]]:
    """Each arm against the unedited model, and one value against the other."""
    first, second = (f"set:{group}" for group in judge.groups)
    arms = [
        "sham",
        first,
        second,
        "reconstruct",
        *(f"reconstruct:{group}" for group in judge.groups),
    ]
    base = _chances(found, feature, "base")
    rows = [
        _row(
            judge,
            feature,
            arm,
            column,
            _chances(found, feature, arm),
            base,
            _kl(judge, found, feature, arm),
        )
        for arm in arms
        for column in range(len(judge.names))
    ]
    one, other = _chances(found, feature, first), _chances(found, feature, second)
    return rows + [
        _row(judge, feature, SPECIFIC, column, one, other, None)
        for column in range(len(judge.names))
    ]


def _row(
    judge: Judge,
    feature: Feature,
    arm: str,
    column: int,
    here: Floats,
    against: Floats,
    kl: float | None,
) -> dict[str, Any]:
    import numpy as np

    found = estimate(here[:, column] - against[:, column], judge.weights, judge.clusters)
    return {
        "space": feature.space,
        "feature": feature.index,
        "sample": ALL,
        "arm": arm,
        "outcome": judge.names[column],
        "probability": float(np.average(here[:, column], weights=judge.weights)),
        "effect": found.mean,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "q": None,
        "kl": kl,
    }


def _random(judge: Judge, feature: Feature, found: Found) -> dict[str, Any]:
    """What random features do: the mean of their specific effects, and their smallest and largest
    as the interval.
    """
    import numpy as np

    effects = random_effects(judge, feature, found)
    beyond = int((abs(effects) >= abs(_specific(judge, feature, found))).sum())
    arms = [f"random{number}:{judge.groups[0]}" for number in range(judge.params.random)]
    seen = [_chances(found, feature, arm)[:, judge.column] for arm in arms]
    return {
        "space": feature.space,
        "feature": feature.index,
        "sample": ALL,
        "arm": RANDOM,
        "outcome": judge.names[judge.column],
        "probability": float(
            np.mean([np.average(chances, weights=judge.weights) for chances in seen])
        ),
        "effect": float(effects.mean()),
        "low": float(effects.min()),
        "high": float(effects.max()),
        "p": (1 + beyond) / (1 + len(effects)),
        "q": None,
        "kl": None,
    }


def random_effects(judge: Judge, feature: Feature, found: Found) -> Floats:
    """The specific effect of each random feature that stands beside a candidate."""
    import numpy as np

    effects = []
    for number in range(judge.params.random):
        one, other = (
            _chances(found, feature, f"random{number}:{group}")[:, judge.column]
            for group in judge.groups
        )
        effects.append(float(np.average(one - other, weights=judge.weights)))
    return np.array(effects)


def _specific(judge: Judge, feature: Feature, found: Found) -> float:
    import numpy as np

    one, other = (
        _chances(found, feature, f"set:{group}")[:, judge.column] for group in judge.groups
    )
    return float(np.average(one - other, weights=judge.weights))


def _chances(found: Found, feature: Feature, arm: str) -> Floats:
    import numpy as np

    return np.stack([outcome.chances for outcome in found[feature, arm]])


def _kl(judge: Judge, found: Found, feature: Feature, arm: str) -> float:
    import numpy as np

    return float(np.average([outcome.kl for outcome in found[feature, arm]], weights=judge.weights))


# --- intervals and correction ---------------------------------------------------------------------


def estimate(values: Floats, weights: Floats, clusters: Any) -> Estimate:
    """A weighted mean with a cluster-robust t interval. Values that do not differ at all are no
    evidence: p is 1.
    """
    import numpy as np
    from scipy import special

    mean = float(np.average(values, weights=weights))
    sums = np.bincount(clusters, weights=weights * (values - mean))
    count = len(sums)
    error = (
        float(np.sqrt(count / (count - 1) * (sums**2).sum()) / weights.sum())
        if count > 1
        else float("nan")
    )
    if not error > 0:
        return Estimate(mean, mean, mean, 1.0)
    reach = float(special.stdtrit(count - 1, 0.975)) * error
    return Estimate(
        mean, mean - reach, mean + reach, float(2 * special.stdtr(count - 1, -abs(mean) / error))
    )


def _clusters(owners: Sequence[Sequence[tuple[str, str]]]) -> Any:
    """Points that share a unit, directly or through other points, are one cluster."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    units = {
        unit: number
        for number, unit in enumerate(sorted({unit for pairs in owners for _, unit in pairs}))
    }
    links = [(point, units[unit]) for point, pairs in enumerate(owners) for _, unit in pairs]
    rows, columns = np.array(links).T
    size = len(owners) + len(units)
    graph = coo_array((np.ones(len(links)), (rows, columns + len(owners))), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(owners)]
    return np.unique(labels, return_inverse=True)[1]


def _correct(rows: list[dict[str, Any]]) -> None:
    """Benjamini-Hochberg over every test of this stage; what random features did is a control, not
    a test.
    """
    import numpy as np
    from scipy.stats import false_discovery_control

    tests = [row for row in rows if row["arm"] != RANDOM]
    for row, q in zip(
        tests, false_discovery_control(np.array([row["p"] for row in tests])), strict=True
    ):
        row["q"] = float(q)


# --- verdicts -------------------------------------------------------------------------------------


def _verdict_row(
    judge: Judge, feature: Feature, rows: Sequence[Mapping[str, Any]], found: Found
) -> dict[str, Any]:
    about = judge.names[judge.column]
    arms = {row["arm"]: row for row in rows if row["outcome"] == about}
    return {
        "space": feature.space,
        "feature": feature.index,
        "stat": "verdict",
        "group": " vs ".join(judge.groups),
        "number": arms[SPECIFIC]["effect"],
        "text": verdict(judge, arms),
    }


def verdict(judge: Judge, arms: Mapping[str, Mapping[str, Any]]) -> str:
    """`causal`, `not specific`, `reconstruction` or `no effect`, and why."""
    params, about = judge.params, judge.names[judge.column]
    specific, random = arms[SPECIFIC], arms[RANDOM]
    moved = f"P({about}) by {_with_interval(specific)}"
    swapped = f"{judge.groups[0]}'s mean instead of {judge.groups[1]}'s moves {moved}"
    largest = max(abs(random["low"]), abs(random["high"]))
    beside = f"{params.random} random features move it by at most {largest:.3f}"
    if _counts(params, specific) and random["p"] <= params.alpha:
        return f"causal: {swapped}; {beside}"
    if _counts(params, specific):
        return f"not specific: {swapped}; but {beside}"
    rebuilt = [arms[f"reconstruct:{group}"] for group in judge.groups]
    if (
        all(_counts(params, row) for row in rebuilt)
        and rebuilt[0]["effect"] * rebuilt[1]["effect"] > 0
    ):
        both = " and ".join(signed(row["effect"]) for row in rebuilt)
        return (
            f"reconstruction: with the whole stream rebuilt both values move P({about}) ({both}); "
            f"with the error kept: {moved}"
        )
    return f"no effect: {swapped}"


def _counts(params: Delta, row: Mapping[str, Any]) -> bool:
    return (
        row["q"] is not None
        and row["q"] <= params.alpha
        and abs(row["effect"]) >= params.min_effect
    )


def _with_interval(row: Mapping[str, Any]) -> str:
    return (
        f"{signed(row['effect'])} [{signed(row['low'])}, {signed(row['high'])}] (q {row['q']:.2g})"
    )


def signed(value: float) -> str:
    """With its sign, three decimals; what rounds to nothing has none."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text
