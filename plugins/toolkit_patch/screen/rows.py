"""The rows that a screen writes: one of `screens` per feature, and rows of `effects` for the
features that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .arms import DIRECTIONS, FEATURES, MEANS, PROMPT_ONLY, REBUILT, SETS, SHAM, SHUFFLED
from .estimates import MeanEstimate, estimate

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from .pool import DirectionTest
    from .setup import Screen

ALL = "*"
"""The sample of a row over all decision points."""
SPECIFIC = "specific"
"""The arm of one value against the other; its probability is that of the first."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Results at all points. `chances[arm]` is (candidates, points, outcomes), `base` (points,
    outcomes) without an edit, `kl[arm]` the divergence of either value, `fires` whether a candidate
    fires at a point unedited, `edits` how often each was edited.
    """

    chances: Mapping[str, np.ndarray[Any, Any]]
    base: np.ndarray[Any, Any]
    kl: Mapping[str, np.ndarray[Any, Any]]
    fires: np.ndarray[Any, Any]
    edits: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    clusters: np.ndarray[Any, Any]
    specific: MeanEstimate

    def mean(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(candidates, points) -> weighted means."""
        means: np.ndarray[Any, Any] = values @ self.weights / self.weights.sum()
        return means

    def moved(self, arm: str, column: int, member: Any = slice(None)) -> np.ndarray[Any, Any]:
        """(candidates, points): the change of an arm from the unedited model; (points,) for one
        member.
        """
        changes: np.ndarray[Any, Any] = (
            self.chances[arm][member, :, column].astype(float) - self.base[:, column]
        )
        return changes


DirectionTests = Mapping[int, "DirectionTest"]
"""Candidate -> its test against random directions, for those that were tested."""


def screen_rows(
    screen: Screen, measured: Measured, tests: DirectionTests, table: str = "screens"
) -> pa.Table:
    """One row per feature, of `screens` or `control_screens`, which have the same columns."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    columns = {
        **_candidate_columns(screen),
        **_effect_columns(screen, measured),
        **_null_columns(len(screen.step_rows), tests),
        **_arm_columns(screen, measured),
    }
    schema = arrow_schema(table)
    return pa.table(
        {name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema
    )


def _candidate_columns(screen: Screen) -> dict[str, Any]:
    """What is known of each feature before it is screened."""
    candidates, count = screen.candidates, len(screen.step_rows)
    shared = {
        "screen": screen.id,
        "comparison": candidates.comparison.id,
        "contrast": candidates.comparison.name,
        "group_a": candidates.groups[0],
        "group_b": candidates.groups[1],
        "outcome": screen.params.about,
        "points": len(screen.points),
        "family": len(screen.family),
        "checked": screen.checked,
    }
    return {
        **{name: [value] * count for name, value in shared.items()},
        "space": [candidates.spaces[space] for space in candidates.space.tolist()],
        "feature": candidates.feature,
        "value_a": candidates.values[:, 0],
        "value_b": candidates.values[:, 1],
        "d": candidates.d,
        "fired": candidates.fired,
    }


def _effect_columns(screen: Screen, measured: Measured) -> dict[str, Any]:
    """The specific effect of each feature with its evidence over units, and its side effect."""
    import numpy as np

    specific, count = measured.specific, len(screen.step_rows)
    base = float(measured.mean(measured.base[None, :, screen.column])[0])
    return {
        "fired_here": measured.fires.sum(axis=1),
        "clusters": [int(measured.clusters.max()) + 1] * count,
        "probability": [base] * count,
        "effect": specific.mean,
        "low": specific.low,
        "high": specific.high,
        "p_units": specific.p,
        "kl": measured.mean(np.maximum(*measured.kl.values())),
        "edits": measured.edits,
    }


def _arm_columns(screen: Screen, measured: Measured) -> dict[str, Any]:
    """The mean effects of the arms; None for those that were left out."""
    column, count = screen.column, len(screen.step_rows)
    means = {
        arm: measured.mean(measured.moved(arm, column))
        for arm in measured.chances
        if arm in (*SETS, *REBUILT, PROMPT_ONLY)
    }
    return {
        **{arm: means.get(arm, [None] * count) for arm in (*SETS, *REBUILT, PROMPT_ONLY)},
        "sham": abs(measured.moved(SHAM, column)).max(axis=1),
        "p_reconstruct": _p_of_reconstructions(screen, measured),
        "random_feature": _specific_of(measured, FEATURES, column),
        "random_direction": _specific_of(measured, DIRECTIONS, column),
        "shuffled": _specific_of(measured, SHUFFLED, column),
        "mean_difference": _specific_of(measured, MEANS, column),
    }


def _null_columns(count: int, tests: DirectionTests) -> dict[str, list[Any]]:
    """Results of the direction tests; None for features that were not tested."""
    names = ("null", "directions", "beyond", "null_low", "null_high", "p_directions")
    columns: dict[str, list[Any]] = {name: [None] * count for name in names}
    columns["directions"] = [0] * count
    for member, test in tests.items():
        for name in names:
            columns[name][member] = getattr(test, name)
    return columns


def _p_of_reconstructions(screen: Screen, measured: Measured) -> Any:
    """The larger p of the two values in a rebuilt stream."""
    import numpy as np

    if "reconstruct_a" not in measured.chances:
        return [None] * len(screen.step_rows)
    p_values = [
        estimate(
            measured.moved(arm, screen.column),
            measured.weights,
            measured.clusters,
            screen.work.rng("patch.bootstrap", arm),
        ).p
        for arm in REBUILT[1:]
    ]
    return np.maximum(*p_values)


def _specific_of(measured: Measured, arms: Sequence[str], column: int) -> Any:
    """The mean effect of one value against the other, in a pair of control arms."""
    if arms[0] not in measured.chances:
        return [None] * len(measured.fires)
    chances_a, chances_b = (measured.chances[arm][:, :, column].astype(float) for arm in arms)
    return measured.mean(chances_a - chances_b)


# --- effects --------------------------------------------------------------------------------------


def effect_rows(
    screen: Screen, measured: Measured, tests: DirectionTests, written: Any
) -> pa.Table:
    """Rows of every arm and outcome: over all points, and for each point."""
    import numpy as np
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    members = np.flatnonzero(written).tolist()
    rows: list[dict[str, Any]] = []
    for member in members:
        rows += _summaries(screen, measured, member)
        rows += _point_rows(screen, measured, member)
        if member in tests:
            rows.append(_null_row(screen, measured, member, tests[member]))
    return pa.Table.from_pylist(rows, schema=arrow_schema("effects"))


def arm_names(groups: Sequence[str]) -> dict[str, str]:
    """Names of the arms in table `effects`: a value is named by its group."""
    pairs = (
        ("set", SETS),
        ("reconstruct", REBUILT[1:]),
        ("random_feature", FEATURES),
        ("random_direction", DIRECTIONS),
        ("shuffled", SHUFFLED),
        ("mean_difference", MEANS),
    )
    value_arms = {
        arm: f"{word}:{group}"
        for word, arms in pairs
        for arm, group in zip(arms, groups, strict=True)
    }
    return {SHAM: SHAM, REBUILT[0]: REBUILT[0], PROMPT_ONLY: PROMPT_ONLY, **value_arms}


def _summaries(screen: Screen, measured: Measured, member: int) -> Iterator[dict[str, Any]]:
    """One row per arm and outcome over all points, all from one bootstrap."""
    import numpy as np

    names = arm_names(screen.candidates.groups)
    labels: list[tuple[str, str, str, int]] = []
    values = []
    for column, outcome in enumerate(screen.outcomes.names):
        for arm in measured.chances:
            labels.append((arm, names[arm], outcome, column))
            values.append(measured.moved(arm, column, member))
        labels.append((SPECIFIC, SPECIFIC, outcome, column))
        chances_a, chances_b = (
            measured.chances[arm][member, :, column].astype(float) for arm in SETS
        )
        values.append(chances_a - chances_b)
    rng = screen.work.rng("patch.bootstrap", "effects")
    effects = estimate(np.array(values), measured.weights, measured.clusters, rng)
    for number, (arm, name, outcome, column) in enumerate(labels):
        chances = measured.chances["set_a" if arm == SPECIFIC else arm][member, :, column]
        yield {
            **_key(screen, member, ALL, name, outcome),
            "probability": float(chances @ measured.weights / measured.weights.sum()),
            "effect": float(effects.mean[number]),
            "low": float(effects.low[number]),
            "high": float(effects.high[number]),
            "p": float(effects.p[number]),
            "q": None,
            "kl": float(measured.mean(measured.kl[arm][member])) if arm in SETS else None,
        }


def _null_row(
    screen: Screen, measured: Measured, member: int, test: DirectionTest
) -> dict[str, Any]:
    """The random directions as an arm: its interval holds 95 % of their effects."""
    return {
        **_key(screen, member, ALL, "random", screen.params.about),
        "probability": float(measured.mean(measured.base[None, :, screen.column])[0]),
        "effect": (test.null_low + test.null_high) / 2,
        "low": test.null_low,
        "high": test.null_high,
        "p": test.p_directions,
        "q": None,
        "kl": None,
    }


def _point_rows(screen: Screen, measured: Measured, member: int) -> Iterator[dict[str, Any]]:
    """One row per sample, arm and outcome; random arms have summaries only."""
    names = arm_names(screen.candidates.groups)
    for arm in measured.chances:
        if arm in (*FEATURES, *DIRECTIONS):
            continue
        for number, point in enumerate(screen.points):
            for column, outcome in enumerate(screen.outcomes.names):
                chance = float(measured.chances[arm][member, number, column])
                for sample, _ in point.owners:
                    yield {
                        **_key(screen, member, sample, names[arm], outcome),
                        "probability": chance,
                        "effect": chance - float(measured.base[number, column]),
                        **dict.fromkeys(("low", "high", "p", "q")),
                        "kl": float(measured.kl[arm][member, number]) if arm in SETS else None,
                    }


def _key(screen: Screen, member: int, sample: str, arm: str, outcome: str) -> dict[str, Any]:
    candidates = screen.candidates
    return {
        "screen": screen.id,
        "space": candidates.spaces[int(candidates.space[member])],
        "feature": int(candidates.feature[member]),
        "sample": sample,
        "arm": arm,
        "outcome": outcome,
    }
