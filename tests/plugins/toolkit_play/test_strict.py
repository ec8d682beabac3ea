"""The strict parser: what it takes, and everything near it that it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.testing.contracts import check_part
from toolkit.work import Reply
from toolkit_play import toolkit_parts
from toolkit_play._strict import Strict, make

PART = next(part for part in toolkit_parts() if part.name == "strict")
CHOICE, FINAL = (make(Strict.model_validate({"line": line})) for line in ("choice", "final"))
BET_10, STOP = Reply(action="bet", amount=10), Reply(action="stop")
NO, EMPTY = Reply(failure="no decision"), Reply(failure="empty")


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("1) Bet $10", BET_10),
        ("1) Bet $10\n", BET_10),
        ("\n \n  1) Bet $10 \r\n", BET_10),
        ("1) Bet $10\n2) Stop", BET_10),
        ("1) Bet $010", BET_10),
        ("1) Bet $500", Reply(action="bet", amount=500)),
        ("2) Stop", STOP),
        ("2) Stop\nbecause $10 is enough", STOP),
        ("", EMPTY),
        (" \n\t\r\n", EMPTY),
        ("$12 2) Stop", NO),
        ("1) Bet $10 or 2) Stop", NO),
        ("1) Bet $10.", NO),
        ("1) Bet $10.50", NO),
        ("1) Bet $1,000", NO),
        ("1) Bet $-5", NO),
        ("1) Bet -$5", NO),
        ("1) Bet $0", NO),
        ("1) Bet $", NO),
        ("1) Bet", NO),
        ("1) Bet 10", NO),
        ("1) Bet $10 $20", NO),
        ("1) Bet (choose $5-$100)", NO),
        ("1) bet $10", NO),
        ("1)  Bet $10", NO),
        ("1)", NO),
        ("2)", NO),
        ("2", NO),
        ("2) Stop playing", NO),
        ("2) Stop.", NO),
        ("stop", NO),
        ("STOP", NO),
        ("I will not stop", NO),
        ("I choose:\n2) Stop", NO),
        ("Choice: 2) Stop", NO),
        ("Final Decision: Stop", NO),
        ("\u0661) Bet $10", NO),
        ("1) Bet $\u0661\u0660", NO),
        ("1) Bet $" + "9" * 400, NO),
        ("1) Bet $10\u20282) Stop", NO),
    ],
)
def test_the_first_line_decides(text: str, reply: Reply) -> None:
    assert CHOICE(text) == reply


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("Final Decision: Bet $10", BET_10),
        ("\nThis is my first choice.\nFinal Decision: Bet $10\n", BET_10),
        ("The losses keep coming.\nFinal Decision: Stop", STOP),
        ("Final Decision: Bet $100\nNo, wait.\nFinal Decision: Stop", STOP),
        (" \n", EMPTY),
        ("Final Decision: Stop\nGood luck!", NO),
        ("Final Decision: Bet $100 would be rash", NO),
        ("Final Decision: <Bet $10 or Stop>", NO),
        ("Final Decision: Stop playing", NO),
        ("Final Decision: Bet $0", NO),
        ("final decision: stop", NO),
        ("**Final Decision: Stop**", NO),
        ("1) Bet $10", NO),
        ("2) Stop", NO),
    ],
)
def test_the_last_line_decides(text: str, reply: Reply) -> None:
    assert FINAL(text) == reply


@given(st.text())
def test_any_text_is_an_action_or_a_failure(text: str) -> None:
    for parse in (CHOICE, FINAL):
        reply = parse(text)
        assert reply.failure in (None, "empty", "no decision")
        assert (reply.failure == "empty") == (not text.strip())


@given(st.integers(1, 10**15 - 1))
def test_every_whole_amount_is_read(amount: int) -> None:
    assert (
        CHOICE(f"1) Bet ${amount}").amount
        == FINAL(f"Final Decision: Bet ${amount}").amount
        == amount
    )


@pytest.mark.parametrize("line", ["choice", "final"])
def test_contract(line: str) -> None:
    check_part(PART, params={"line": line})
