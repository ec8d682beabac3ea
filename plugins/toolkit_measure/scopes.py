"""Which games a row of `measures` is about: all, those of a level or a combination of groups, or of
one condition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .played import GameRecord


@dataclass(frozen=True)
class Scope:
    """Some of the games, as the columns of a row name them."""

    kind: str
    """`all`, `level`, `combination` or `condition`."""
    name: str
    """Such as `mode=fixed`; unique among scopes of its kind."""
    title: str
    """The name for people."""

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
    """What the games are grouped by: the combinations of levels, or the levels of the one group;
    empty without groups.
    """
    return list(dict.fromkeys(_group_scope(game) for game in games if game.groups))


def _group_scope(game: GameRecord) -> Scope:
    levels = [level for _, level in sorted(game.groups.items())]
    kind = "combination" if len(levels) > 1 else "level"
    return Scope(kind, game.group, " \N{MIDDLE DOT} ".join(levels))
