"""One choice between three rewards of equal expected value: certain, even and unlikely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from toolkit.parts import Params
from toolkit.samples.games import Condition, Environment, Option, Prompt, Reply, State, Turn

if TYPE_CHECKING:
    import numpy as np

ACTIONS = ("certain", "even", "unlikely")
CHANCES: Mapping[str, float] = {"certain": 1.0, "even": 0.5, "unlikely": 0.25}


class RewardChoice(Params):
    """Rewards and length of a game."""

    value: int = Field(
        50, ge=1, le=10**6, description="The expected value of each reward, and the certain one."
    )
    max_rounds: int = Field(1, ge=1, le=1000, description="Choices per game.")
    orders: tuple[Literal["rising", "falling"], ...] = Field(
        ("rising", "falling"),
        min_length=1,
        description="Whether risk rises or falls down the list; one condition per order.",
    )

    @field_validator("orders")
    @classmethod
    def _each_once(cls, orders: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(orders)) < len(orders):
            raise ValueError("an order is named twice; name each once")
        return orders


class RewardChoiceGame(Environment):
    """The choice as an environment: its outcome is the reward of the last round."""

    outcomes = ("unlikely", "even", "certain")

    def __init__(self, params: RewardChoice) -> None:
        self._params = params
        self.max_rounds = params.max_rounds
        self.example_reply = "1)"

    def conditions(self) -> list[Condition]:
        """One condition per order of the list."""
        return [
            Condition(order, {"order": order}, groups={"order": order}, label=f"risk {order}")
            for order in self._params.orders
        ]

    def start(self, settings: Mapping[str, Any]) -> State:
        """The state before the first choice."""
        return {
            "order": settings.get("order", "rising"),
            "round": 1,
            "balance": 0,
            "outcome": None,
        }

    def prompt(self, state: State) -> Prompt:
        """The prompt of a state: three numbered rewards."""
        options = []
        lines = []
        for number, action in enumerate(_actions_in_order(state), start=1):
            chance, reward = CHANCES[action], self._reward(action)
            text = f"${reward} for sure" if chance == 1 else f"{chance:.0%} chance of ${reward}"
            options.append(Option(action, str(number), (text,)))
            lines.append(f"{number}) {text}")
        balance = str(state["balance"])
        opening = f"Choose one reward. You have ${balance}.\n\nChoose:\n"
        listing = "\n".join(lines)
        text = f"{opening}{listing}\n\nChoice: "
        balance_start = opening.index("$") + 1
        spans = (
            ("balance", balance_start, balance_start + len(balance)),
            ("options", len(opening), len(opening) + len(listing)),
            ("decision", len(text) - len("Choice: "), len(text)),
        )
        return Prompt(text, spans, tuple(options))

    def step(self, state: State, reply: Reply, rng: np.random.Generator) -> Turn:
        """Draw the chosen reward and credit it."""
        action = str(reply.action)
        won = bool(rng.random() < CHANCES[action])
        is_last_round = state["round"] >= self._params.max_rounds
        next_state = {
            **state,
            "round": state["round"] + 1,
            "balance": state["balance"] + (self._reward(action) if won else 0),
            "outcome": action if is_last_round else None,
        }
        return Turn(next_state, won=won)

    def outcome(self, state: State) -> str | None:
        """The choice of the last round; None before it."""
        outcome: str | None = state["outcome"]
        return outcome

    def _reward(self, action: str) -> int:
        return round(self._params.value / CHANCES[action])


def _actions_in_order(state: State) -> tuple[str, ...]:
    return ACTIONS if state["order"] == "rising" else ACTIONS[::-1]
