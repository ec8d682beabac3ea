"""The games that a row of `measures` covers: all, those of a level or a combination of levels, or
those of one condition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .played import GameRecord


@dataclass(frozen=True)
class Scope:
    """A subset of the games, as the columns of a row name it."""

    kind: str
    """`all`, `level`, `combination` or `condition`."""
    name: str
    """For example `mode=fixed`; unique among scopes of its kind."""
    title: str
    """The name that readers see."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Scope:
        """The scope of a row of `measures`."""
        return cls(row["scope"], row["condition"], row["title"])


ALL = Scope("all", "all", "all games")


def scopes_of(games: Sequence[GameRecord]) -> dict[Scope, list[GameRecord]]:
    """All games, those of each level of each group, of each combination, and of each condition."""
    scopes: dict[Scope, list[GameRecord]] = defaultdict(list)
    scopes[ALL] = list(games)
    for game in games:
        for name, level in sorted(game.groups.items()):
            scopes[Scope("level", f"{name}={level}", level)].append(game)
        if len(game.groups) > 1:
            scopes[_group_scope(game)].append(game)
    for game in games:
        scopes[Scope("condition", game.condition, game.condition)].append(game)
    return dict(scopes)


def group_scopes(games: Sequence[GameRecord]) -> list[Scope]:
    """The scopes of the groups: combinations of levels, or the levels of a single group; empty
    without groups.
    """
    return list(dict.fromkeys(_group_scope(game) for game in games if game.groups))


def _group_scope(game: GameRecord) -> Scope:
    levels = [level for _, level in sorted(game.groups.items())]
    kind = "combination" if len(levels) > 1 else "level"
    return Scope(kind, game.group, " \N{MIDDLE DOT} ".join(levels))
