"""The slot machine: how a game goes, and its conditions.

A bet is paid first; a win credits the bet times the payout. The layouts (`layouts.py`) differ in
wording, in the highest bet, and in the place of the decision in the reply: its first line (restart,
scenario) or its last (corrected).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, DataError, choices, nearest
from toolkit.samples.games import Condition, Environment, Prompt, Reply, Scenario, State, Turn

from .components import COMPONENTS, canonical, components_of
from .slot_machine_rules import (
    FIRST_RESULTS,
    MODES,
    FirstResult,
    Mode,
    SlotMachine,
    fixed_bet,
    highest_bet,
)

if TYPE_CHECKING:
    import numpy as np

SETTINGS = ("components", "mode", "first")


class SlotMachineGame(Environment):
    """The slot machine as an environment. Its state holds the condition, the balance and the rounds
    that the prompt may show.
    """

    outcomes = ("bankruptcy", "voluntary_stop")
    leaving = ("stop",)

    def __init__(self, rules: SlotMachine) -> None:
        from .layouts import example_reply, reply_tokens

        self._rules = rules
        self.max_rounds = rules.max_rounds
        self.example_reply, self.reply_tokens = example_reply(rules), reply_tokens(rules)

    def conditions(self) -> list[Condition]:
        """All conditions, ordered by mode, then first result, then components."""
        return list(_conditions(self._rules))

    def start(self, settings: Mapping[str, Any]) -> State:
        """A new game: `components` (none if not given), `mode` (`variable` if not given) and
        `first`, the forced first result (`none` if not given).
        """
        for key in sorted(set(settings) - set(SETTINGS)):
            raise BadInput(
                f"slot_machine has no setting '{key}'.{nearest(key, SETTINGS)} Settings: "
                f"{choices(SETTINGS)}."
            )
        state = {
            "mode": _checked_level("mode", settings.get("mode", "variable"), MODES),
            "components": self._components(str(settings.get("components", ""))),
            "first": _checked_level("first", settings.get("first", "none"), FIRST_RESULTS),
            "round": 1,
            "balance": self._rules.start,
            "losses": 0,
            "past": [],
            "outcome": None,
        }
        forced = state["first"] != "none" and self._rules.forced_result == "consistent"
        return (
            self._state_after(state, self._forced_bet(), state["first"] == "win")
            if forced
            else state
        )

    def _components(self, components: str) -> str:
        if components and self._rules.layout == "scenario":
            raise BadInput(
                f"components '{components}': layout scenario has its own three rule lines. Leave "
                "components empty."
            )
        return canonical(components)

    def _forced_bet(self) -> int:
        return min(self._rules.fixed_bet, self._rules.start)

    def prompt(self, state: State) -> Prompt:
        """The prompt of a state, with its named spans and options."""
        from .layouts import render

        return render(self._rules, state)

    def step(self, state: State, reply: Reply, rng: np.random.Generator) -> Turn:
        """Play one round; the turn holds the bet as clipped by the rules."""
        if state["outcome"] is not None:
            raise DataError(
                f"slot_machine: the game is over ({state['outcome']}). Begin another with start."
            )
        if reply.action == "stop":
            return Turn({**state, "outcome": "voluntary_stop"})
        bet = legal_bet(self._rules, state, _requested_bet(reply))
        won = bool(rng.random() < self._rules.win_rate)
        return Turn(self._state_after(state, bet, won), bet=float(bet), won=won)

    def _state_after(self, state: State, bet: int, won: bool) -> State:
        rules, number = self._rules, state["round"]
        balance = state["balance"] - bet + (int(bet * rules.payout) if won else 0)
        round_row = {"round": number, "bet": bet, "won": won, "balance": balance}
        return {
            **state,
            "round": number + 1,
            "balance": balance,
            "losses": 0 if won else state["losses"] + 1,
            "past": [*state["past"], round_row][-rules.shown_rounds :],
            "outcome": "bankruptcy" if balance <= 0 else None,
        }

    def scenarios(self) -> list[Scenario]:
        """The ten situations of a published study, and twins of those that contradict the rules."""
        from .scenarios import scenarios

        return scenarios()

    def contradictions(self, state: State) -> list[str]:
        """Statements in the prompt of a state that contradict the rules."""
        from .scenarios import contradictions

        return list(contradictions(self._rules, state))

    def outcome(self, state: State) -> str | None:
        """How the game ended; None while it is running."""
        outcome: str | None = state["outcome"]
        return outcome

    def numbers(self, state: State) -> Mapping[str, float]:
        """The numbers that a prompt states."""
        return {
            "balance": float(state["balance"]),
            "round": float(state["round"]),
            "losses_in_a_row": float(state["losses"]),
        }


def legal_bet(rules: SlotMachine, state: State, bet: int) -> int:
    """Clip a bet to the rules: to the fixed bet in fixed mode, else to the range from lowest to
    highest bet; never above the balance.
    """
    balance: int = state["balance"]
    if state["mode"] == "fixed":
        return min(fixed_bet(rules), balance)
    return min(max(bet, rules.min_bet), highest_bet(rules, balance), balance)


def _conditions(rules: SlotMachine) -> Iterator[Condition]:
    for mode in rules.modes:
        for first_result in rules.first_results:
            for mask in rules.masks():
                yield _condition(rules, mode, first_result, mask)


def _condition(rules: SlotMachine, mode: Mode, first_result: FirstResult, mask: int) -> Condition:
    components = components_of(mask)
    forced_part = "" if first_result == "none" else f"-{first_result}"
    cap_part = "" if rules.cap is None else f"-cap{rules.cap}"
    groups: dict[str, str] = {"layout": f"{rules.layout}{cap_part}", "mode": mode}
    if len(rules.first_results) > 1:
        groups["first"] = first_result
    switches = {key: key in components for key in COMPONENTS}
    return Condition(
        id=f"{rules.layout}{cap_part}-{mode}{forced_part}-c{mask:02d}",
        settings={"components": components, "mode": mode, "first": first_result},
        switches={} if rules.layout == "scenario" else switches,
        groups=groups,
        label=f"{mode} {components or 'BASE'}{forced_part}",
    )


def _checked_level(name: str, value: Any, levels: Sequence[str]) -> str:
    if value not in levels:
        raise BadInput(
            f"slot_machine has no {name} '{value}'.{nearest(str(value), levels)} Allowed: "
            f"{choices(levels)}."
        )
    return str(value)


def _requested_bet(reply: Reply) -> int:
    if reply.action != "bet" or reply.amount is None:
        problem = f"'{reply.action}'" if reply.action != "bet" else "'bet' without an amount"
        raise DataError(
            f"slot_machine: a parser gave the action {problem}. Give 'bet' with an amount, or "
            "'stop'."
        )
    return int(reply.amount)
