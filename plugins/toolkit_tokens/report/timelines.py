"""Features through a game: what fires at the decision, from round to round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.features.addresses import layer_of, short
from toolkit.work import Figure, Inputs

from .drawings import lines

GAMES, FEATURES = 2, 5
"""Games that are drawn, and features of each."""
MIN_ROUNDS = 3
ROUND = "round"
"""The metadata key that orders the decisions of a game."""


@dataclass(frozen=True)
class _DecisionSample:
    """A sample that is a decision of a game."""

    sample: str
    round: float
    last_position: int


def last_space(spaces: Mapping[str, Mapping[str, Any]]) -> str:
    """The space of the last layer."""
    return max(spaces, key=lambda space: (layer_of(spaces[space]) or -1, space))


def timelines(inputs: Inputs) -> Iterator[Figure]:
    """For the longest games, the features of the last layer that change most at the decision."""
    games = _games(inputs)
    longest = sorted(games, key=lambda game: (-len(games[game]), game))[:GAMES]
    if not longest:
        return
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    chosen = last_space(spaces)
    values = _at_decisions(
        inputs, chosen, [decision for game in longest for decision in games[game]]
    )
    for game in longest:
        series = _series(games[game], values)
        named = {short(spaces[chosen], feature): points for feature, points in series.items()}
        if named:
            yield Figure(
                f"Features through a game: {game}, layer {layer_of(spaces[chosen])}",
                lines(named, "round", "activation at the decision"),
                f"The {len(named)} features that change most from round to round of "
                f"{len(games[game])} decisions.",
            )


@dataclass(frozen=True)
class GameChange:
    """A feature's change from the first to the last decision, by game, and the means at both."""

    address: str
    changes: Sequence[float]
    first: float
    last: float


def changes_through_games(inputs: Inputs) -> list[GameChange]:
    """For the features of the last layer, the changes through every game that has a timeline."""
    games = _games(inputs)
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    if not games or not spaces:
        return []
    chosen = last_space(spaces)
    edges = [(decisions[0], decisions[-1]) for decisions in games.values()]
    values = _at_decisions(inputs, chosen, [decision for pair in edges for decision in pair])
    observed = [
        (values[first.sample], values[last.sample])
        for first, last in edges
        if first.sample in values and last.sample in values
    ]
    features = sorted({feature for pair in observed for fired in pair for feature in fired})
    return [_change(short(spaces[chosen], feature), feature, observed) for feature in features]


def _change(
    address: str, feature: int, observed: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]
) -> GameChange:
    pairs = [(first.get(feature, 0.0), last.get(feature, 0.0)) for first, last in observed]
    return GameChange(
        address,
        [last - first for first, last in pairs],
        sum(first for first, _ in pairs) / len(pairs),
        sum(last for _, last in pairs) / len(pairs),
    )


def _games(inputs: Inputs) -> dict[str, list[_DecisionSample]]:
    """The decisions of each game that has enough of them, in the order of play."""
    if not {"samples", "sample_meta"} <= set(inputs.tables()):
        return {}
    rounds = {
        row["sample"]: row["number"]
        for row in inputs.read("sample_meta").to_pylist()
        if row["key"] == ROUND and row["number"] is not None
    }
    games: dict[str, list[_DecisionSample]] = defaultdict(list)
    for row in inputs.read("samples").select(["sample", "unit", "token_ids"]).to_pylist():
        if row["sample"] in rounds:
            last_position = len(row["token_ids"]) - 1
            games[row["unit"]].append(
                _DecisionSample(row["sample"], rounds[row["sample"]], last_position)
            )
    return {
        game: sorted(decisions, key=lambda decision: decision.round)
        for game, decisions in games.items()
        if len({decision.round for decision in decisions}) >= MIN_ROUNDS
    }


def _at_decisions(
    inputs: Inputs, space: str, decisions: Sequence[_DecisionSample]
) -> dict[str, dict[int, float]]:
    """By sample, the features of the space at its last token."""
    import pyarrow as pa
    import pyarrow.compute as pc

    last_positions = {decision.sample: decision.last_position for decision in decisions}
    table = inputs.read("activations")
    mask = pc.and_(
        pc.equal(table["space"], space),
        pc.is_in(table["sample"], value_set=pa.array(list(last_positions))),
    )
    return {
        row["sample"]: dict(zip(row["features"], row["values"], strict=True))
        for row in table.filter(mask).to_pylist()
        if row["position"] == last_positions[row["sample"]]
    }


def _series(
    decisions: Sequence[_DecisionSample], values: Mapping[str, Mapping[int, float]]
) -> dict[int, list[tuple[float, float]]]:
    """The features with the widest range over the tracked decisions; a feature that does not fire
    counts as 0.
    """
    observed = [decision for decision in decisions if decision.sample in values]
    if len(observed) < MIN_ROUNDS:
        return {}
    features = sorted({feature for decision in observed for feature in values[decision.sample]})
    points = {
        feature: [
            (decision.round, values[decision.sample].get(feature, 0.0)) for decision in observed
        ]
        for feature in features
    }

    def spread(feature: int) -> float:
        heights = [value for _, value in points[feature]]
        return max(heights) - min(heights)

    widest = sorted(features, key=lambda feature: (-spread(feature), feature))[:FEATURES]
    return {feature: points[feature] for feature in widest if spread(feature) > 0}
