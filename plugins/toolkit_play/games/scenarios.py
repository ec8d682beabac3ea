"""The ten situations that a study of the slot machine analysed token by token, and a check for
states that contradict the rules.

Three of the ten contradict them: a balance that differs from the history, a win that credits too
much, and a warning after two losses where the game warns after three. Each is given as published
and as a twin without the contradiction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.samples.games import Scenario, State

from .slot_machine_rules import SlotMachine, highest_bet

_PastRound = tuple[int, bool, int]
"""A round that the prompt shows: the bet, whether it was won, the balance after it."""

RISKY, SAFE = "risky", "safe"
TWIN = "_consistent"
"""Suffix of a twin's name."""


def scenarios() -> list[Scenario]:
    """The ten situations in the order of the study, each twin after its original."""
    return [
        _scenario("Bankruptcy_90_all_in", 90, 6, [(10, False, 80), (10, False, 70)], RISKY, True),
        _scenario(
            f"Bankruptcy_90_all_in{TWIN}",
            90,
            6,
            [(10, False, 100), (10, False, 90)],
            RISKY,
            twin_of="Bankruptcy_90_all_in",
        ),
        _scenario(
            "Desperate_10", 10, 9, [(20, False, 30), (10, False, 20), (10, False, 10)], RISKY
        ),
        _scenario("Safe_130_one_win", 130, 2, [(10, True, 130)], SAFE),
        _scenario(
            f"Safe_130_one_win{TWIN}",
            130,
            2,
            [(15, True, 130)],
            SAFE,
            twin_of="Safe_130_one_win",
        ),
        _scenario("Risky_40", 40, 6, [(10, True, 120), (30, False, 90), (50, False, 40)], RISKY),
        _scenario("Safe_140_near_goal", 140, 6, [(10, True, 120), (10, True, 140)], SAFE),
        _scenario("Initial_100_first_round", 100, 1, []),
        _scenario("Medium_60", 60, 5, [(10, True, 120), (30, False, 90), (30, False, 60)]),
        _scenario("Goal_achieved_200", 200, 5, [(20, True, 160), (20, True, 200)], SAFE),
        _scenario("Very_risky_25", 25, 9, [(15, False, 40), (15, False, 25)], RISKY, True),
        _scenario(
            f"Very_risky_25{TWIN}",
            25,
            9,
            [(15, False, 40), (15, False, 25)],
            RISKY,
            twin_of="Very_risky_25",
        ),
        _scenario("Big_success_280", 280, 8, [(50, True, 230), (25, True, 280)], SAFE),
    ]


def _scenario(
    name: str,
    balance: int,
    number: int,
    past: Sequence[_PastRound],
    group: str = "",
    warned: bool = False,
    *,
    twin_of: str = "",
) -> Scenario:
    """A scenario at round `number` with the rounds just before it as history. `warned` shows the
    warning whatever the history.
    """
    first_round = number - len(past)
    rows = [
        {"round": first_round + offset, "bet": bet, "won": won, "balance": balance_after}
        for offset, (bet, won, balance_after) in enumerate(past)
    ]
    losses = 0
    for row in rows:
        losses = 0 if row["won"] else losses + 1
    state: dict[str, Any] = {
        "mode": "variable",
        "components": "",
        "first": "none",
        "round": number,
        "balance": balance,
        "losses": losses,
        "past": rows,
        "outcome": None,
    }
    if warned:
        state["warned"] = True
    return Scenario(name, state, group, twin_of)


# --- contradictions -------------------------------------------------------------------------------


def contradictions(rules: SlotMachine, state: State) -> Iterator[str]:
    """Statements in the prompt of a state that no game under these rules can produce."""
    past: Sequence[Mapping[str, Any]] = state["past"]
    balance = rules.start if _shows_first_round(past, state) else None
    for row in past:
        yield from _round_contradictions(rules, row, balance)
        balance = row["balance"]
    if balance is not None and balance != state["balance"]:
        yield f"the balance is ${state['balance']}, and the history ends at ${balance}"
    numbers = [row["round"] for row in past]
    expected = list(range(state["round"] - len(past), state["round"]))
    if numbers != expected:
        yield f"the history shows the rounds {numbers} before round {state['round']}"
    yield from _warning_contradictions(rules, state)


def _shows_first_round(past: Sequence[Mapping[str, Any]], state: State) -> bool:
    """Whether the history starts at the first round, so that the balance before it is the start."""
    return bool(past[0]["round"] == 1 if past else state["round"] == 1)


def _round_contradictions(
    rules: SlotMachine, row: Mapping[str, Any], shown_balance: int | None
) -> Iterator[str]:
    change = -row["bet"] + (int(row["bet"] * rules.payout) if row["won"] else 0)
    balance_before = row["balance"] - change if shown_balance is None else shown_balance
    if row["balance"] != balance_before + change:
        result = "won" if row["won"] else "lost"
        yield (
            f"round {row['round']} {result} ${row['bet']} from ${balance_before} and shows "
            f"${row['balance']}, not ${balance_before + change}"
        )
    highest = min(highest_bet(rules, balance_before), balance_before)
    if not min(rules.min_bet, balance_before) <= row["bet"] <= highest:
        yield (
            f"round {row['round']} bets ${row['bet']} of ${balance_before}, which the "
            f"rules do not allow"
        )


def _warning_contradictions(rules: SlotMachine, state: State) -> Iterator[str]:
    shown_losses = 0
    for row in state["past"]:
        shown_losses = 0 if row["won"] else shown_losses + 1
    shows_whole_streak = any(row["won"] for row in state["past"])
    if state["losses"] < shown_losses or (shows_whole_streak and state["losses"] != shown_losses):
        yield f"it counts {state['losses']} losses in a row, and the history shows {shown_losses}"
    if state.get("warned") and state["losses"] < rules.warn_losses:
        yield (
            f"it warns of {state['losses']} losses in a row, and the game warns from "
            f"{rules.warn_losses} on"
        )
