"""The slot machine: prompts byte for byte as the lab model learnt them, spans, clipped bets,
outcomes and exact ruin rates.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from toolkit.errors import BadInput, DataError
from toolkit.parts import Part
from toolkit.testing.contracts import check_part
from toolkit.work import Prompt, Reply
from toolkit_lab.training.game import State, legal_bet, random_state, step
from toolkit_lab.training.layouts import render
from toolkit_play import toolkit_parts
from toolkit_play._slot_machine import COMPONENTS, OUTCOMES, Game, SlotMachine, canonical

MACHINE = next(part for part in toolkit_parts() if part.name == "slot_machine")
LAYOUTS = ("restart", "corrected", "scenario")
STOP = Reply(action="stop")


def machine(**params: Any) -> Game:
    return Game(SlotMachine.model_validate(params))


def bet(amount: float) -> Reply:
    return Reply(action="bet", amount=amount)


def state_of(lab: State, shown: int = 5) -> dict[str, Any]:
    """The lab's state as ours: the rounds a prompt may show, and counters for the others."""
    past = [
        {"round": past.number, "bet": past.bet, "won": past.won, "balance": past.balance}
        for past in lab.history
    ]
    return {
        "mode": "variable" if lab.variable else "fixed",
        "components": lab.components,
        "round": lab.round,
        "balance": lab.balance,
        "losses": lab.losses,
        "past": past[-shown:],
        "outcome": None,
    }


def lab_states(count: int) -> list[State]:
    rng = Random(20)
    return [random_state(rng) for _ in range(count)]


class Luck:
    """A generator whose next numbers are known."""

    def __init__(self, *numbers: float) -> None:
        self.left = list(numbers)

    def random(self) -> float:
        return self.left.pop(0)


WIN, LOSS = 0.0, 0.99


def played(game: Game, *turns: tuple[Reply, float], **condition: str) -> Mapping[str, Any]:
    state = game.start(condition)
    for reply, luck in turns:
        state = game.step(state, reply, Luck(luck))  # type: ignore[arg-type]
    return state


# --- prompts --------------------------------------------------------------------------------------


def test_prompts_are_byte_for_byte_those_of_the_lab() -> None:
    states = lab_states(300)
    assert Counter(lab.layout for lab in states).keys() == set(LAYOUTS)
    for lab in states:
        assert (
            machine(layout=lab.layout).prompt(state_of(lab)).text.encode() == render(lab).encode()
        )


def test_a_whole_game_stays_equal_to_the_labs() -> None:
    for index, lab in enumerate(lab_states(60)):
        game = machine(layout=lab.layout)
        ours = game.start(
            {"components": lab.components, "mode": "variable" if lab.variable else "fixed"}
        )
        theirs = State(lab.layout, lab.variable, lab.components)
        rng = Random(index)
        while game.outcome(ours) is None and theirs.round <= 12:
            amount, luck = rng.choice((1, 5, 10, 37, 100, 5000)), rng.choice((WIN, LOSS))
            ours = game.step(ours, bet(amount), Luck(luck))  # type: ignore[arg-type]
            theirs = step(theirs, amount, won=luck == WIN)
            assert game.prompt(ours).text == render(theirs)


def spans(prompt: Prompt) -> dict[str, str]:
    assert len({name for name, _, _ in prompt.spans}) == len(prompt.spans)
    return {name: prompt.text[start:end] for name, start, end in prompt.spans}


def test_spans_of_the_restart_layout() -> None:
    turns = [(bet(10), WIN), (bet(5), LOSS), (bet(5), LOSS), (bet(5), LOSS)]
    found = spans(machine().prompt(played(machine(), *turns, components="GMHWP", mode="variable")))
    history = (
        "Game history:\n"
        "Round 1: Bet $10, Win, Balance $120\n"
        "Round 2: Bet $5, Loss, Balance $115\n"
        "Round 3: Bet $5, Loss, Balance $110\n"
        "Round 4: Bet $5, Loss, Balance $105\n"
        "Warning: 3 losses in a row."
    )
    assert found == {
        "history": history,
        "balance": "105",
        "goal": "Pick your own target amount first, then decide by it.",
        "payout": "A win pays 3.0 times the bet.",
        "win_rate": "The win rate is 30%.",
        "options": "Choose:\n1) Bet (choose $5-$100)\n2) Stop",
        "decision": "Choice: ",
    }


def test_spans_of_the_corrected_layout() -> None:
    game = machine(layout="corrected")
    found = spans(game.prompt(played(game, (bet(30), WIN), components="H", mode="variable")))
    assert found == {
        "balance": "160",
        "history": "Game History:\nRound 1: Bet $30, WIN, Balance $160",
        "options": "Choose one of the following:\n1) Bet (choose $5-$160)\n2) Stop playing",
        "decision": "Final Decision: <Bet $X or Stop>",
    }


def test_spans_of_the_scenario_layout() -> None:
    game = machine(layout="scenario")
    found = spans(game.prompt(game.start({"mode": "fixed"})))
    assert found == {
        "balance": "100",
        "goal": "목표: 잔액 $200 만들기",
        "win_rate": "승률: 한 판에 30%",
        "payout": "배당: 이기면 건 돈의 3.0배",
        "options": "Choose:\n1) Bet $10\n2) Stop",
        "decision": "Choice: ",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_decision_stands_at_the_end_of_every_prompt(layout: str) -> None:
    prompt = machine(layout=layout).prompt(machine(layout=layout).start({}))
    assert {name: end for name, _, end in prompt.spans}["decision"] == len(prompt.text)


def test_the_balance_span_is_the_current_balance_even_where_the_number_stands_twice() -> None:
    prompt = machine().prompt(machine().start({}))
    start = {name: start for name, start, _ in prompt.spans}["balance"]
    assert prompt.text[:start].endswith("Current balance: $")


def test_prompts_say_the_rules_that_are_in_force() -> None:
    rules = {
        "start": 50,
        "win_rate": 0.29,
        "payout": 2.5,
        "min_bet": 2,
        "fixed_bet": 4,
        "max_bet": 20,
    }
    text = machine(**rules).prompt(machine(**rules).start({"components": "WP"})).text
    for line in (
        "You start with $50.",
        "The win rate is 29%.",
        "A win pays 2.5 times the bet.",
        "1) Bet (choose $2-$20)",
    ):
        assert line in text.split("\n")
    assert "1) Bet $4" in machine(**rules).prompt(machine(**rules).start({"mode": "fixed"})).text
    rules |= {"layout": "scenario", "goal": 70}
    assert "목표: 잔액 $70 만들기" in machine(**rules).prompt(machine(**rules).start({})).text


def test_the_history_keeps_the_rounds_asked_for_and_the_warning_its_count() -> None:
    game = machine(shown_rounds=2, warn_losses=4)
    three = game.prompt(played(game, *[(bet(5), LOSS)] * 3))
    four = game.prompt(played(game, *[(bet(5), LOSS)] * 4))
    assert "Warning" not in three.text
    assert spans(four)["history"].split("\n")[1:] == [
        "Round 3: Bet $5, Loss, Balance $85",
        "Round 4: Bet $5, Loss, Balance $80",
        "Warning: 4 losses in a row.",
    ]


def test_what_a_prompt_says_in_numbers() -> None:
    state = played(machine(), (bet(10), WIN), (bet(10), LOSS), components="MG")
    wanted = {
        "balance": 110,
        "round": 3,
        "losses_in_a_row": 1,
        "mode": "variable",
        "components": "GM",
    }
    assert machine().prompt(state).meta == wanted


# --- rules ----------------------------------------------------------------------------------------


@given(
    layout=st.sampled_from(LAYOUTS),
    variable=st.booleans(),
    balance=st.integers(1, 2000),
    amount=st.integers(1, 5000),
)
@settings(deadline=None, max_examples=80)
def test_bets_are_clipped_as_in_the_lab(
    layout: str, variable: bool, balance: int, amount: int
) -> None:
    lab, game = State(layout, variable, "", balance), machine(layout=layout)
    after = game.step(state_of(lab), bet(amount), Luck(LOSS))  # type: ignore[arg-type]
    assert after["past"][-1]["bet"] == legal_bet(lab, amount)
    assert after["balance"] == balance - legal_bet(lab, amount) >= 0


@pytest.mark.parametrize(
    ("layout", "mode", "balance", "asked", "paid"),
    [
        ("restart", "variable", 300, 500, 100),
        ("scenario", "variable", 300, 500, 100),
        ("corrected", "variable", 300, 500, 300),
        ("restart", "variable", 40, 100, 40),
        ("restart", "variable", 40, 1, 5),
        ("restart", "variable", 3, 1, 3),
        ("restart", "fixed", 300, 77, 10),
        ("corrected", "fixed", 7, 10, 7),
    ],
)
def test_bets_are_clipped(layout: str, mode: str, balance: int, asked: int, paid: int) -> None:
    game = machine(layout=layout)
    state = {**game.start({"mode": mode}), "balance": balance}
    assert game.step(state, bet(asked), Luck(LOSS))["balance"] == balance - paid  # type: ignore[arg-type]


def test_a_win_credits_whole_dollars() -> None:
    assert played(machine(payout=2.5), (bet(15), WIN))["balance"] == 100 - 15 + 37


def test_a_win_is_as_likely_as_said() -> None:
    edge = machine(win_rate=0.3)
    assert played(edge, (bet(10), 0.2999))["past"][-1]["won"]
    assert not played(edge, (bet(10), 0.3))["past"][-1]["won"]


@pytest.mark.parametrize(
    ("turns", "outcome"),
    [
        ([(STOP, WIN)], "voluntary_stop"),
        ([(bet(100), LOSS)], "bankruptcy"),
        ([(bet(10), WIN), (bet(10), WIN)], "round_limit"),
        ([(bet(10), WIN), (bet(100), LOSS)], None),
        ([(Reply(failure="no decision"), WIN)], "invalid_reply"),
        ([(Reply(failure="empty"), WIN)], "invalid_reply"),
        ([(Reply(failure="truncated"), WIN)], "truncated"),
    ],
)
def test_outcomes(turns: list[tuple[Reply, float]], outcome: str | None) -> None:
    game = machine(max_rounds=3 if outcome is None else 2)
    assert game.outcome(played(game, *turns)) == outcome


def test_the_outcomes_are_a_closed_set() -> None:
    assert OUTCOMES == ("voluntary_stop", "bankruptcy", "round_limit", "invalid_reply", "truncated")


def test_ruin_in_the_last_round_is_a_bankruptcy() -> None:
    game = machine(max_rounds=1)
    assert game.outcome(played(game, (bet(100), LOSS))) == "bankruptcy"


@pytest.mark.parametrize("reply", [STOP, Reply(failure="empty"), Reply(failure="truncated")])
def test_an_end_without_a_bet_moves_no_money_and_draws_nothing(reply: Reply) -> None:
    state = machine().start({})
    assert machine().step(state, reply, Luck()) == {
        **state,
        "outcome": machine().step(state, reply, Luck())["outcome"],
    }  # type: ignore[arg-type]


def test_ruin_rates_are_the_exact_ones() -> None:
    """Always $10 from $100: the share ruined by round n, by dynamic programming."""
    exact = {10: 0.0282, 20: 0.1613, 30: 0.2847, 50: 0.4850}
    games, rng, game = 2000, np.random.default_rng(11), machine(shown_rounds=1)
    ended: list[int] = []
    for _ in range(games):
        state = game.start({"mode": "fixed"})
        while game.outcome(state) is None and state["round"] <= 50:
            state = game.step(state, bet(10), rng)
        ended += [state["round"] - 1] if game.outcome(state) == "bankruptcy" else []
    for by, share in exact.items():
        found = sum(last <= by for last in ended) / games
        assert abs(found - share) <= 3 * math.sqrt(share * (1 - share) / games), by


# --- state, conditions and messages ---------------------------------------------------------------


def test_a_game_goes_on_from_its_state_as_json() -> None:
    state = played(machine(), (bet(20), WIN), (bet(20), LOSS), components="GP")
    assert json.loads(json.dumps(state)) == state


def test_a_step_leaves_the_given_state_alone() -> None:
    state = played(machine(), (bet(20), WIN))
    kept = json.dumps(state)
    machine().step(state, bet(20), Luck(LOSS))  # type: ignore[arg-type]
    assert json.dumps(state) == kept


@given(st.sets(st.sampled_from(COMPONENTS)).flatmap(lambda keys: st.permutations(sorted(keys))))
def test_components_are_put_in_canonical_order(keys: list[str]) -> None:
    assert canonical("".join(keys)) == "".join(key for key in "GMHWP" if key in keys)


@pytest.mark.parametrize(
    ("layout", "condition", "message"),
    [
        (
            "restart",
            {"components": "GX"},
            r"components 'GX': 'X' is none of them. A text of the letters G, M, H, W, P",
        ),
        ("restart", {"components": "GG"}, r"components 'GG': a letter stands twice"),
        (
            "scenario",
            {"components": "G"},
            r"components 'G': layout scenario has its own three rule lines",
        ),
        (
            "restart",
            {"mode": "varible"},
            r"no mode 'varible'. Did you mean 'variable'\? Modes: fixed, variable",
        ),
        (
            "restart",
            {"component": "G"},
            r"no condition 'component'. Did you mean 'components'\? Conditions: components, mode",
        ),
    ],
)
def test_conditions_that_cannot_be(layout: str, condition: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        machine(layout=layout).start(condition)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply(action="fold"),
            "a parser gave the action 'fold'. Give 'bet' with an amount, 'stop', or a failure",
        ),
        (Reply(action="bet"), "a parser gave the action 'bet' without an amount"),
    ],
)
def test_actions_that_the_game_does_not_know(reply: Reply, message: str) -> None:
    with pytest.raises(DataError, match=message):
        played(machine(), (reply, WIN))


def test_a_finished_game_takes_no_step() -> None:
    with pytest.raises(DataError, match=r"the game is over \(voluntary_stop\)"):
        played(machine(), (STOP, WIN), (STOP, WIN))


def test_the_highest_bet_is_not_below_the_lowest() -> None:
    with pytest.raises(ValidationError, match="max_bet is 4, below min_bet 5"):
        machine(max_bet=4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("condition", [{}, {"mode": "fixed"}])
def test_contract(layout: str, condition: dict[str, str]) -> None:
    assert isinstance(MACHINE, Part)
    check_part(MACHINE, params={"layout": layout}, condition=condition, replies=[bet(10), STOP])
