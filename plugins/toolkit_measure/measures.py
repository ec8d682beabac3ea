"""The rows of `measures`: for all games, each group and each condition."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.samples.games import NOT_PLAYED
from toolkit.statistics.arrays import Floats
from toolkit.work import Work

from . import indices
from .effects import effects
from .intervals import bootstrap_means, bootstrap_ratios, pearson, wilson
from .paired import paired
from .played import GameRecord, Played, read_games
from .rows import row
from .scopes import ALL, Scope, group_scopes, scopes_of

SHOWN_ROUNDS = 30
"""Balances are followed for this many rounds."""


def measures_of(work: Work) -> list[dict[str, Any]]:
    """All measures of the played games."""
    played = read_games(work.inputs)
    numbers = {game.name: indices.numbers_of(game) for game in played.games}
    rows: list[dict[str, Any]] = []
    scopes = scopes_of(played.games)
    for number, (scope, games) in enumerate(scopes.items()):
        rows += _rates(scope, games, played, scopes)
        rows += _replies(work, scope, games)
        rows += _means(work, scope, games, numbers)
        work.report.progress(number + 1, len(scopes))
    for scope in (ALL, *group_scopes(played.games)):
        rows += _balances(scope, scopes[scope])
    rows += effects(played.games)
    rows += paired(work, played.games, numbers)
    rows += _index_correlation(played.games, numbers)
    rows += _states(played.games)
    rows += _close_draws(played.games)
    return rows


# --- outcomes and replies -------------------------------------------------------------------------


def _rates(
    scope: Scope,
    games: Sequence[GameRecord],
    played: Played,
    scopes: Mapping[Scope, Sequence[GameRecord]],
) -> Iterator[dict[str, Any]]:
    """The share of each outcome among the started games, the event first."""
    counts = Counter(game.outcome for game in games)
    known = {game.outcome for game in scopes[ALL]} | {game.event for game in games if game.event}
    events = {game.event for game in games}
    for outcome in sorted(known, key=lambda name: (name not in events, name)):
        low, high = wilson(counts[outcome], len(games))
        share = counts[outcome] / len(games)
        event = outcome in events
        yield row("outcome", outcome, scope, share, low, high, n=len(games), event=event)
    conditions = {game.condition for game in games}
    not_played = sum(count for name, count in played.not_played.items() if name in conditions)
    if not_played:
        yield row("not_played", NOT_PLAYED, scope, float(not_played), n=len(games) + not_played)


def _replies(work: Work, scope: Scope, games: Sequence[GameRecord]) -> Iterator[dict[str, Any]]:
    """Rates of replies that were cut off or could not be read, and of re-asked decisions, with
    intervals over games.
    """
    replies = np.array([game.replies for game in games], dtype=np.float64)
    decisions = np.array([game.asked_decisions for game in games], dtype=np.float64)
    numerators = np.array(
        [[game.truncated, game.unreadable, game.reasked] for game in games], dtype=np.float64
    )
    denominators = np.column_stack([replies, replies, decisions])
    low, high = bootstrap_ratios(numerators, denominators, work.rng("measure.replies", scope.name))
    totals = numerators.sum(0)
    for index, name in enumerate(("truncated", "unreadable", "asked_again")):
        total = denominators[:, index].sum()
        value = totals[index] / total if total else None
        yield row("replies", name, scope, value, low[index], high[index], n=int(total))


# --- numbers of games -----------------------------------------------------------------------------


def _means(
    work: Work,
    scope: Scope,
    games: Sequence[GameRecord],
    numbers: Mapping[str, Mapping[str, float]],
) -> Iterator[dict[str, Any]]:
    values = np.array([[numbers[game.name][name] for name in indices.NAMES] for game in games])
    low, high = bootstrap_means(values, work.rng("measure.means", scope.name))
    for index, name in enumerate(indices.NAMES):
        column = values[:, index]
        finite = column[np.isfinite(column)]
        if len(finite):
            mean = float(finite.mean())
            yield row(
                "mean",
                name,
                scope,
                mean,
                low[index],
                high[index],
                n=len(finite),
                text=indices.version_text(name),
            )


def _balances(scope: Scope, games: Sequence[GameRecord]) -> Iterator[dict[str, Any]]:
    """The mean balance after each round and its quartiles; a game that has ended keeps its last."""
    paths = [path for game in games if (path := _path(game)) is not None]
    if not paths:
        return
    balances = np.array(paths)
    for number in range(balances.shape[1]):
        column: Floats = balances[:, number]
        low, high = np.percentile(column, [25, 75])
        yield row(
            "balance",
            f"{number:03d}",
            scope,
            float(column.mean()),
            float(low),
            float(high),
            n=len(column),
            text="quartiles",
        )


def _path(game: GameRecord) -> list[float] | None:
    """The balance before the first decision and after each, to the last round that is shown."""
    if not game.decisions or game.decisions[0].before is None:
        return None
    path = [game.decisions[0].before]
    path += [decision.after or 0.0 for decision in game.rounds]
    path = path[: SHOWN_ROUNDS + 1]
    return path + [path[-1]] * (SHOWN_ROUNDS + 1 - len(path))


# --- over conditions, states and tokens -----------------------------------------------------------


def _index_correlation(
    games: Sequence[GameRecord], numbers: Mapping[str, Mapping[str, float]]
) -> Iterator[dict[str, Any]]:
    """The correlation of the composite index with the event's rate over conditions."""
    by_condition: dict[str, list[GameRecord]] = defaultdict(list)
    for game in games:
        if game.has_stakes:
            by_condition[game.condition].append(game)
    scores, rates = [], []
    for played in by_condition.values():
        scores.append(float(np.mean([numbers[game.name]["I"] for game in played])))
        rates.append(sum(game.outcome == game.event for game in played) / len(played))
    r = pearson(scores, rates)
    if r is not None:
        yield row("index_correlation", "I with the event", ALL, r, n=len(rates))


def _states(games: Sequence[GameRecord]) -> Iterator[dict[str, Any]]:
    """How many decisions are at a state that another game reached too, bit for bit."""
    games_at: dict[str, set[str]] = defaultdict(set)
    for game in games:
        for decision in game.decisions:
            games_at[decision.state].add(game.name)
    decisions = [decision.state for game in games for decision in game.decisions]
    if not decisions:
        return
    shared = sum(len(games_at[state]) > 1 for state in decisions)
    yield row("states", "shared", ALL, shared / len(decisions), n=len(decisions))
    yield row("states", "distinct", ALL, float(len(games_at)), n=len(decisions))


def _close_draws(games: Sequence[GameRecord]) -> Iterator[dict[str, Any]]:
    """Tokens that a different order of computation could have drawn differently."""
    close = sum(game.close_draws for game in games)
    tokens = sum(game.tokens for game in games)
    yield row("tokens", "close_draws", ALL, float(close), n=tokens)
