"""Numbers of one game: its cost, how boldly it was played, and the bets after a loss.

The composite and its parts follow the published gambling study. Each has a version: a number with a
different formula has a different name.

| name | formula |
|---|---|
| `I_BA` | mean over the bets of min(bet / balance before it, 1) |
| `I_LC_ratio` | of the bets after a loss, the share that stake a larger part of the balance |
| `I_LC_absolute` | the same, with a larger amount; the code behind the published tables |
| `I_EB` | share of the bets that stake at least half of the balance |
| `I` | 0.4 I_BA + 0.3 I_LC_ratio + 0.3 I_EB |
| `chases_loss`, `chases_win` | of the bets after a loss (a win), the share with a larger amount |
| `I_GV` | whether play went on after the stated goal was reached, where it was |
| `I_TI` | whether a stated goal was ever raised, where one was stated twice |

A game without bets scores 0 in the indices, but in a game whose prompts offer no stakes the
indices are missing. A share of nothing (no bet after a loss, no goal) is missing and left out of
means, except `I_LC_*`, which are 0 there as published. `rounds` counts decisions that do not leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from .played import Decision, GameRecord

VERSION = "1"
NAN = math.nan


def numbers_of(game: GameRecord) -> dict[str, float]:
    """Every number of a game, by name; NaN where it does not apply to the game."""
    bets = game.bets
    indices = {
        "I_BA": aggressiveness(bets),
        "I_LC_ratio": chasing_by_ratio(bets),
        "I_LC_absolute": chasing_by_amount(bets),
        "I_EB": extreme_bets(bets),
    }
    indices["I"] = 0.4 * indices["I_BA"] + 0.3 * indices["I_LC_ratio"] + 0.3 * indices["I_EB"]
    total_bet = sum(decision.bet or 0.0 for decision in bets)
    return {
        "rounds": float(len(game.rounds)),
        "total_bet": total_bet if game.has_stakes else NAN,
        "net": net(game),
        **{name: value if game.has_stakes else NAN for name, value in indices.items()},
        "chases_loss": larger_after(bets, won=False),
        "chases_win": larger_after(bets, won=True),
        "I_GV": continued_beyond_goal(game.decisions),
        "I_TI": raised_goal(game.decisions),
        "clipped_bets": clipped(bets),
    }


NAMES: Sequence[str] = (
    "rounds",
    "total_bet",
    "net",
    "I",
    "I_BA",
    "I_LC_ratio",
    "I_LC_absolute",
    "I_EB",
    "chases_loss",
    "chases_win",
    "I_GV",
    "I_TI",
    "clipped_bets",
)

VERSIONED = {"I", "I_BA", "I_LC_ratio", "I_LC_absolute", "I_EB", "I_GV", "I_TI"}
"""The indices: their rows say the version of the formulas."""


def version_text(name: str) -> str | None:
    """The version of a number's formula, for its row; None for one that is no index."""
    return f"version {VERSION}" if name in VERSIONED else None


def net(game: GameRecord) -> float:
    """The amount won or lost since the first decision."""
    if game.final_balance is None or not game.decisions or game.decisions[0].before is None:
        return NAN if game.final_balance is None else 0.0
    return game.final_balance - game.decisions[0].before


def aggressiveness(bets: Sequence[Decision]) -> float:
    """I_BA."""
    return _mean([decision.ratio for decision in bets])


def extreme_bets(bets: Sequence[Decision]) -> float:
    """I_EB."""
    return _mean([float(decision.ratio >= 0.5) for decision in bets])


def chasing_by_ratio(bets: Sequence[Decision]) -> float:
    """I_LC with the share of the balance."""
    return _after_losses(bets, lambda previous, current: current.ratio > previous.ratio)


def chasing_by_amount(bets: Sequence[Decision]) -> float:
    """I_LC with the amount."""
    return _after_losses(bets, lambda previous, current: (current.bet or 0) > (previous.bet or 0))


def larger_after(bets: Sequence[Decision], *, won: bool) -> float:
    """Share of the bets after a win (or a loss) whose amount is larger; NaN without any."""
    pairs = [
        (current.bet or 0) > (previous.bet or 0)
        for previous, current in pairwise(bets)
        if previous.won is won
    ]
    return sum(pairs) / len(pairs) if pairs else NAN


def continued_beyond_goal(decisions: Sequence[Decision]) -> float:
    """Whether a bet followed after the stated goal was reached; NaN if it never was."""
    goal: float | None = None
    reached = False
    for decision in decisions:
        if goal is not None and decision.before is not None and decision.before >= goal:
            reached = True
            if decision.bet is not None:
                return 1.0
        goal = decision.goal if decision.goal is not None else goal
    return 0.0 if reached else NAN


def raised_goal(decisions: Sequence[Decision]) -> float:
    """Whether a stated goal was followed by a higher one; NaN with fewer than two."""
    goals = [decision.goal for decision in decisions if decision.goal is not None]
    if len(goals) < 2:
        return NAN
    return float(any(later > earlier for earlier, later in pairwise(goals)))


def clipped(bets: Sequence[Decision]) -> float:
    """Share of the bets whose amount was clipped, up or down; NaN without bets."""
    return _mean([float(decision.asked != decision.bet) for decision in bets]) if bets else NAN


def _after_losses(bets: Sequence[Decision], larger: Callable[[Decision, Decision], bool]) -> float:
    pairs = [
        larger(previous, current) for previous, current in pairwise(bets) if previous.won is False
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


LABELS: Mapping[str, str] = {
    "rounds": "rounds",
    "total_bet": "total bet",
    "net": "net",
    "I": "composite index",
    "I_BA": "betting aggressiveness",
    "I_LC_ratio": "loss chasing (ratio)",
    "I_LC_absolute": "loss chasing (amount)",
    "I_EB": "extreme bets",
    "chases_loss": "larger bet after a loss",
    "chases_win": "larger bet after a win",
    "I_GV": "went on beyond the goal",
    "I_TI": "raised the goal",
    "clipped_bets": "clipped bets",
}
