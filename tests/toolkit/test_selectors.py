"""Selectors: what they choose is what the words say, whatever the text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from toolkit.errors import DataError
from toolkit.samples.selectors import SPANS, At, Selector, SelectorText, selected

BOS = 0
TEXT = SelectorText(
    "s1",
    [BOS, 5, 6, 7, 5, 8, 9],
    ["", "Balance", ":", " $90", "Balance", " Bet", " $5"],
    [("balance", 1, 4), ("options", 3, 5), ("generation", 5, 7)],
)


def chosen(bos: int | None = BOS, text: SelectorText = TEXT, **words: Any) -> list[int]:
    return list(selected(Selector.model_validate(words), text, bos))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"exclude": {"bos": False}}, [0, 1, 2, 3, 4, 5, 6]),
        ({"span": "balance"}, [1, 2, 3]),
        ({"span": "balance", "take": "last"}, [3]),
        ({"span": "goal"}, []),
        ({"phase": "prompt"}, [1, 2, 3, 4]),
        ({"phase": "generation"}, [5, 6]),
        ({"phase": "generation", "take": "first"}, [5]),
        ({"positions": [1, 3]}, [1, 3]),
        ({"positions": [-1, -7, 40, -40]}, [6]),
        ({"positions": [0]}, []),
        ({"window": [2, 4]}, [2, 3]),
        ({"window": [-2, None]}, [5, 6]),
        ({"window": [None, 2]}, [1]),
        ({"window": [5, 99]}, [5, 6]),
        ({"tokens": [5]}, [1, 4]),
        ({"tokens": ["Bet", 6]}, [2, 5]),
        ({"span": "balance", "window": [2, 9]}, [2, 3]),
        ({"span": "balance", "exclude": {"span": "options"}}, [1, 2]),
        ({"exclude": {"tokens": [5], "window": [0, 3]}}, [2, 3, 4, 5, 6]),
        ({"exclude": {"tokens": [5]}, "take": "first"}, [2]),
    ],
)
def test_words_mean_what_they_say(words: dict[str, Any], expected: list[int]) -> None:
    assert chosen(**words) == expected


def test_a_blank_token_is_meant_exactly() -> None:
    text = SelectorText("s", [BOS, 5, 6, 7, 8], ["<bos>", " a", " ", "\n", ""])
    assert chosen(text=text, tokens=["\n"]) == [3]
    assert chosen(text=text, tokens=[" "]) == [2]
    assert chosen(text=text, tokens=["a "]) == [1]


def test_last_and_all() -> None:
    assert selected("last", TEXT, BOS) == (6,)
    assert selected("all", TEXT, BOS) == (1, 2, 3, 4, 5, 6)
    alone = SelectorText("s", [BOS])
    assert selected("last", alone, BOS) == selected("all", alone, BOS) == (0,)
    assert selected("all", SelectorText("s", [5, 6]), BOS) == (0, 1)
    assert selected("all", TEXT, None) == tuple(range(7))


def test_a_list_is_a_union() -> None:
    both = [Selector(take="last"), Selector(span="balance"), Selector(positions=(6,))]
    assert selected(both, TEXT, BOS) == (1, 2, 3, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"phase": "reply"}, "'prompt' or 'generation'"),
        ({"window": [4, 4]}, r"the window \[4, 4\] is empty"),
        ({"positions": []}, "at least 1 item"),
        ({"tokenz": [1]}, "Extra inputs are not permitted"),
        ({"exclude": {"take": "first"}}, "Extra inputs are not permitted"),
    ],
)
def test_words_that_mean_nothing(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Selector.model_validate(words)
    with pytest.raises(ValidationError, match="the list of selectors is empty"):
        At.model_validate({"at": []})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("frist", "{take: first}"),
        ("lst", "last"),
        ("balanc", "{span: balance}"),
        ("generated", "{phase: generation}"),
        ("xyz", ""),
    ],
)
def test_a_word_that_is_no_selector_is_told_what_may_be_meant(word: str, meant: str) -> None:
    hint = f" Did you mean `{meant}`?" if meant else ""
    expected = (
        f"must be `last`, `all`, a selector or a list of selectors, not the text '{word}'"
        f"{f'.{hint}' if hint else ''}"
    )
    with pytest.raises(ValidationError, match=re.escape(expected)):
        At.model_validate({"at": word})


@pytest.mark.parametrize("window", [[5], [5, 6, 7], 5, []])
def test_a_window_is_two_numbers(window: Any) -> None:
    expected = (
        "must be two numbers (the first position, and the first left out; null: no end), not "
        f"{window}"
    )
    with pytest.raises(ValidationError, match=re.escape(expected)):
        At.model_validate({"at": {"window": window}})


def test_a_span_of_its_own_name_must_be_there() -> None:
    with pytest.raises(DataError) as caught:
        chosen(span="balanse")
    assert str(caught.value) == (
        "sample 's1' has no span 'balanse'. Did you mean 'balance'? Its spans: balance, "
        "generation, options. Names that a sample may lack: balance, decision, goal, history, "
        "options, payout, win_rate."
    )


def test_generated_tokens_must_be_there() -> None:
    with pytest.raises(DataError, match=r"sample 's2' has no generated tokens.*with_reply: true"):
        chosen(text=SelectorText("s2", [BOS, 1]), phase="generation")
    assert chosen(text=SelectorText("s2", [BOS, 1]), phase="prompt") == [1]


def test_params_survive_json() -> None:
    selector = At.model_validate(
        {
            "at": {
                "span": "balance",
                "window": [-5, None],
                "tokens": [3, "x"],
                "exclude": {"bos": False},
            }
        }
    )
    assert At.model_validate_json(selector.model_dump_json()) == selector
    assert At.model_validate({"at": "all"}).model_dump() == {"at": "all"}


SPAN = st.tuples(st.sampled_from(SPANS), st.integers(0, 12), st.integers(1, 6)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
)
TEXTS = st.builds(
    lambda ids, spans: SelectorText(
        "s", ids, [f" t{token}" for token in ids], [span for span in spans if span[1] < len(ids)]
    ),
    st.lists(st.integers(0, 4), min_size=1, max_size=14),
    st.lists(SPAN, max_size=4),
)
WINDOW = st.tuples(st.none() | st.integers(-15, 15), st.none() | st.integers(-15, 15)).filter(
    lambda ends: None in ends or (ends[0] < 0) != (ends[1] < 0) or ends[0] < ends[1]
)
WORDS = {
    "span": st.sampled_from(SPANS),
    "positions": st.lists(st.integers(-15, 15), min_size=1, max_size=5),
    "window": WINDOW,
    "tokens": st.lists(st.integers(0, 4) | st.sampled_from(["t1", "t9"]), min_size=1, max_size=3),
}
PLACES = st.fixed_dictionaries({}, optional=WORDS)


def holds(words: dict[str, Any], text: SelectorText, at: int) -> bool:
    """The conditions, one position at a time."""
    first, last = words.get("window", (None, None))
    length = len(text.ids)
    low = 0 if first is None else first if first >= 0 else length + first
    high = length if last is None else last if last >= 0 else length + last
    inside = any(name == words.get("span") and start <= at < end for name, start, end in text.spans)
    token = text.ids[at] in words.get("tokens", ()) or f"t{text.ids[at]}" in words.get("tokens", ())
    placed = at in words.get("positions", ()) or at - length in words.get("positions", ())
    return (
        low <= at < high
        and (inside or "span" not in words)
        and (token or "tokens" not in words)
        and (placed or "positions" not in words)
    )


@given(TEXTS, PLACES, PLACES, st.booleans(), st.sampled_from(["first", "last", "all"]))
def test_a_selector_is_its_conditions_at_each_position(
    text: SelectorText, words: dict[str, Any], out: dict[str, Any], bos: bool, take: str
) -> None:
    expected = [
        index
        for index in range(len(text.ids))
        if holds(words, text, index)
        and not (out and holds(out, text, index))
        and not (bos and index == 0 and text.ids[0] == BOS and len(text.ids) > 1)
    ]
    result = chosen(text=text, **words, exclude={**out, "bos": bos}, take=take)
    assert result == {"first": expected[:1], "last": expected[-1:], "all": expected}[take]
