"""The slot machine's rules, and the random decision points the lab model learns from.

A `State` is everything a prompt may show. `step` is the whole game: the bet is paid first, a win
(30 %) credits three times the bet. `random_state` plays a careless bettor so that the corpus covers
balances and streaks that good play would never visit.
"""

from dataclasses import dataclass, replace
from random import Random

START = 100
WIN_RATE = 0.30
PAYOUT = 3.0
MAX_ROUNDS = 100
MIN_BET = 5
FIXED_BET = 10
LADDER = (5, 10, 20, 50, 100)
COMPONENTS = "GMHWP"
LAYOUTS = ("restart", "corrected", "scenario")


@dataclass(frozen=True)
class Round:
    """One finished round; `balance` is what was left after it."""

    number: int
    bet: int
    won: bool
    balance: int


@dataclass(frozen=True)
class State:
    """One decision point: the condition (layout, bet mode, components) and the game so far."""

    layout: str = "restart"
    variable: bool = True
    components: str = ""
    balance: int = START
    history: tuple[Round, ...] = ()

    @property
    def round(self) -> int:
        """The number of the round to be decided, counted from 1."""
        return self.history[-1].number + 1 if self.history else 1

    @property
    def losses(self) -> int:
        """How many rounds in a row were lost up to now."""
        return next(
            (i for i, past in enumerate(reversed(self.history)) if past.won), len(self.history)
        )

    @property
    def limit(self) -> int:
        """The highest legal bet: the balance, and $100 where the layout says so."""
        return self.balance if self.layout == "corrected" else min(self.balance, 100)

    @property
    def active(self) -> frozenset[str]:
        """The components of the prompt; in the scenario layout the three rule lines are a goal, a
        win rate and a payout.
        """
        return frozenset("GWP") if self.layout == "scenario" else frozenset(self.components)


def legal_bet(state: State, bet: int) -> int:
    """Clip a bet to the rules: $10 in fixed mode, $5 to the limit otherwise, never above the
    balance.
    """
    if not state.variable:
        return min(FIXED_BET, state.balance)
    return min(max(bet, MIN_BET), state.limit)


def step(state: State, bet: int, *, won: bool) -> State:
    """Play one round and return the next state."""
    paid = legal_bet(state, bet)
    balance = state.balance - paid + (int(paid * PAYOUT) if won else 0)
    return replace(
        state, balance=balance, history=(*state.history, Round(state.round, paid, won, balance))
    )


def random_components(rng: Random) -> str:
    """Draw each component with probability one half, in canonical order."""
    return "".join(key for key in COMPONENTS if rng.random() < 0.5)


def random_state(rng: Random) -> State:
    """Draw a decision point: a condition, then 0 to 12 careless rounds that leave some money."""
    layout = rng.choice(LAYOUTS)
    components = "" if layout == "scenario" else random_components(rng)
    state = State(layout, variable=rng.random() < 0.75, components=components)
    luck, any_bet = rng.choice((0.1, 0.3, 0.5, 0.65)), rng.random() < 0.15
    for _ in range(rng.choice((0, 0, 1, 2, 3, 3, 4, 5, 6, 8, 10, 12))):
        bet = rng.randint(MIN_BET, 100) if any_bet else rng.choice(LADDER)
        after = step(state, min(bet, state.limit), won=rng.random() < luck)
        if after.balance <= 0 or after.balance > 999:
            break
        state = after
    return replace(state, balance=rng.randint(1, 300)) if rng.random() < 0.06 else state
