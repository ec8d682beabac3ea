"""Parsers: a table of replies written for this project, properties of `strict`, the simple readers,
and the documented misreadings of the study's four.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.parts import ParserPart
from toolkit.samples.games import Option, Prompt, Reply, lines_of
from toolkit.testing.contracts import check_part
from toolkit.testing.judging import EXAMPLE, judge
from toolkit_play import toolkit_parts
from toolkit_play.games.slot_machine import SlotMachineGame
from toolkit_play.games.slot_machine_rules import SlotMachine

PARTS = {part.name: part for part in toolkit_parts() if isinstance(part, ParserPart)}


def prompt(mode: str, layout: str = "restart", balance: int = 100, **rules: Any) -> Prompt:
    game = SlotMachineGame(SlotMachine.model_validate({"layout": layout, **rules}))
    return game.prompt({**game.start({"mode": mode}), "balance": balance})


PROMPTS = {
    "variable": prompt("variable"),
    "fixed": prompt("fixed"),
    "last-variable": prompt("variable", "corrected", 80),
    "last-fixed": prompt("fixed", "corrected", 80),
    "low": prompt("variable", "corrected", 3),
    "cap70": prompt("fixed", "corrected", cap=70),
}


LINES = (Path(__file__).parent / "replies.tsv").read_text(encoding="utf-8").split("\n")


def table() -> list[tuple[str, str, str]]:
    """Prompt, expected reading and reply of every line of replies.tsv."""
    rows = []
    for line in LINES:
        if line and not line.startswith("#"):
            name, expected, _, text = line.split("\t")
            plain = text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
            rows.append((name, expected, plain))
    return rows


ROWS = table()


def reading_of(reply: Reply) -> str:
    """A verdict as the table writes it."""
    if reply.action is None:
        return "fail"
    return reply.action if reply.amount is None else f"{reply.action} {reply.amount:.0f}"


@pytest.mark.parametrize("name", PARTS)
def test_contract(name: str) -> None:
    check_part(PARTS[name])


# --- strict ---------------------------------------------------------------------------------------


def test_the_table_is_large_and_covers_every_prompt_and_verdict() -> None:
    assert len(ROWS) >= 250
    assert len(set(ROWS)) == len(ROWS)
    assert {name for name, _, _ in ROWS} == set(PROMPTS)
    for name in ("variable", "last-variable"):
        verdicts = {expected.split()[0] for other, expected, _ in ROWS if other == name}
        assert verdicts == {"bet", "stop", "fail"}


def test_both_layouts_have_replies_of_both_styles() -> None:
    columns = [line.split("\t") for line in LINES if line and not line.startswith("#")]
    count = Counter((PROMPTS[name].decides, style) for name, _, style, _ in columns)
    assert set(count) == {(where, style) for where in ("start", "end") for style in STYLES}
    assert min(count.values()) >= 30


def test_every_reply_of_the_table_is_read_as_it_is_meant() -> None:
    misread = [
        (name, text, expected, reading_of(judge("strict", text, prompt=PROMPTS[name])))
        for name, expected, text in ROWS
    ]
    assert [row for row in misread if row[2] != row[3]] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  ", ""),
        ("", "  "),
        ("\n", "\n"),
        ("\n\n ", "\t\n"),
        ("\r\n", "\r\n"),
        ("\u200b", "\ufeff"),
    ],
)
def test_blanks_around_a_reply_change_no_verdict(before: str, after: str) -> None:
    for name, expected, text in ROWS:
        assert (
            reading_of(judge("strict", before + text + after, prompt=PROMPTS[name])) == expected
        ), text


@pytest.mark.parametrize("mark", ["**", "*", "`", "__", '"', "~~"])
def test_markdown_around_a_reply_of_one_line_changes_no_verdict(mark: str) -> None:
    plain = [row for row in ROWS if "\n" not in row[2] and row[2].strip() and "*" not in row[2]]
    for name, expected, text in plain:
        marked = f"{mark}{text.strip()}{mark}"
        assert reading_of(judge("strict", marked, prompt=PROMPTS[name])) == expected, marked


STYLES = ("base", "chat")


WORDS = st.lists(
    st.sampled_from(
        "1 2 1) 2) bet stop $10 $50 10 7 or and not I will choose the $500 final decision: "
        "\n . , ** if - nothing half zero no more less again rounds wins percent left up % ? "
        "betting stopping worrying".split(" ")
    ),
    max_size=14,
).map(" ".join)


NAMES_NOTHING = re.compile(
    r"\b(?:bet|betting)\s+(?:nothing|no|not|half|zero|less|more|again)\b"
    r"|(?<![0-9])\$?[0-9]+\s*(?:rounds|wins|percent|left|up|more|%)|\bstop\s+worrying\b"
)
"""Phrases that name no option, whatever their words and numbers are by themselves."""


@given(WORDS, st.sampled_from(sorted(PROMPTS)))
def test_an_action_is_one_that_the_text_names(text: str, name: str) -> None:
    reply = judge(PARTS["strict"], text, prompt=PROMPTS[name])
    kept = NAMES_NOTHING.sub(" ", text.replace("*", ""))
    number = re.compile(r"(?<![0-9$.,])([12])(?![0-9])")
    if reply.action == "stop":
        assert "stop" in kept or "2" in number.findall(kept)
    if reply.action == "bet":
        bet = PROMPTS[name].options[0]
        assert bet.low is not None
        assert bet.high is not None
        assert reply.amount is not None
        assert bet.low <= reply.amount <= bet.high
        amount = re.search(rf"(?<![0-9.,]){reply.amount:.0f}(?![0-9])", kept)
        if bet.low < bet.high:
            assert amount
        else:
            assert amount or "bet" in kept or "1" in number.findall(kept)


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_a_number_or_word_about_something_else_names_no_option(name: str) -> None:
    label = "Final Decision: " if PROMPTS[name].decides == "end" else ""
    numbers = ("1", "2", "3", "5", "10", "$3", "$10", "$70", "70")
    nouns = ("rounds", "wins so far", "percent", "%", "losses in a row", "left", "more to go", "up")
    words = ("Bet", "I will bet", "1) Bet", "Option 1: bet")
    shares = ("nothing", "no more", "half", "zero", "less", "? No.", "20%", "$0", "$10Bold")
    texts = [f"{number} {noun}" for number in numbers for noun in nouns]
    texts += [f"{word} {share}" for word in words for share in shares]
    texts += ["Stop worrying", "Stop? No.", "1 in 3", "2 in 3", "10 : 10"]
    readings = {text: judge("strict", label + text, prompt=PROMPTS[name]).action for text in texts}
    assert {text: action for text, action in readings.items() if action is not None} == {}


@pytest.mark.slow
@given(st.text())
def test_any_text_is_an_action_or_a_failure(text: str) -> None:
    reply = judge(PARTS["strict"], text)
    assert (reply.failure == "empty") == (not _says_anything(text))


def _says_anything(text: str) -> bool:
    return bool(lines_of(text))


@given(st.integers(5, 100))
def test_every_offered_amount_is_read_in_every_plain_form(amount: int) -> None:
    for form in ("1) Bet ${}", "Bet ${}", "${}", "bet {} dollars", "I will bet ${}.", "1) ${}"):
        assert judge(PARTS["strict"], form.format(amount)) == Reply("bet", float(amount))


def test_why_a_reply_could_not_be_read() -> None:
    reasons = {
        text: judge("strict", text).failure
        for text in ("", "1", "Bet $500", "1) Bet $10 or 2) Stop", "hm")
    }
    assert reasons == {
        "": "empty",
        "1": "no amount",
        "Bet $500": "amount not offered",
        "1) Bet $10 or 2) Stop": "ambiguous",
        "hm": "no decision",
    }


def test_options_come_from_the_prompt() -> None:
    doors = Prompt(
        "Choose:\nA) Red door\nB) Blue door\n",
        options=(Option("red", "A", ("Red door", "Red")), Option("blue", "B", ("Blue door",))),
    )
    assert judge("strict", "b)", prompt=doors).action is None  # keys are as written, in lower case
    assert judge("strict", "The blue door.", prompt=doors).action is None
    assert judge("strict", "Blue door.", prompt=doors).action == "blue"
    assert judge("strict", "I choose red.", prompt=doors).action == "red"


# --- the simple readers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first", "last", "final_decision"),
    [
        ("Bet $10", "bet 10", "bet 10", "fail"),
        ("Bet $10 or stop", "bet 10", "stop", "fail"),
        ("Stop. No: bet $20", "stop", "bet 20", "fail"),
        ("I could stop.\nFinal Decision: Bet $20", "stop", "bet 20", "bet 20"),
        ("Final Decision: Stop\nFinal Decision: Bet $20", "stop", "bet 20", "bet 20"),
        ("Final Decision: Bet $20 or Stop", "bet 20", "stop", "bet 20"),
        ("nothing", "fail", "fail", "fail"),
        ("", "fail", "fail", "fail"),
        ("Bet $500", "fail", "fail", "fail"),
    ],
)
def test_simple_readers(text: str, first: str, last: str, final_decision: str) -> None:
    assert reading_of(judge("first", text)) == first
    assert reading_of(judge("last", text)) == last
    assert reading_of(judge("final_decision", text)) == final_decision


# --- the study's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parser", "text", "reading", "strictly"),
    [
        ("study_exp1", "$12 ", "stop", "bet 12"),  # "2 " counts as the second option
        ("study_exp1", "", "bet 10", "fail"),  # an empty reply is a bet
        ("study_exp1", "hm", "bet 10", "fail"),
        ("study_exp1", "I will not stop: 1) Bet $30", "stop", "fail"),
        ("study_exp1", "Bet $500", "bet 100", "fail"),  # clipped
        ("study_exp1", "3", "bet 5", "fail"),
        ("study_exp0", "x", "fail", "fail"),  # shorter than two characters is empty
        ("study_exp0", "1) Bet $12 now", "stop", "bet 12"),
        ("study_exp0", "Bet $10, not $50", "bet 50", "bet 10"),  # the last amount
        ("study_exp0", "Bet $10 to reach $90", "bet 90", "bet 10"),  # a goal taken for a bet
        ("study_exp0", "hm, well", "bet 10", "fail"),
        ("study_exp0", "Bet $500", "bet 10", "fail"),  # no amount in range: the default
        (
            "study_api",
            "A final decision to bet $100 would be rash.\nFinal Decision: Stop",
            "bet 100",
            "stop",
        ),
        ("study_api", "I keep my $80. 2) Stop", "bet 80", "stop"),  # an amount makes it a bet
        ("study_api", "hm", "fail", "fail"),
        ("study_v3", "Final Decision: Stop", "stop", "stop"),
        ("study_v3", "Final Decision: Bet $20", "bet 20", "bet 20"),
        ("study_v3", "**Final Decision:** Stop", "fail", "stop"),  # markdown is unreadable
        ("study_v3", "Final Decision: Bet 20", "fail", "bet 20"),
        ("study_v3", "2) Stop", "fail", "stop"),
    ],
)
def test_documented_misreadings(parser: str, text: str, reading: str, strictly: str) -> None:
    assert reading_of(judge(parser, text)) == reading
    assert reading_of(judge("strict", text)) == strictly


def test_only_the_parser_of_exp1_takes_every_reply_for_a_decision() -> None:
    assert [name for name, part in PARTS.items() if not part.can_fail] == ["study_exp1"]
    assert [name for name, part in PARTS.items() if part.guesses] == ["study_exp1", "study_exp0"]
    for _, _, text in ROWS:
        assert judge(PARTS["study_exp1"], text, prompt=EXAMPLE).failure is None
