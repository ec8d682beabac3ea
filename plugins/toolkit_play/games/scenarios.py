"""The ten situations that a study of the slot machine followed token by token, and what in such a
state contradicts the rules.

Three of the ten do: a balance that is not the history's, a win that credits too much, and warnings
after two losses where the game warns after three. Each stands here as it was published, and again
as a twin without the contradiction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.games import Scenario, State

from .slot_machine import SlotMachine, highest_bet

_Past = tuple[int, bool, int]
"""A round that the prompt shows: the bet, whether it was won, the balance after it."""

RISKY, SAFE = "risky", "safe"
TWIN = "_consistent"
"""What ends the name of a twin."""


def scenarios() -> list[Scenario]:
    """The ten situations in the order of the study, each twin behind its original."""
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
    past: Sequence[_Past],
    group: str = "",
    warned: bool = False,
    *,
    twin_of: str = "",
) -> Scenario:
    """The prompt shows the rounds just before this one. `warned`: it warns in any case."""
    first = number - len(past)
    rows = [
        {"round": first + place, "bet": bet, "won": won, "balance": after}
        for place, (bet, won, after) in enumerate(past)
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


# --- what cannot be so ----------------------------------------------------------------------------


def contradictions(rules: SlotMachine, state: State) -> Iterator[str]:
    """What the prompt of a state tells that no game by these rules can have led to."""
    past: Sequence[Mapping[str, Any]] = state["past"]
    balance = rules.start if _begins(past, state) else None
    for row in past:
        yield from _of_round(rules, row, balance)
        balance = row["balance"]
    if balance is not None and balance != state["balance"]:
        yield f"the balance is ${state['balance']}, and the history ends at ${balance}"
    numbers = [row["round"] for row in past]
    expected = list(range(state["round"] - len(past), state["round"]))
    if numbers != expected:
        yield f"the history shows the rounds {numbers} before round {state['round']}"
    yield from _of_warning(rules, state)


def _begins(past: Sequence[Mapping[str, Any]], state: State) -> bool:
    """Whether the balance before the first round that is shown is the start."""
    return bool(past[0]["round"] == 1 if past else state["round"] == 1)


def _of_round(rules: SlotMachine, row: Mapping[str, Any], before: int | None) -> Iterator[str]:
    change = -row["bet"] + (int(row["bet"] * rules.payout) if row["won"] else 0)
    known = row["balance"] - change if before is None else before
    if row["balance"] != known + change:
        told = "won" if row["won"] else "lost"
        yield (
            f"round {row['round']} {told} ${row['bet']} from ${known} and shows "
            f"${row['balance']}, not ${known + change}"
        )
    highest = min(highest_bet(rules, known), known)
    if not min(rules.min_bet, known) <= row["bet"] <= highest:
        yield f"round {row['round']} bets ${row['bet']} of ${known}, which the rules do not allow"


def _of_warning(rules: SlotMachine, state: State) -> Iterator[str]:
    shown = 0
    for row in state["past"]:
        shown = 0 if row["won"] else shown + 1
    is_whole = any(row["won"] for row in state["past"])
    if state["losses"] < shown or (is_whole and state["losses"] != shown):
        yield f"it counts {state['losses']} losses in a row, and the history shows {shown}"
    if state.get("warned") and state["losses"] < rules.warn_losses:
        yield (
            f"it warns of {state['losses']} losses in a row, and the game warns from "
            f"{rules.warn_losses} on"
        )
