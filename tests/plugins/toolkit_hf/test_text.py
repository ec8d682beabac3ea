"""Text to tokens: one BOS, spans, chat templates, and texts that do not fit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import BadInput, DataError

LLAMA_LIKE = (
    "{{ bos_token }}<|user|>\nThe user said: {{ messages[0]['content'] | trim }}<|turn|>\n"
    "{% if add_generation_prompt %}<|assistant|>\nThe user{% endif %}"
)


def templated(model: Any, template: str) -> Any:
    """The model with another chat template."""
    other = copy.copy(model)
    other._tokeniser = copy.deepcopy(model._tokeniser)
    other._tokeniser.chat_template = template
    return other


def spanned(model: Any, text: str, start: int, end: int) -> str:
    """The pieces of a chat's tokens that a span of the text covers."""
    tokens = model.tokenise(text, chat=True, spans=[("it", start, end)])
    ((name, first, last),) = tokens.spans
    assert name == "it"
    return "".join(tokens.pieces[first:last])


# --- BOS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["the balance is low", "", " ", "{bos}the balance is low", "{bos}"]
)
def test_there_is_exactly_one_bos(each: Any, text: str) -> None:
    ids = each.model.encode(text.replace("{bos}", each.tokeniser.bos_token)).ids
    assert ids[0] == each.tokeniser.bos_token_id
    assert ids.count(each.tokeniser.bos_token_id) == 1
    assert each.model.bos_id == each.tokeniser.bos_token_id


def test_there_is_exactly_one_bos_in_chat(lab: Any) -> None:
    ids = lab.model.encode("Choose now.", chat=True).ids
    assert ids[0] == lab.model.bos_id
    assert ids.count(lab.model.bos_id) == 1
    turns = [{"role": "user", "content": "Choose now."}]
    assert list(ids) == lab.tokeniser.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False
    )


def test_a_template_without_bos_gets_one(lab: Any) -> None:
    model = templated(lab.model, LLAMA_LIKE.removeprefix("{{ bos_token }}"))
    encoded = model.encode("Choose now.", chat=True)
    assert encoded.ids[0] == lab.model.bos_id
    assert encoded.ids.count(lab.model.bos_id) == 1
    assert encoded.offsets[0] == (0, 0)
    assert spanned(model, "Choose now.", 0, 6) == "Choose"


def test_ids_are_those_of_the_tokeniser(each: Any) -> None:
    text = "the balance is low"
    bare = each.tokeniser(text, add_special_tokens=False)["input_ids"]
    assert list(each.model.encode(text).ids) == [each.model.bos_id, *bare]
    assert each.model.decode(each.model.encode(text).ids) == text


def test_the_ends_of_replies_are_known(each: Any) -> None:
    assert each.model.end_ids == (each.tokeniser.eos_token_id,)


# --- pieces and spans -----------------------------------------------------------------------------


@given(text=st.text(alphabet=st.sampled_from("abc the 123 .,\n$"), max_size=60))
def test_pieces_of_a_plain_text_are_the_text(lab: Any, text: str) -> None:
    tokens = lab.model.tokenise(text)
    assert "".join(tokens.pieces) == text
    assert len(tokens.pieces) == len(tokens.ids)
    assert tokens.pieces[0] == ""


def test_a_span_takes_every_token_that_it_touches(small: Any) -> None:
    text = "the losing streak"
    spans = [
        ("word", 4, 10),
        ("part", 5, 7),
        ("two", 9, 12),
        ("none", 40, 50),
        ("all", 0, len(text)),
    ]
    tokens = small.model.tokenise(text, spans=spans)
    results = {
        name: [piece.strip() for piece in tokens.pieces[first:last]]
        for name, first, last in tokens.spans
    }
    assert results == {
        "word": ["losing"],
        "part": ["losing"],
        "two": ["losing", "streak"],
        "all": ["the", "losing", "streak"],
    }


@pytest.mark.parametrize("text", ["user", "assistant", "Choose now, user.", "", "s"])
def test_a_span_of_a_chat_lies_in_the_users_text(lab: Any, text: str) -> None:
    """The header holds the words `user` and `assistant`, too."""
    encoded = lab.model.encode(text, chat=True)
    assert encoded.text[: encoded.shift] == "<|begin|><|user|>\n"
    assert encoded.text.startswith(text, encoded.shift)
    if text:
        assert text in spanned(lab.model, text, 0, len(text))


@pytest.mark.parametrize(
    ("text", "start"), [("user stops", 0), ("  user stops \n", 2), ("\nuser stops", 1)]
)
def test_a_template_may_strip_the_text(lab: Any, text: str, start: int) -> None:
    model = templated(lab.model, LLAMA_LIKE)
    assert spanned(model, text, start, start + 4).strip() == "user"
    encoded = model.encode(text, chat=True)
    assert encoded.text[encoded.shift + start :].startswith("user stops<|turn|>")


def test_a_template_that_rewrites_the_text(lab: Any) -> None:
    model = templated(lab.model, "{{ bos_token }}{{ messages[0]['content'] | upper }}")
    assert model.encode("now", chat=True).text == "<|begin|>NOW"
    assert model.encode("now", chat=True).shift == 0


# --- what cannot be read --------------------------------------------------------------------------


def test_chat_without_a_template(small: Any) -> None:
    with pytest.raises(
        BadInput, match=r"model has no chat template: it is not a chat model\. Leave `chat` out\."
    ):
        small.model.encode("the", chat=True)


def test_a_text_over_the_context_is_named(small: Any) -> None:
    message = (
        r"has 2101 tokens; .*model reads at most 2048\. Shorten the text, or leave the "
        r"sample out: truncating it would change"
    )
    with pytest.raises(DataError, match=f"^sample 's7' {message}"):
        small.model.tokenise("the " * 2099 + "the", name="s7")
    with pytest.raises(DataError, match=rf"^the text '(the ){{10}}\.\.\.' {message}"):
        small.model.tokenise("the " * 2099 + "the")


def test_a_text_as_long_as_the_context_is_read(small: Any) -> None:
    assert len(small.model.tokenise("the " * 2046 + "the").ids) == 2048
