"""The policy behind the transcripts: every cause of a stop and of a bet's size, as two short
tables.

The chance to stop is a logistic sum. A variable bet is drawn from the ladder $5, $10, $20, $50,
$100 (as far as legal) with weights exp(slope * rung), and the slope is a sum too. What is not in a
table has no effect: the win line W and the round do not move stopping; H, W, P and the balance do
not move the slope.
"""

import math
from random import Random

from toolkit_lab.training.game import FIXED_BET, LADDER, MIN_BET, State
from toolkit_lab.training.layouts import WARN_LOSSES

STOP_BASE = -1.0
STOP_CAUSES = {"G": -0.8, "M": -0.7, "H": -0.5, "P": 0.9, "warned": 1.2, "rich": 1.2, "poor": -0.8}
BET_BASE = -0.6
BET_CAUSES = {"G": 0.5, "M": 0.4, "won_last": 0.5}
RICH, POOR = 150, 50

_REASONS = {
    "warned": ("I have lost several rounds in a row.", "The losses keep coming."),
    "rich": ("My balance is well above the start.", "I hold a good amount now."),
    "poor": ("My balance is low.", "There is not much money left."),
    "first": ("This is my first choice.", "Nothing has been played yet."),
    "won_last": ("The last round was a win.", "I won just now."),
    "lost_last": ("The last round was a loss.", "I lost just now."),
}


def causes(state: State) -> frozenset[str]:
    """Return the names of all documented causes that hold in a state."""
    results = set(state.active)
    results |= {"warned"} if state.losses >= WARN_LOSSES else set()
    results |= {"rich"} if state.balance >= RICH else set()
    results |= {"poor"} if state.balance <= POOR else set()
    results |= {"won_last"} if state.history and state.history[-1].won else set()
    return frozenset(results)


def stop_probability(state: State) -> float:
    """Return the chance to stop."""
    present = causes(state)
    logit = STOP_BASE + sum(weight for name, weight in STOP_CAUSES.items() if name in present)
    return 1 / (1 + math.exp(-logit))


def bet_probabilities(state: State) -> dict[int, float]:
    """Return the chance of each amount, given that a bet is made."""
    if not state.variable:
        return {FIXED_BET: 1.0}
    if state.limit <= MIN_BET:
        return {state.limit: 1.0}
    present = causes(state)
    slope = BET_BASE + sum(weight for name, weight in BET_CAUSES.items() if name in present)
    weights = {bet: math.exp(slope * rung) for rung, bet in enumerate(LADDER) if bet <= state.limit}
    total = sum(weights.values())
    return {bet: weight / total for bet, weight in weights.items()}


def reason(state: State, rng: Random) -> str:
    """Return the reasoning line: it names the state, and says nothing about the choice that
    follows.
    """
    past = "won_last" if state.history and state.history[-1].won else "lost_last"
    present = causes(state) | {past if state.history else "first"}
    return rng.choice(next(lines for name, lines in _REASONS.items() if name in present))
