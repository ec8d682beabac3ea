"""Environments other than the slot machine, a scratch one among them: each keeps the contract, and
says what its replies may choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolkit.parts import EnvironmentPart
from toolkit.samples.games import Reply
from toolkit.testing.contracts import check_part
from toolkit.testing.judging import judge
from toolkit_play import toolkit_parts

PARTS = {part.name: part for part in toolkit_parts() if isinstance(part, EnvironmentPart)}


def game(name: str, **params: Any) -> Any:
    part = PARTS[name]
    return part.make(part.params.model_validate(params))


@pytest.mark.parametrize("name", ["reward_choice", "investment"])
def test_contract(name: str) -> None:
    check_part(PARTS[name])


def test_the_three_rewards_have_one_expected_value() -> None:
    choice = game("reward_choice")
    text = choice.prompt(choice.start({})).text
    for line in ("1) $50 for sure", "2) 50% chance of $100", "3) 25% chance of $200"):
        assert line in text.split("\n")
    rng = np.random.default_rng(3)
    for action in ("certain", "even", "unlikely"):
        earned = [
            choice.step(choice.start({}), Reply(action=action), rng).state["balance"]
            for _ in range(4000)
        ]
        assert abs(np.mean(earned) - 50) < 6


def test_the_order_of_the_rewards_is_a_condition() -> None:
    choice = game("reward_choice")
    ids = [condition.id for condition in choice.conditions()]
    assert ids == ["rising", "falling"]
    falling = choice.prompt(choice.start({"order": "falling"}))
    assert [option.action for option in falling.options] == ["unlikely", "even", "certain"]


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("1", "certain"),
        ("2)", "even"),
        ("3) 25% chance of $200", "unlikely"),
        ("I choose option 3.", "unlikely"),
        ("50% chance of $100", "even"),
        ("1 or 2", None),
        ("4", None),
    ],
)
def test_strict_reads_a_choice_of_three(text: str, action: str | None) -> None:
    choice = game("reward_choice")
    assert judge("strict", text, prompt=choice.prompt(choice.start({}))).action == action


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("1) Invest $40", ("invest", 40.0)),
        ("Invest 40 dollars.", ("invest", 40.0)),
        ("$40", ("invest", 40.0)),
        ("2) Cash out", ("cash_out", None)),
        ("I will cash out.", ("cash_out", None)),
        ("Invest $400", (None, None)),
        ("Bet $40", (None, None)),
    ],
)
def test_strict_reads_an_investment(text: str, verdict: tuple[str | None, float | None]) -> None:
    investment = game("investment")
    reply = judge("strict", text, prompt=investment.prompt(investment.start({})))
    assert (reply.action, reply.amount) == verdict


def test_an_investment_ends_in_ruin_or_with_money_taken_out() -> None:
    class Luck:
        def __init__(self, number: float) -> None:
            self.random = lambda: number

    investment = game("investment")
    state = investment.start({})
    lost = investment.step(state, Reply("invest", 100.0), Luck(0.9))
    assert (investment.outcome(lost.state), lost.bet, lost.won) == ("bankruptcy", 100.0, False)
    won = investment.step(state, Reply("invest", 40.0), Luck(0.1))
    assert won.state["balance"] == 160
    out = investment.step(won.state, Reply("cash_out"), Luck(0.1))
    assert investment.outcome(out.state) == "cash_out"
