"""Outcomes as exact probabilities of the next token, where an outcome is a set of tokens; what no
set holds is `other`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.errors import BadInput
from toolkit.models import Model

if TYPE_CHECKING:
    from torch import Tensor

OTHER = "other"


def token_sets(
    model: Model, outcomes: Mapping[str, Sequence[str]], prompt: str, ids: Sequence[int]
) -> dict[str, list[int]]:
    """The first token of each continuation, as the tokeniser makes it behind this prompt. Sets that
    share one are an error.
    """
    owner: dict[int, str] = {}
    for name, continuations in outcomes.items():
        for text in continuations:
            token = _first_token(model, prompt, ids, text)
            if owner.setdefault(token, name) != name:
                raise BadInput(
                    f"outcomes: '{name}' ({text!r}) and '{owner[token]}' begin with the same "
                    "token, so the next token does not tell them apart. Give continuations that "
                    "differ from their first token on."
                )
    return {
        name: sorted(token for token, whose in owner.items() if whose == name) for name in outcomes
    }


def _first_token(model: Model, prompt: str, ids: Sequence[int], text: str) -> int:
    together = model.encode(prompt + text).ids
    if list(together[: len(ids)]) == list(ids) and len(together) > len(ids):
        return int(together[len(ids)])
    alone = [token for token in model.encode(text).ids if token != model.bos_id]
    if not alone:
        raise BadInput(f"outcomes: the continuation {text!r} has no tokens.")
    return int(alone[0])


def outcome_matrix(sets: Mapping[str, Sequence[int]], vocabulary: int) -> Tensor:
    """(vocabulary, outcomes + other): 1 where a token belongs to an outcome."""
    import torch

    matrix = torch.zeros(vocabulary, len(sets) + 1, dtype=torch.float64)
    for column, tokens in enumerate(sets.values()):
        matrix[list(tokens), column] = 1.0
    matrix[:, -1] = 1.0 - matrix[:, :-1].sum(dim=1)
    return matrix
