"""Text to tokens and back: exactly one BOS where the model has one, and chat templates."""

from __future__ import annotations

from typing import Any

from toolkit.errors import BadInput
from toolkit.models import Encoded

MARK = "THE-USERS-TEXT"
"""Rendered in place of a text, to find where a chat template puts it."""


def bos_of(tokeniser: Any) -> str | None:
    """The token that begins every text, or None. A token that also ends texts and that the
    tokeniser does not add by itself does not count.
    """
    bos = tokeniser.bos_token
    if not bos or (
        bos == tokeniser.eos_token and tokeniser("")["input_ids"][:1] != [tokeniser.bos_token_id]
    ):
        return None
    return str(bos)


def encode(tokeniser: Any, text: str, *, chat: bool, model: str) -> Encoded:
    """Token ids with exactly one BOS, whether the template, the tokeniser or the text itself adds
    it.
    """
    rendered, shift = _chat(tokeniser, text, model) if chat else (text, 0)
    bos = bos_of(tokeniser)
    begun = bos is not None and rendered.startswith(bos)
    encoding = tokeniser(
        rendered, add_special_tokens=not (chat or begun), return_offsets_mapping=True
    )
    ids, offsets = list(encoding["input_ids"]), [tuple(pair) for pair in encoding["offset_mapping"]]
    if bos and ids[:1] != [tokeniser.bos_token_id]:
        ids, offsets = [tokeniser.bos_token_id, *ids], [(0, 0), *offsets]
    return Encoded(rendered, tuple(ids), tuple(offsets), shift)


def _chat(tokeniser: Any, text: str, model: str) -> tuple[str, int]:
    """The rendered turn, and where the text begins in it: after the header, even if the header
    contains the same words.
    """
    if not tokeniser.chat_template:
        raise BadInput(f"{model} has no chat template: it is not a chat model. Leave `chat` out.")
    rendered, start = _turns(tokeniser, text), _turns(tokeniser, MARK).find(MARK)
    if rendered.startswith(text, start):
        return rendered, start
    if rendered.startswith(text.strip(), start):
        return rendered, start - (len(text) - len(text.lstrip()))
    return rendered, max(rendered.find(text), 0)


def _turns(tokeniser: Any, text: str) -> str:
    turns = [{"role": "user", "content": text}]
    return str(tokeniser.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def end_ids(module: Any, tokeniser: Any) -> tuple[int, ...]:
    """Tokens that end a reply."""
    end = getattr(module.generation_config, "eos_token_id", None)
    ids = [*(end if isinstance(end, list) else [end]), tokeniser.eos_token_id]
    return tuple(dict.fromkeys(int(token) for token in ids if token is not None))
