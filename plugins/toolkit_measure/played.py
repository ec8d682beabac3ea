"""Played games, each with its decisions in order, read from `games` and `rounds`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import DataError
from toolkit.samples.games import NOT_PLAYED
from toolkit.work import Inputs

from .goals import stated_goal

_GAMES = ["game", "condition", "repetition", "outcome", "final_balance", "arm", "pair", "meta"]
_ROUNDS = [
    "game",
    "round",
    "attempt",
    "state_hash",
    "reply",
    "reply_ids",
    "close_draws",
    "parse",
    "action",
    "asked",
    "bet",
    "balance_before",
    "balance_after",
    "won",
]


@dataclass(frozen=True)
class Decision:
    """One decision that could be read. `bet` is None where nothing was staked."""

    round: int
    action: str
    asked: float | None
    bet: float | None
    before: float | None
    after: float | None
    won: bool | None
    goal: float | None
    state: str

    @property
    def ratio(self) -> float:
        """The share of the balance that was staked, at most 1."""
        if self.bet is None or not self.before:
            return 0.0
        return min(self.bet / self.before, 1.0)


@dataclass(frozen=True)
class GameRecord:
    """A game that was started."""

    name: str
    condition: str
    label: str
    repetition: int
    outcome: str
    event: str
    arm: str | None
    """The intervention that it was played under."""
    leaving: Sequence[str]
    """The actions that end the game by the player's own choice."""
    has_stakes: bool
    """Whether its prompts offer amounts to stake, or it has a bet."""
    pair: str | None
    """The name of the same game without the intervention."""
    groups: Mapping[str, str]
    switches: Mapping[str, bool]
    decisions: tuple[Decision, ...]
    final_balance: float | None
    replies: int
    """All replies, re-asked ones included."""
    truncated: int
    """Replies that were cut off."""
    unreadable: int
    """Replies that could not be read for any other reason."""
    reasked: int
    """Decisions that were asked for more than once."""
    asked_decisions: int
    """Decisions that were asked for, read or not."""
    tokens: int
    close_draws: int

    @property
    def bets(self) -> list[Decision]:
        """The decisions that staked something."""
        return [decision for decision in self.decisions if decision.bet is not None]

    @property
    def rounds(self) -> list[Decision]:
        """The decisions that did not leave the game."""
        return [decision for decision in self.decisions if decision.action not in self.leaving]

    @property
    def group(self) -> str:
        """The levels of all its groups, as the tables name them."""
        return group_name(self.groups)


@dataclass(frozen=True)
class Played:
    """All games of the stages that a measure needs."""

    games: Sequence[GameRecord]
    not_played: Mapping[str, int]
    """Games per condition that were never started, because its replies could not be read."""


def group_name(groups: Mapping[str, str]) -> str:
    """`layout=restart, mode=fixed`."""
    return ", ".join(f"{name}={level}" for name, level in sorted(groups.items()))


def read_games(inputs: Inputs) -> Played:
    """The games, in order of their names."""
    rows = inputs.read("games").select(_GAMES).to_pylist()
    if not rows:
        raise DataError("measure.games: no game was played. Run the play stage that it needs.")
    by_game: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in inputs.read("rounds").select(_ROUNDS).to_pylist():
        by_game[row["game"]].append(row)
    names = [row["game"] for row in rows]
    if len(set(names)) != len(names):
        raise DataError(
            "measure.games: two play stages have games of the same name. Measure each stage by "
            "itself, or give their environments other conditions."
        )
    started = [row for row in rows if row["outcome"] != NOT_PLAYED]
    games = [_game(row, by_game[row["game"]]) for row in sorted(started, key=lambda r: r["game"])]
    not_played: dict[str, int] = defaultdict(int)
    for row in rows:
        not_played[row["condition"]] += row["outcome"] == NOT_PLAYED
    return Played(games, {name: count for name, count in not_played.items() if count})


def _game(row: Mapping[str, Any], replies: Sequence[Mapping[str, Any]]) -> GameRecord:
    meta = json.loads(row["meta"])
    ordered = sorted(replies, key=lambda reply: (reply["round"], reply["attempt"]))
    failed = [reply["parse"] for reply in ordered if reply["parse"] != "ok"]
    asked_rounds = {reply["round"] for reply in ordered}
    reasked_rounds = {reply["round"] for reply in ordered if reply["attempt"] > 1}
    return GameRecord(
        name=row["game"],
        condition=row["condition"],
        label=meta.get("label", row["condition"]),
        repetition=row["repetition"],
        outcome=row["outcome"],
        event=meta.get("event", ""),
        arm=row["arm"],
        leaving=meta.get("leaving", ()),
        has_stakes=meta.get("stakes", False) or any(row["bet"] is not None for row in ordered),
        pair=row["pair"],
        groups=meta.get("groups", {}),
        switches=meta.get("switches", {}),
        decisions=tuple(_decision(reply) for reply in ordered if reply["parse"] == "ok"),
        final_balance=row["final_balance"],
        replies=len(ordered),
        truncated=failed.count("truncated"),
        unreadable=len(failed) - failed.count("truncated"),
        reasked=len(reasked_rounds),
        asked_decisions=len(asked_rounds),
        tokens=sum(len(reply["reply_ids"]) for reply in ordered),
        close_draws=sum(reply["close_draws"] for reply in ordered),
    )


def _decision(reply: Mapping[str, Any]) -> Decision:
    return Decision(
        round=reply["round"],
        action=reply["action"],
        asked=reply["asked"],
        bet=reply["bet"],
        before=reply["balance_before"],
        after=reply["balance_after"],
        won=reply["won"],
        goal=stated_goal(reply["reply"]),
        state=reply["state_hash"],
    )
