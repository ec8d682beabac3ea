"""The effects of a condition's switches: one at a time, in pairs, and by their number."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from toolkit.statistics.arrays import Floats
from toolkit.statistics.corrections import q_values

from .intervals import pearson, wilson
from .logistic import FEWEST_CLUSTERS, Coefficient, effective_number, fit
from .played import GameRecord
from .rows import row
from .scopes import ALL


@dataclass(frozen=True)
class _GameClusters:
    """The cluster of each row of a design, how many there are, and how a table names them."""

    names: Sequence[Hashable]
    count: int
    note: str


def effects(games: Sequence[GameRecord]) -> Iterator[dict[str, Any]]:
    """Rows of the effects of switches on the event and on leaving, and of how many are on."""
    switches = _varied(games)
    if not switches:
        return
    name = games[0].event or "event"
    informative, left_out = _informative(games, [game.outcome == game.event for game in games])
    event = _events(informative)
    clusters = _clusters(informative, _design(informative, switches).shape[1])
    if left_out:
        clusters = replace(clusters, note=f"{clusters.note}; {left_out}")
    yield from _single_effects(informative, switches, event, clusters, f"odds:{name}")
    yield from _pair_effects(informative, switches, event, clusters, f"odds_pair:{name}")
    yield from _leaving_effects(games, switches)
    yield from _complexity(games, switches)
    yield _trend(informative, switches, event, clusters)


def _events(games: Sequence[GameRecord]) -> Floats:
    return np.array([float(game.outcome == game.event) for game in games])


def _informative(
    games: Sequence[GameRecord], outcomes: Sequence[bool], unit: str = "games ended"
) -> tuple[list[GameRecord], str]:
    """The games of groups in which outcomes differ, and a note on the others: given the group,
    these carry no information about a switch.
    """
    of_group: dict[str, set[bool]] = {}
    for game, outcome in zip(games, outcomes, strict=True):
        of_group.setdefault(game.group, set()).add(outcome)
    uninformative = sorted(group for group, values in of_group.items() if len(values) < 2)
    if not uninformative or len(uninformative) == len(of_group):
        return list(games), ""
    informative = [game for game in games if game.group not in uninformative]
    return informative, f"left out, since all {unit} alike: {'; '.join(uninformative)}"


def _varied(games: Sequence[GameRecord]) -> list[str]:
    """The switches that are on in some games and off in others."""
    names = sorted({name for game in games for name in game.switches})
    return [name for name in names if len({game.switches.get(name, False) for game in games}) > 1]


def _clusters(games: Sequence[GameRecord], columns: int) -> _GameClusters:
    """Games of one repetition share their luck, so repetitions are the clusters if they are enough:
    by their effective number at least ten, and more than the columns of the design.
    """
    repetitions: list[Hashable] = [game.repetition for game in games]
    count, effective = len(set(repetitions)), effective_number(repetitions)
    if effective >= FEWEST_CLUSTERS and effective > columns:
        note = f"{len(games):,} games; clusters are {count:,} repetitions, whose games share luck"
        return _GameClusters(repetitions, count, note)
    note = (
        f"{len(games):,} games, each its own cluster: {count} repetitions of these sizes tell no "
        f"more than {effective:.1f} of one size. That games of a repetition share their luck is "
        "not accounted for"
    )
    return _GameClusters([game.name for game in games], len(games), note)


def _design(games: Sequence[GameRecord], switches: Sequence[str]) -> Floats:
    """The columns of the design: ones, the switches, and all groups but the first."""
    columns = [np.ones(len(games))]
    columns += [
        np.array([float(game.switches.get(name, False)) for game in games]) for name in switches
    ]
    columns += _group_columns(games)
    return np.column_stack(columns)


def _group_columns(games: Sequence[GameRecord]) -> list[Floats]:
    groups = [game.group for game in games]
    return [
        np.array([float(group == level) for group in groups]) for level in sorted(set(groups))[1:]
    ]


def _single_effects(
    games: Sequence[GameRecord],
    switches: Sequence[str],
    outcome: Floats,
    clusters: _GameClusters,
    measure: str,
) -> Iterator[dict[str, Any]]:
    coefficients = fit(_design(games, switches), outcome, clusters.names)
    if isinstance(coefficients, str):
        for name in switches:
            yield row(measure, name, ALL, None, n=clusters.count, text=coefficients)
        return
    of_switches = coefficients[1 : 1 + len(switches)]
    corrected = q_values([coefficient.p for coefficient in of_switches])
    for name, coefficient, q in zip(switches, of_switches, corrected, strict=True):
        yield _effect_row(measure, name, coefficient, q, clusters)


def _effect_row(
    measure: str,
    subject: str,
    coefficient: Coefficient,
    q: float | None,
    clusters: _GameClusters,
) -> dict[str, Any]:
    return row(
        measure,
        subject,
        ALL,
        coefficient.value,
        coefficient.low,
        coefficient.high,
        p=coefficient.p,
        q=q,
        n=clusters.count,
        text=clusters.note,
    )


def _pair_effects(
    games: Sequence[GameRecord],
    switches: Sequence[str],
    outcome: Floats,
    clusters: _GameClusters,
    measure: str,
) -> Iterator[dict[str, Any]]:
    """The interaction of each two switches, one pair at a time."""
    base = _design(games, switches)
    pairs = list(combinations(range(len(switches)), 2))
    fits = [
        fit(np.column_stack([base, base[:, 1 + a] * base[:, 1 + b]]), outcome, clusters.names)
        for a, b in pairs
    ]
    p = [math.nan if isinstance(fitted, str) else fitted[-1].p for fitted in fits]
    corrected = q_values(p)
    for (a, b), fitted, q in zip(pairs, fits, corrected, strict=True):
        subject = f"{switches[a]} x {switches[b]}"
        if isinstance(fitted, str):
            yield row(measure, subject, ALL, None, n=clusters.count, text=fitted)
        else:
            yield _effect_row(measure, subject, fitted[-1], q, clusters)


def _leaving_effects(
    games: Sequence[GameRecord], switches: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The effects of switches on single decisions to leave. Clusters are games. Games that the
    player cannot leave are left out, and groups in which all or no decisions leave.
    """
    decided = [
        (game, decision.action in game.leaving)
        for game in games
        if game.leaving
        for decision in game.decisions
    ]
    if not decided:
        return
    players, leaving = [game for game, _ in decided], [leaves for _, leaves in decided]
    informative, left_out = _informative(players, leaving, "decisions were")
    groups = {game.group for game in informative}
    decided = [(game, leaves) for game, leaves in decided if game.group in groups]
    per_decision = [game for game, _ in decided]
    outcome = np.array([float(leaves) for _, leaves in decided])
    names: list[Hashable] = [game.name for game in per_decision]
    count = len(set(names))
    note = f"{len(decided):,} decisions; clusters are {count:,} games"
    note = f"{note}; {left_out}" if left_out else note
    clusters = _GameClusters(names, count, note)
    yield from _single_effects(per_decision, switches, outcome, clusters, "odds:leaving")


def _levels(games: Sequence[GameRecord], switches: Sequence[str]) -> Floats:
    """How many switches are on in each game."""
    counts = [sum(game.switches.get(name, False) for name in switches) for game in games]
    return np.array(counts, dtype=np.float64)


def _complexity(games: Sequence[GameRecord], switches: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rate of the event by how many switches are on, and their correlation."""
    levels, event = _levels(games, switches), _events(games)
    rates = []
    for level in sorted(set(levels.tolist())):
        chosen = event[levels == level]
        count, total = int(chosen.sum()), len(chosen)
        low, high = wilson(count, total)
        rates.append((level, count / total))
        yield row("complexity", f"{level:.0f}", ALL, count / total, low, high, n=total)
    r = pearson([float(level) for level, _ in rates], [rate for _, rate in rates])
    if r is not None:
        yield row("complexity_trend", "r over levels", ALL, r, n=len(rates))


def _trend(
    games: Sequence[GameRecord],
    switches: Sequence[str],
    event: Floats,
    clusters: _GameClusters,
) -> dict[str, Any]:
    """The effect of one more switch on the odds of the event."""
    subject = "log odds a switch"
    columns = [np.ones(len(games)), _levels(games, switches), *_group_columns(games)]
    fitted = fit(np.column_stack(columns), event, clusters.names)
    if isinstance(fitted, str):
        return row("complexity_trend", subject, ALL, None, n=clusters.count, text=fitted)
    slope = fitted[1]
    return row(
        "complexity_trend",
        subject,
        ALL,
        slope.value,
        slope.low,
        slope.high,
        p=slope.p,
        n=clusters.count,
        text=clusters.note,
    )
