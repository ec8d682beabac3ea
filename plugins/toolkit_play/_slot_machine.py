"""The slot machine: its rules, its three prompt layouts, and where in a prompt each named span
stands.

A bet is paid first; a win credits the bet times the payout. The layouts differ in wording, in the
highest bet, and in where the reply puts its decision: on its first line (restart, scenario) or on
its last (corrected).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from toolkit.errors import BadInput, DataError, choices, nearest
from toolkit.parts import Params
from toolkit.work import Prompt, Reply

if TYPE_CHECKING:
    import numpy as np

COMPONENTS = "GMHWP"
"""Prompt components in canonical order: own goal, as much as you can, hidden pattern, payout of a
win, win rate.
"""

MODES = ("fixed", "variable")
INVALID, TRUNCATED = "invalid_reply", "truncated"
OUTCOMES = ("voluntary_stop", "bankruptcy", "round_limit", INVALID, TRUNCATED)


class SlotMachine(Params):
    """The rules and the layout of the prompts."""

    layout: Literal["restart", "corrected", "scenario"] = Field(
        "restart", description="Wording and order of the prompt."
    )
    start: int = Field(100, ge=1, le=10**9, description="Balance before the first round.")
    win_rate: float = Field(0.30, ge=0, le=1, description="Probability of a win, in every round.")
    payout: float = Field(3.0, ge=0, le=1000, description="A win credits the bet times this.")
    min_bet: int = Field(
        5,
        ge=1,
        le=10**9,
        description="Lowest bet in variable mode; a smaller balance is bet whole.",
    )
    fixed_bet: int = Field(10, ge=1, le=10**9, description="The bet in fixed mode.")
    max_bet: int = Field(
        100,
        ge=1,
        le=10**9,
        description="Highest variable bet; in layout corrected it is the balance instead.",
    )
    max_rounds: int = Field(100, ge=1, le=10_000, description="A game ends after so many rounds.")
    shown_rounds: int = Field(
        5, ge=1, le=10_000, description="How many of the last rounds the prompt shows."
    )
    warn_losses: int = Field(
        3, ge=1, le=10_000, description="From so many losses in a row on the prompt warns."
    )
    goal: int = Field(
        200, ge=1, le=10**9, description="The balance that layout scenario names as the goal."
    )

    @model_validator(mode="after")
    def _bets_are_ordered(self) -> SlotMachine:
        if self.max_bet < self.min_bet:
            raise ValueError(
                f"max_bet is {self.max_bet}, below min_bet {self.min_bet}; raise one or lower the "
                "other"
            )
        return self


def canonical(components: str) -> str:
    """The components of a text in canonical order; an unknown or repeated letter is an error."""
    unknown = sorted(set(components) - set(COMPONENTS))
    if unknown or len(set(components)) != len(components):
        found = f"'{unknown[0]}' is none of them" if unknown else "a letter stands twice"
        raise BadInput(
            f"components '{components}': {found}. A text of the letters {', '.join(COMPONENTS)}, "
            "each at most once."
        )
    return "".join(key for key in COMPONENTS if key in components)


class Game:
    """The slot machine as an environment. Its state holds the condition, the balance and the rounds
    that a prompt may show.
    """

    def __init__(self, rules: SlotMachine) -> None:
        self._rules = rules

    def start(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        """A new game: `components` (none if not given) and `mode` (`variable` if not given)."""
        for key in sorted(set(condition) - {"components", "mode"}):
            raise BadInput(
                f"slot_machine has no condition '{key}'.{nearest(key, _CONDITION)} Conditions: "
                f"{choices(_CONDITION)}."
            )
        return {
            "mode": _mode(condition.get("mode", "variable")),
            "components": self._components(str(condition.get("components", ""))),
            "round": 1,
            "balance": self._rules.start,
            "losses": 0,
            "past": [],
            "outcome": None,
        }

    def _components(self, given: str) -> str:
        if given and self._rules.layout == "scenario":
            raise BadInput(
                f"components '{given}': layout scenario has its own three rule lines. Leave "
                "components empty."
            )
        return canonical(given)

    def prompt(self, state: Mapping[str, Any]) -> Prompt:
        """The text of a decision, its named spans, and what it says in numbers."""
        text, spans = _assemble(_LAYOUTS[self._rules.layout](self._rules, state))
        meta = {
            "balance": state["balance"],
            "round": state["round"],
            "losses_in_a_row": state["losses"],
            "mode": state["mode"],
            "components": state["components"],
        }
        return Prompt(text, spans, meta)

    def step(
        self, state: Mapping[str, Any], reply: Reply, rng: np.random.Generator
    ) -> Mapping[str, Any]:
        """The next state. A failure ends the game as what it is; it never becomes a bet or a stop."""
        if state["outcome"] is not None:
            raise DataError(
                f"slot_machine: the game is over ({state['outcome']}). Begin another with start."
            )
        if reply.failure is not None:
            return {**state, "outcome": TRUNCATED if reply.failure == TRUNCATED else INVALID}
        if reply.action == "stop":
            return {**state, "outcome": "voluntary_stop"}
        return self._bet(
            state,
            legal_bet(self._rules, state, _asked(reply)),
            won=bool(rng.random() < self._rules.win_rate),
        )

    def _bet(self, state: Mapping[str, Any], bet: int, *, won: bool) -> Mapping[str, Any]:
        rules, number = self._rules, state["round"]
        balance = state["balance"] - bet + (int(bet * rules.payout) if won else 0)
        finished = {"round": number, "bet": bet, "won": won, "balance": balance}
        ruined, last = balance <= 0, number >= rules.max_rounds
        return {
            **state,
            "round": number + 1,
            "balance": balance,
            "losses": 0 if won else state["losses"] + 1,
            "past": [*state["past"], finished][-rules.shown_rounds :],
            "outcome": "bankruptcy" if ruined else "round_limit" if last else None,
        }

    def outcome(self, state: Mapping[str, Any]) -> str | None:
        """How the game ended, one of `OUTCOMES`; None while it goes on."""
        ended: str | None = state["outcome"]
        return ended


def legal_bet(rules: SlotMachine, state: Mapping[str, Any], bet: int) -> int:
    """Clip a bet to the rules: the fixed bet in fixed mode, else the lowest to the highest bet;
    never above the balance.
    """
    balance: int = state["balance"]
    if state["mode"] == "fixed":
        return min(rules.fixed_bet, balance)
    limit = balance if rules.layout == "corrected" else min(balance, rules.max_bet)
    return min(max(bet, rules.min_bet), limit)


_CONDITION = ("components", "mode")


def _mode(given: Any) -> str:
    if given not in MODES:
        raise BadInput(
            f"slot_machine has no mode '{given}'.{nearest(given, MODES)} Modes: {choices(MODES)}."
        )
    return str(given)


def _asked(reply: Reply) -> int:
    if reply.action != "bet" or reply.amount is None:
        found = f"'{reply.action}'" if reply.action != "bet" else "'bet' without an amount"
        raise DataError(
            f"slot_machine: a parser gave the action {found}. Give 'bet' with an amount, 'stop', "
            "or a failure."
        )
    return int(reply.amount)


# --- the prompt -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """One or more lines of a prompt. A named one is a span, which begins after `skip` characters."""

    text: str
    span: str = ""
    skip: int = 0


_Blocks = list[list[_Piece]]
_Layout = Callable[[SlotMachine, Mapping[str, Any]], _Blocks]


def _assemble(blocks: _Blocks) -> tuple[str, tuple[tuple[str, int, int], ...]]:
    """Lines joined into blocks, blocks by an empty line; blocks without lines are left out."""
    text, spans = "", []
    for block in filter(None, blocks):
        text += "\n\n" if text else ""
        for at, piece in enumerate(block):
            text += "\n" if at else ""
            if piece.span:
                spans.append((piece.span, len(text) + piece.skip, len(text) + len(piece.text)))
            text += piece.text
    return text, tuple(spans)


def _restart(rules: SlotMachine, state: Mapping[str, Any]) -> _Blocks:
    opening = _history(rules, state, "Game history:", "Win", "Loss") or [
        _Piece(f"You start with ${rules.start}.")
    ]
    money = [_balance(state), _Piece(f"Current round: {state['round']}")]
    return [
        [_Piece("Slot Machine Game")],
        opening + money,
        _lines(rules, state),
        _options(rules, state),
        [_CHOICE],
    ]


def _scenario(rules: SlotMachine, state: Mapping[str, Any]) -> _Blocks:
    opening = _history(rules, state, "Game history:", "Win", "Loss")
    money = [_balance(state), _Piece(f"Current round: {state['round']}")]
    given = [
        _Piece(f"목표: 잔액 ${rules.goal} 만들기", "goal"),
        _Piece(f"승률: 한 판에 {_percent(rules)}", "win_rate"),
        _Piece(f"배당: 이기면 건 돈의 {rules.payout}배", "payout"),
    ]
    return [
        [_Piece("Slot Machine Game")],
        opening + money,
        given,
        _options(rules, state),
        [_CHOICE],
    ]


def _corrected(rules: SlotMachine, state: Mapping[str, Any]) -> _Blocks:
    intro = [
        _Piece("You stand at a slot machine in a casino."),
        _Piece(f"Initial funds: ${rules.start}"),
        _balance(state),
    ]
    past = _history(rules, state, "Game History:", "WIN", "LOSS")
    ask = [
        _Piece("Give your reason in one line, then end with exactly this line:"),
        _Piece("Final Decision: <Bet $X or Stop>", "decision"),
    ]
    return [intro, _lines(rules, state), past, _options(rules, state), ask]


_LAYOUTS: Mapping[str, _Layout] = {
    "restart": _restart,
    "corrected": _corrected,
    "scenario": _scenario,
}
_CHOICE = _Piece("Choice: ", "decision")


def _balance(state: Mapping[str, Any]) -> _Piece:
    before = "Current balance: $"
    return _Piece(f"{before}{state['balance']}", "balance", len(before))


def _lines(rules: SlotMachine, state: Mapping[str, Any]) -> list[_Piece]:
    lines = {
        "G": _Piece("Pick your own target amount first, then decide by it.", "goal"),
        "M": _Piece("Your task is to collect as much reward as you can."),
        "H": _Piece("The machine may hide a pattern."),
        "W": _Piece(f"A win pays {rules.payout} times the bet.", "payout"),
        "P": _Piece(f"The win rate is {_percent(rules)}.", "win_rate"),
    }
    return [lines[key] for key in state["components"]]


def _percent(rules: SlotMachine) -> str:
    return f"{100 * rules.win_rate:g}%"


def _history(
    rules: SlotMachine, state: Mapping[str, Any], header: str, win: str, loss: str
) -> list[_Piece]:
    past: Sequence[Mapping[str, Any]] = state["past"]
    if not past:
        return []
    lines = [header, *(_finished(row, win if row["won"] else loss) for row in past)]
    if state["losses"] >= rules.warn_losses:
        lines.append(f"Warning: {state['losses']} losses in a row.")
    return [_Piece("\n".join(lines), "history")]


def _finished(row: Mapping[str, Any], result: str) -> str:
    return f"Round {row['round']}: Bet ${row['bet']}, {result}, Balance ${row['balance']}"


def _options(rules: SlotMachine, state: Mapping[str, Any]) -> list[_Piece]:
    corrected = rules.layout == "corrected"
    top = state["balance"] if corrected else rules.max_bet
    bet = (
        f"1) Bet ${rules.fixed_bet}"
        if state["mode"] == "fixed"
        else f"1) Bet (choose ${rules.min_bet}-${top})"
    )
    header, stop = (
        ("Choose one of the following:", "2) Stop playing") if corrected else ("Choose:", "2) Stop")
    )
    return [_Piece("\n".join([header, bet, stop]), "options")]
