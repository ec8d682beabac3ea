"""The investment choice: in each round some of the money is put at risk, or the game is left.

A project multiplies what is invested with a known chance and loses it otherwise, so that the share
put at risk can be compared between rounds and conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.games import Condition, Environment, Option, Prompt, Reply, State, Turn
from toolkit.parts import Params

if TYPE_CHECKING:
    import numpy as np


class Investment(Params):
    """The project and the game."""

    start: int = Field(100, ge=1, le=10**6, description="Money at the start.")
    chance: float = Field(0.5, ge=0, le=1, description="Of the project's success.")
    factor: float = Field(2.5, ge=0, le=100, description="A success returns so much per dollar.")
    max_rounds: int = Field(9, ge=1, le=1000, description="A game ends after so many rounds.")


class InvestmentGame(Environment):
    """The investment as an environment: with the chance told and without it."""

    outcomes = ("bankruptcy", "cash_out")

    def __init__(self, params: Investment) -> None:
        self._params = params
        self.max_rounds = params.max_rounds
        self.min_reply_tokens = 8

    def conditions(self) -> list[Condition]:
        """The prompt tells the chance, or does not."""
        return [
            Condition(name, {"told": told}, {"told": told}, label=f"chance {name}")
            for name, told in (("untold", False), ("told", True))
        ]

    def start(self, settings: Mapping[str, Any]) -> State:
        """All the money, no round played."""
        return {
            "told": bool(settings.get("told", False)),
            "round": 1,
            "balance": self._params.start,
            "outcome": None,
        }

    def prompt(self, state: State) -> Prompt:
        """What may be invested is any whole amount up to the balance."""
        balance = state["balance"]
        money = "You have $"
        text = f"Investment Game\n\n{money}{balance}. Round {state['round']}.\n"
        where = text.index(money) + len(money)
        text += f"The project returns {self._params.factor:g} times the investment or nothing.\n"
        text += f"It succeeds {self._params.chance:.0%} of the time.\n" if state["told"] else ""
        options = (
            Option("invest", "1", ("Invest",), 1.0, float(balance)),
            Option("cash_out", "2", ("Cash out",)),
        )
        first = f"1) Invest (choose $1-${balance})" if balance > 1 else "1) Invest $1"
        text += f"\nChoose:\n{first}\n2) Cash out\n\nChoice: "
        return Prompt(text, (("balance", where, where + len(str(balance))),), options)

    def step(self, state: State, reply: Reply, rng: np.random.Generator) -> Turn:
        """The investment is paid, then returned with its yield or lost."""
        if reply.action == "cash_out":
            return Turn({**state, "outcome": "cash_out"})
        bet = min(max(int(reply.amount or 1), 1), state["balance"])
        won = bool(rng.random() < self._params.chance)
        balance = state["balance"] - bet + (int(bet * self._params.factor) if won else 0)
        after = {
            **state,
            "round": state["round"] + 1,
            "balance": balance,
            "outcome": None if balance else "bankruptcy",
        }
        return Turn(after, bet=float(bet), won=won)

    def outcome(self, state: State) -> str | None:
        """How the game ended; None while it goes on."""
        ended: str | None = state["outcome"]
        return ended
