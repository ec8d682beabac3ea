"""Parse stored replies again with another parser, without the model.

A game is followed to the first reply whose new reading changes its course. Up to that reply it is
the game that was played. After it, only the direct consequence is known: the game ends, by its
rules and with the same random draws, or it would have continued (`open`).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import DataError
from toolkit.samples.games import (
    INVALID,
    NOT_PLAYED,
    ROUND_LIMIT,
    TRUNCATED,
    Environment,
    Parser,
    Reply,
    chance,
    is_storm,
    judge,
    with_reminder,
)

OPEN = "open"
"""The outcome of a game that would have continued with replies that do not exist."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judging:
    """The game and seed of a stage, and the parser that reads its replies again."""

    environment: Environment
    parser: Parser
    attempts: int
    """The largest number of attempts at one decision."""
    seed: int
    reminder: str = ""
    """The line that prompts have from the second attempt on."""
    leaders: int = 0
    """How many repetitions of a condition decide whether the others are played; 0: all are."""


@dataclass(frozen=True)
class Flip:
    """A reply that the new parser reads differently."""

    game: str
    condition: str
    round: int
    attempt: int
    before: str
    after: str
    reply: str
    leads_elsewhere: bool
    """Whether the game would have taken another course from here."""


@dataclass
class Rejudged:
    """A run as read by another parser."""

    replies: int = 0
    flips: list[Flip] = field(default_factory=list)
    before: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Outcomes by condition, as played."""
    after: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Outcomes by condition, as far as they are known."""

    @property
    def kinds(self) -> Counter[tuple[str, str]]:
        """How many replies changed from which reading to which, ignoring amounts."""
        return Counter(
            (flip.before.partition(" $")[0], flip.after.partition(" $")[0]) for flip in self.flips
        )

    @property
    def turns(self) -> list[Flip]:
        """The flip of each game from which it would have taken another course."""
        return [flip for flip in self.flips if flip.leads_elsewhere]

    @property
    def outcomes(self) -> list[str]:
        """Every outcome that occurs, the most frequent first, `open` last."""
        counts: Counter[str] = Counter()
        for tally in (*self.before.values(), *self.after.values()):
            counts.update(tally)
        names = [name for name, _ in counts.most_common() if name != OPEN]
        return [*names, *([OPEN] if OPEN in counts else [])]


@dataclass
class FirstReplies:
    """Of each condition, the first replies of its leaders by the new readings."""

    unreadable: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)

    def add(self, judging: Judging, games: Sequence[Row], rounds: Sequence[Row]) -> None:
        """Count the replies of the leaders among these games, each to its first decision."""
        leaders = {
            game["game"]: game["condition"]
            for game in games
            if game["repetition"] < judging.leaders and game["outcome"] != NOT_PLAYED
        }
        decided: set[str] = set()
        first = (row for row in rounds if row["round"] == 1 and row["game"] in leaders)
        for row in sorted(first, key=lambda row: (row["game"], row["attempt"])):
            if row["game"] in decided:
                continue
            condition = leaders[row["game"]]
            self.replies[condition] += 1
            if _read(judging, row).failure is None:
                decided.add(row["game"])
            else:
                self.unreadable[condition] += 1

    def are_storm(self, condition: str) -> bool:
        """Whether the other games of the condition are not played."""
        return is_storm(self.unreadable[condition], self.replies[condition])


def rejudge(
    judging: Judging,
    games: Sequence[Row],
    rounds: Sequence[Row],
    into: Rejudged,
    first_replies: FirstReplies | None = None,
) -> Rejudged:
    """Parse every reply of these games again; the results are added to `into`. `first_replies` has
    those of all steps of the stage; without them this step's are counted.
    """
    if first_replies is None:
        first_replies = FirstReplies()
        first_replies.add(judging, games, rounds)
    by_game: dict[str, list[Row]] = defaultdict(list)
    for row in rounds:
        by_game[row["game"]].append(row)
    for game in sorted(games, key=lambda row: str(row["game"])):
        replies = sorted(by_game[game["game"]], key=lambda row: (row["round"], row["attempt"]))
        outcome = _follow(judging, game, replies, into)
        if game["repetition"] >= judging.leaders > 0:
            is_stopped = first_replies.are_storm(game["condition"])
            if is_stopped or outcome == NOT_PLAYED:
                outcome = NOT_PLAYED if is_stopped else OPEN
        into.before[game["condition"]][game["outcome"]] += 1
        into.after[game["condition"]][outcome] += 1
    return into


def _follow(judging: Judging, game: Row, replies: Sequence[Row], into: Rejudged) -> str:
    """The outcome of one game by the new readings. All flips are recorded; those after the first
    that changes the course say something about the parser but not about the game.
    """
    outcome: str | None = None
    decided_round = 0
    for number, row in enumerate(replies):
        into.replies += 1
        new, old = _read(judging, row), _stored(row)
        if new == old:
            continue
        # Once an earlier attempt decides a round, the later ones would not have been made.
        is_moot = outcome is not None or row["round"] == decided_round
        ended = None if is_moot else _consequence(judging, game, replies, number, new)
        if new.failure is None:
            decided_round = row["round"]
        if _reading(new) != _reading(old):
            flip = Flip(
                game=game["game"],
                condition=game["condition"],
                round=row["round"],
                attempt=row["attempt"],
                before=_reading(old),
                after=_reading(new),
                reply=row["reply"],
                leads_elsewhere=ended is not None,
            )
            into.flips.append(flip)
        outcome = outcome or ended
    return outcome or str(game["outcome"])


def _read(judging: Judging, row: Row) -> Reply:
    prompt = judging.environment.prompt(json.loads(row["state"]))
    if row["attempt"] > 1 and judging.reminder:
        prompt = with_reminder(prompt, judging.reminder)
    try:
        return judge(judging.parser, row["reply"], prompt, cut_off=row["finish"] == "length")
    except Exception as error:
        raise DataError(
            f"game {row['game']}, round {row['round']}, attempt {row['attempt']}: the parser "
            f"fails on {row['reply'][:80]!r}: {type(error).__name__}: {error}"
        ) from error


def _stored(row: Row) -> Reply:
    if row["parse"] != "ok":
        return Reply(failure=row["parse"])
    return Reply(action=row["action"], amount=row["asked"])


def _consequence(
    judging: Judging, game: Row, replies: Sequence[Row], number: int, new: Reply
) -> str | None:
    """The outcome from this reply on, or None if the game continues as it did."""
    row = replies[number]
    last = number == len(replies) - 1
    if new.failure is not None:
        if row["parse"] != "ok":  # it could not be read before, either
            ends = last and row["attempt"] >= judging.attempts
            return _failed(new) if ends and _failed(new) != game["outcome"] else None
        return OPEN if row["attempt"] < judging.attempts else _failed(new)
    state = json.loads(row["state"])
    rng = chance(judging.seed, game["repetition"], row["round"])
    after = judging.environment.step(state, new, rng).state
    following = next((later for later in replies if later["round"] == row["round"] + 1), None)
    if following is not None and json.loads(following["state"]) == json.loads(json.dumps(after)):
        return None
    outcome = judging.environment.outcome(after)
    if outcome is None and row["round"] >= judging.environment.max_rounds:
        outcome = ROUND_LIMIT
    if following is None and outcome == game["outcome"]:
        return None
    return outcome or OPEN


def _failed(reply: Reply) -> str:
    return TRUNCATED if reply.failure == TRUNCATED else INVALID


def _reading(reply: Reply) -> str:
    """The reading of a reply in words; among failures, only truncation is distinguished."""
    if reply.failure is not None:
        return TRUNCATED if reply.failure == TRUNCATED else "unreadable"
    amount = "" if reply.amount is None else f" ${reply.amount:g}"
    return f"{reply.action}{amount}"


def rates(counts: Mapping[str, int]) -> dict[str, float]:
    """Shares of outcomes among the games that were started."""
    begun = sum(count for name, count in counts.items() if name != NOT_PLAYED)
    return {name: count / begun for name, count in counts.items() if begun and name != NOT_PLAYED}
