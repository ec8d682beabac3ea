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
from toolkit.samples.games import Option, Prompt, Reply
from toolkit.testing.contracts import check_part
from toolkit_lab.training.game import State, legal_bet, random_state, step
from toolkit_lab.training.layouts import render
from toolkit_play import toolkit_parts
from toolkit_play.games.components import COMPONENTS, canonical
from toolkit_play.games.slot_machine import SlotMachineGame
from toolkit_play.games.slot_machine_rules import SlotMachine

MACHINE = next(part for part in toolkit_parts() if part.name == "slot_machine")
LAYOUTS = ("restart", "corrected", "scenario")
STOP = Reply(action="stop")


def machine(**params: Any) -> SlotMachineGame:
    return SlotMachineGame(SlotMachine.model_validate(params))


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
        "first": "none",
        "round": lab.round,
        "balance": lab.balance,
        "losses": lab.losses,
        "past": past[-shown:],
        "outcome": None,
    }


def says_what_is_legal(lab: State) -> bool:
    """Where the balance does not cover the usual bets, layout corrected names what it covers; the
    lab's prompts say the usual bets all the same.
    """
    return lab.layout == "corrected" and lab.balance < (6 if lab.variable else 10)


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


def played(
    game: SlotMachineGame, *turns: tuple[Reply, float], **condition: str
) -> Mapping[str, Any]:
    state = game.start(condition)
    for reply, luck in turns:
        state = game.step(state, reply, Luck(luck)).state  # type: ignore[arg-type]
    return state


# --- prompts --------------------------------------------------------------------------------------


def test_prompts_are_byte_for_byte_those_of_the_lab() -> None:
    states = [lab for lab in lab_states(300) if not says_what_is_legal(lab)]
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
            ours = game.step(ours, bet(amount), Luck(luck)).state  # type: ignore[arg-type]
            theirs = step(theirs, amount, won=luck == WIN)
            if not says_what_is_legal(theirs):
                assert game.prompt(ours).text == render(theirs)


def spans(prompt: Prompt) -> dict[str, str]:
    assert len({name for name, _, _ in prompt.spans}) == len(prompt.spans)
    return {name: prompt.text[start:end] for name, start, end in prompt.spans}


def test_spans_of_the_restart_layout() -> None:
    turns = [(bet(10), WIN), (bet(5), LOSS), (bet(5), LOSS), (bet(5), LOSS)]
    result = spans(machine().prompt(played(machine(), *turns, components="GMHWP", mode="variable")))
    history = (
        "Game history:\n"
        "Round 1: Bet $10, Win, Balance $120\n"
        "Round 2: Bet $5, Loss, Balance $115\n"
        "Round 3: Bet $5, Loss, Balance $110\n"
        "Round 4: Bet $5, Loss, Balance $105\n"
        "Warning: 3 losses in a row."
    )
    assert result == {
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
    result = spans(game.prompt(played(game, (bet(30), WIN), components="H", mode="variable")))
    assert result == {
        "balance": "160",
        "history": "Game History:\nRound 1: Bet $30, WIN, Balance $160",
        "options": "Choose one of the following:\n1) Bet (choose $5-$160)\n2) Stop playing",
        "decision": "Final Decision: <Bet $X or Stop>",
    }


def test_spans_of_the_scenario_layout() -> None:
    game = machine(layout="scenario")
    result = spans(game.prompt(game.start({"mode": "fixed"})))
    assert result == {
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
    assert machine().numbers(state) == {"balance": 110.0, "round": 3.0, "losses_in_a_row": 1.0}


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
    turn = game.step(state_of(lab), bet(amount), Luck(LOSS))  # type: ignore[arg-type]
    after = turn.state
    assert (turn.bet, turn.won) == (legal_bet(lab, amount), False)
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
    turn = game.step(state, bet(asked), Luck(LOSS))  # type: ignore[arg-type]
    assert (turn.bet, turn.state["balance"]) == (paid, balance - paid)


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
        ([(bet(10), WIN), (bet(100), LOSS)], None),
    ],
)
def test_outcomes(turns: list[tuple[Reply, float]], outcome: str | None) -> None:
    game = machine()
    assert game.outcome(played(game, *turns)) == outcome
    assert outcome is None or outcome in game.outcomes


def test_a_stop_moves_no_money_and_draws_nothing() -> None:
    state = machine().start({})
    turn = machine().step(state, STOP, Luck())  # type: ignore[arg-type]
    assert turn.state == {**state, "outcome": "voluntary_stop"}
    assert (turn.bet, turn.won) == (None, None)


# --- exact ruin -----------------------------------------------------------------------------------


def exact_ruin(policy: str, rounds: int, start: int = 100, win_rate: float = 0.3) -> float:
    """The probability of ruin within so many rounds, by dynamic programming over balances."""
    chances: dict[int, float] = {start: 1.0}
    ruined = 0.0
    for _ in range(rounds):
        after: dict[int, float] = {}
        for balance, chance in chances.items():
            stake = stake_of(policy, balance)
            for share, credit in ((win_rate, 3 * stake), (1 - win_rate, 0)):
                left = balance - stake + credit
                if left <= 0:
                    ruined += chance * share
                else:
                    after[left] = after.get(left, 0.0) + chance * share
        chances = after
    return ruined


def stake_of(policy: str, balance: int) -> int:
    """Always $10; half of the balance, at least $5; or all of it up to $100."""
    if policy == "fixed":
        return min(10, balance)
    if policy == "half":
        return min(max(balance // 2, 5), 100, balance)
    return min(balance, 100)


@pytest.mark.parametrize(
    ("rounds", "share"), [(10, 0.0282), (20, 0.1613), (30, 0.2847), (50, 0.4850), (100, 0.7174)]
)
def test_the_exact_ruin_of_the_fixed_bet_is_the_published_one(rounds: int, share: float) -> None:
    assert abs(exact_ruin("fixed", rounds) - share) < 5e-5


@pytest.mark.parametrize("policy", ["fixed", "half", "all"])
def test_ruin_of_4000_simulated_games_is_the_exact_one(policy: str) -> None:
    """Each of the three policies, at four points: within 3.5 standard errors."""
    games, rounds = 4000, 30
    rng, game = np.random.default_rng(11), machine(shown_rounds=1)
    ended: list[int] = []
    for _ in range(games):
        state = game.start({"mode": "fixed" if policy == "fixed" else "variable"})
        for number in range(1, rounds + 1):
            state = game.step(state, bet(stake_of(policy, state["balance"])), rng).state
            if game.outcome(state) == "bankruptcy":
                ended.append(number)
                break
    for by in (5, 10, 20, 30):
        share = exact_ruin(policy, by)
        ruined = sum(number <= by for number in ended) / games
        assert abs(ruined - share) <= 3.5 * math.sqrt(share * (1 - share) / games) + 1e-9, by


# --- designs and conditions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"design": "restart_128"}, 128),
        ({"design": "corrected_64"}, 64),
        ({"design": "corrected_64", "modes": ["variable"]}, 32),
        ({}, 64),
        ({"layout": "scenario"}, 2),
        ({"components": ["", "G"], "first_results": ["none", "win", "loss"]}, 12),
    ],
)
def test_how_many_conditions_there_are(params: dict[str, Any], count: int) -> None:
    conditions = machine(**params).conditions()
    assert len(conditions) == len({condition.id for condition in conditions}) == count
    assert len({condition.label for condition in conditions}) == count


def test_conditions_have_a_bitmask_for_an_id_and_a_label_for_people() -> None:
    known = {condition.id: condition for condition in machine().conditions()}
    assert known["restart-fixed-c00"].label == "fixed BASE"
    condition = known["restart-variable-c18"]
    assert condition.label == "variable MP"
    assert condition.settings == {"components": "MP", "mode": "variable", "first": "none"}
    assert condition.switches == {"G": False, "M": True, "H": False, "W": False, "P": True}
    assert condition.groups == {"layout": "restart", "mode": "variable"}


def test_named_components_are_canonical_and_keep_their_order() -> None:
    params = {"components": ["PG", "", "H"], "modes": ["variable"], "layout": "corrected"}
    ids = [condition.id for condition in machine(**params).conditions()]
    assert ids == ["corrected-variable-c17", "corrected-variable-c00", "corrected-variable-c04"]


def test_the_forced_first_results_are_a_group_of_the_design() -> None:
    conditions = machine(design="restart_128").conditions()
    assert Counter(condition.groups["first"] for condition in conditions) == {"win": 64, "loss": 64}
    assert conditions[0].id == "restart-fixed-win-c00"


def test_a_forced_result_is_a_round_at_its_payout() -> None:
    game = machine(first_results=["win", "loss"])
    won, lost = (game.start({"first": first}) for first in ("win", "loss"))
    assert (won["balance"], lost["balance"], won["round"]) == (120, 90, 2)
    assert "Round 1: Bet $10, Win, Balance $120\n" in game.prompt(won).text
    assert spans(game.prompt(lost))["balance"] == "90"


def test_a_forced_result_as_published_is_only_told() -> None:
    game = machine(forced_result="as_published")
    for first, balance, line in (
        ("win", "130", "First result: you won $30."),
        ("loss", "90", "First result: you lost $10."),
    ):
        state = game.start({"first": first})
        assert (state["balance"], state["round"]) == (100, 1)
        prompt = game.prompt(state)
        assert spans(prompt)["balance"] == balance
        assert line in prompt.text.split("\n")
        after = game.step(state, bet(10), Luck(LOSS)).state  # type: ignore[arg-type]
        assert spans(game.prompt(after))["balance"] == "90"


def test_matched_caps_give_both_modes_the_same_highest_bet() -> None:
    game = machine(layout="corrected", cap=70)
    fixed, variable = (game.start({"mode": mode}) for mode in ("fixed", "variable"))
    assert game.prompt(fixed).options[0] == Option("bet", "1", ("Bet",), 70.0, 70.0)
    assert game.prompt(variable).options[0] == Option("bet", "1", ("Bet",), 5.0, 70.0)
    for state in (fixed, variable):
        assert game.step(state, bet(100), Luck(LOSS)).bet == 70  # type: ignore[arg-type]
    poor = {**variable, "balance": 30}
    assert "1) Bet (choose $5-$30)" in game.prompt(poor).text
    assert "1) Bet $30\n" in game.prompt({**fixed, "balance": 30}).text


@pytest.mark.parametrize("balance", [1, 3, 4, 5])
@pytest.mark.parametrize("mode", ["fixed", "variable"])
def test_a_small_balance_offers_what_is_legal_and_nothing_else(mode: str, balance: int) -> None:
    game = machine(layout="corrected")
    state = {**game.start({"mode": mode}), "balance": balance}
    prompt = game.prompt(state)
    lines = spans(prompt)["options"].split("\n")
    assert lines == [
        "Choose one of the following:",
        f"1) Bet ${balance}",
        "2) Stop playing",
    ]
    assert prompt.options[0] == Option("bet", "1", ("Bet",), float(balance), float(balance))
    assert game.step(state, bet(balance), Luck(LOSS)).bet == balance  # type: ignore[arg-type]


def test_both_wordings_say_every_component() -> None:
    texts = []
    for wording in ("task", "mission"):
        game = machine(wording=wording)
        texts.append(spans(game.prompt(game.start({"components": "GMHWP"}))))
        assert {"goal", "payout", "win_rate"} <= texts[-1].keys()
        assert "3.0 times" in texts[-1]["payout"]
        assert "30%" in texts[-1]["win_rate"]
    mission = machine(wording="mission")
    assert "Your mission" in mission.prompt(mission.start({"components": "M"})).text
    assert texts[0]["goal"] != texts[1]["goal"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"components": ["GX"]}, "components 'GX': 'X' is not one of them"),
        ({"components": ["GM", "MG"]}, "name at least one set of components, and each once"),
        ({"components": []}, "name at least one set of components"),
        ({"modes": ["fixed", "fixed"]}, "modes: a value occurs twice"),
        ({"modes": []}, "at least 1 item"),
        ({"first_results": ["win", "win"]}, "first_results: a value occurs twice"),
        (
            {"components": ["G"], "layout": "scenario"},
            "layout scenario has its own three rule lines",
        ),
        (
            {"design": "corrected_64", "layout": "restart"},
            "layout: design corrected_64 has layout corrected; leave layout out",
        ),
        ({"cap": 3}, "cap is 3, below min_bet 5"),
    ],
)
def test_params_that_are_invalid(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        machine(**params)


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
            r"components 'GX': 'X' is not one of them. Write a text of the letters G, M, H, W, P",
        ),
        ("restart", {"components": "GG"}, r"components 'GG': a letter occurs twice"),
        (
            "scenario",
            {"components": "G"},
            r"components 'G': layout scenario has its own three rule lines",
        ),
        (
            "restart",
            {"mode": "varible"},
            r"no mode 'varible'. Did you mean 'variable'\? Allowed: fixed, variable",
        ),
        (
            "restart",
            {"component": "G"},
            r"no setting 'component'. Did you mean 'components'\? Settings: components, first",
        ),
    ],
)
def test_conditions_that_are_invalid(layout: str, condition: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        machine(layout=layout).start(condition)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply(action="fold"),
            "a parser gave the action 'fold'. Give 'bet' with an amount, or 'stop'",
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
def test_contract(layout: str) -> None:
    assert isinstance(MACHINE, Part)
    check_part(MACHINE, params={"layout": layout, "first_results": ["none", "win"]})
