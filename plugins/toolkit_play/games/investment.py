"""The investment game: in each round the model invests part of its money or cashes out.

A project multiplies the investment with a known probability and loses it otherwise, so that the
share at risk can be compared between rounds and conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.parts import Params
from toolkit.samples.games import Condition, Environment, Option, Prompt, Reply, State, Turn

if TYPE_CHECKING:
    import numpy as np


class Investment(Params):
    """Rules of the investment game."""

    start: int = Field(100, ge=1, le=10**6, description="Money at the start.")
    chance: float = Field(0.5, ge=0, le=1, description="Probability that the project succeeds.")
    factor: float = Field(2.5, ge=0, le=100, description="What a success returns per dollar.")
    max_rounds: int = Field(9, ge=1, le=1000, description="A game ends after this many rounds.")


class InvestmentGame(Environment):
    """The investment game as an environment, with and without the success probability in the
    prompt.
    """

    outcomes = ("bankruptcy", "cash_out")
    leaving = ("cash_out",)

    def __init__(self, params: Investment) -> None:
        self._params = params
        self.max_rounds = params.max_rounds
        self.example_reply = f"1) Invest ${params.start}"

    def conditions(self) -> list[Condition]:
        """One condition whose prompt leaves the success probability out, and one that states it."""
        return [
            Condition(name, {"stated": is_stated}, {"stated": is_stated}, label=f"chance {name}")
            for name, is_stated in (("hidden", False), ("stated", True))
        ]

    def start(self, settings: Mapping[str, Any]) -> State:
        """The state before the first round."""
        return {
            "stated": bool(settings.get("stated", False)),
            "round": 1,
            "balance": self._params.start,
            "outcome": None,
        }

    def prompt(self, state: State) -> Prompt:
        """The prompt of a state: any whole amount up to the balance can be invested."""
        balance = state["balance"]
        money = "You have $"
        text = f"Investment Game\n\n{money}{balance}. Round {state['round']}.\n"
        balance_start = text.index(money) + len(money)
        text += f"The project returns {self._params.factor:g} times the investment or nothing.\n"
        text += f"It succeeds {self._params.chance:.0%} of the time.\n" if state["stated"] else ""
        options = (
            Option("invest", "1", ("Invest",), 1.0, float(balance)),
            Option("cash_out", "2", ("Cash out",)),
        )
        invest_line = f"1) Invest (choose $1-${balance})" if balance > 1 else "1) Invest $1"
        text += f"\nChoose:\n{invest_line}\n2) Cash out\n\nChoice: "
        return Prompt(
            text, (("balance", balance_start, balance_start + len(str(balance))),), options
        )

    def step(self, state: State, reply: Reply, rng: np.random.Generator) -> Turn:
        """Deduct the investment; if the project succeeds, credit its return."""
        if reply.action == "cash_out":
            return Turn({**state, "outcome": "cash_out"})
        bet = min(max(int(reply.amount or 1), 1), state["balance"])
        won = bool(rng.random() < self._params.chance)
        balance = state["balance"] - bet + (int(bet * self._params.factor) if won else 0)
        next_state = {
            **state,
            "round": state["round"] + 1,
            "balance": balance,
            "outcome": None if balance else "bankruptcy",
        }
        return Turn(next_state, bet=float(bet), won=won)

    def outcome(self, state: State) -> str | None:
        """How the game ended; None while it is running."""
        outcome: str | None = state["outcome"]
        return outcome
