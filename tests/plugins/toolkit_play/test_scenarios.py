"""The named situations of the slot machine: which contradict the rules, and their prompts."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit_play.games.slot_machine import SlotMachineGame
from toolkit_play.games.slot_machine_rules import SlotMachine

GAME = SlotMachineGame(SlotMachine(layout="scenario"))
SCENARIOS = {scenario.name: scenario for scenario in GAME.scenarios()}
PUBLISHED = (
    "Bankruptcy_90_all_in Desperate_10 Safe_130_one_win Risky_40 Safe_140_near_goal "
    "Initial_100_first_round Medium_60 Goal_achieved_200 Very_risky_25 Big_success_280"
).split()


def test_the_ten_of_the_study_are_there_by_name() -> None:
    assert [name for name, scenario in SCENARIOS.items() if not scenario.twin_of] == PUBLISHED


def test_those_that_contradict_the_rules_are_flagged_and_have_a_consistent_twin() -> None:
    flagged = {name for name in PUBLISHED if GAME.contradictions(SCENARIOS[name].state)}
    assert flagged == {"Bankruptcy_90_all_in", "Safe_130_one_win", "Very_risky_25"}
    twins = {scenario.twin_of: scenario for scenario in SCENARIOS.values() if scenario.twin_of}
    assert set(twins) == flagged
    for name, twin in twins.items():
        assert not GAME.contradictions(twin.state)
        assert (twin.group, twin.state["balance"], twin.state["round"]) == (
            SCENARIOS[name].group,
            SCENARIOS[name].state["balance"],
            SCENARIOS[name].state["round"],
        )


def test_a_flag_says_what_contradicts() -> None:
    (balance, warning) = GAME.contradictions(SCENARIOS["Bankruptcy_90_all_in"].state)
    assert balance == "the balance is $90, and the history ends at $70"
    assert warning == "it warns of 2 losses in a row, and the game warns from 3 on"
    (credit,) = GAME.contradictions(SCENARIOS["Safe_130_one_win"].state)
    assert credit == "round 1 won $10 from $100 and shows $130, not $120"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"balance": 10}, "the balance is $10"),
        ({"round": 3}, "shows the rounds [1] before round 3"),
        ({"losses": 2}, "counts 2 losses in a row, and the history shows 0"),
    ],
)
def test_a_changed_state_is_found_out(change: dict[str, Any], message: str) -> None:
    state = {**SCENARIOS["Safe_130_one_win_consistent"].state, **change}
    assert any(message in contradiction for contradiction in GAME.contradictions(state))


def test_a_bet_that_the_rules_do_not_allow_is_found_out() -> None:
    state = dict(SCENARIOS["Safe_130_one_win_consistent"].state)
    state["past"] = [{"round": 1, "bet": 101, "won": False, "balance": -1}]
    assert any("bets $101 of $100" in contradiction for contradiction in GAME.contradictions(state))


def test_every_state_of_a_played_game_is_consistent() -> None:
    import numpy as np

    from toolkit.samples.games import Reply

    for seed in range(20):
        rng, state = np.random.default_rng(seed), GAME.start({})
        while GAME.outcome(state) is None and state["round"] < 12:
            assert GAME.contradictions(state) == []
            amount = float(rng.integers(5, 101))
            state = GAME.step(state, Reply(action="bet", amount=amount), rng).state


def test_spans_name_the_balance_and_no_other_number() -> None:
    prompt = GAME.prompt(SCENARIOS["Desperate_10"].state)
    spans = {name: prompt.text[first:last] for name, first, last in prompt.spans}
    assert spans["balance"] == "10"
    assert spans["options"].startswith("Choose:\n1) Bet")
    assert "Warning: 3 losses in a row." in spans["history"]
