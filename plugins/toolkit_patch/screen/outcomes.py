"""Outcomes as exact probabilities of the next token. An outcome is a set of tokens; all other
tokens are `other`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import BadInput

if TYPE_CHECKING:
    from toolkit.models import Model
    from toolkit.models.readout import Readout
    from toolkit.statistics.arrays import Floats


OTHER = "other"


@dataclass(frozen=True)
class Outcomes:
    """Names of the outcomes, `other` last, and the tokens of each but `other`."""

    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def listed(self) -> list[int]:
        """All tokens of all outcomes."""
        return [token for tokens in self.tokens for token in tokens]

    def probabilities(self, readout: Readout) -> Floats:
        """(rows, outcomes), from a readout of the listed tokens."""
        import numpy as np

        token_probabilities = readout.probabilities().cpu().numpy()
        bounds = np.cumsum([0, *(len(tokens) for tokens in self.tokens)])
        sums = [
            token_probabilities[:, start:stop].sum(axis=1)
            for start, stop in itertools.pairwise(bounds)
        ]
        return np.stack([*sums, 1 - np.sum(sums, axis=0)], axis=1)


def read_outcomes(
    model: Model, outcomes: Mapping[str, Sequence[str]], prompt: str, ids: Sequence[int]
) -> Outcomes:
    """The outcomes, each by the first tokens of its continuations after this prompt."""
    sets = token_sets(model, outcomes, prompt, ids)
    return Outcomes((*sets, OTHER), tuple(tuple(tokens) for tokens in sets.values()))


def token_sets(
    model: Model, outcomes: Mapping[str, Sequence[str]], prompt: str, ids: Sequence[int]
) -> dict[str, list[int]]:
    """The first token of each continuation, as the tokeniser makes it after this prompt. Sets that
    share one are an error.
    """
    outcome_of_token: dict[int, str] = {}
    for name, continuations in outcomes.items():
        for text in continuations:
            token = _first_token(model, prompt, ids, text)
            if outcome_of_token.setdefault(token, name) != name:
                raise BadInput(
                    f"outcomes: '{name}' ({text!r}) and '{outcome_of_token[token]}' begin "
                    "with the same token, so the next token does not tell them apart. Give "
                    "continuations that differ from their first token on."
                )
    return {
        name: sorted(token for token, outcome in outcome_of_token.items() if outcome == name)
        for name in outcomes
    }


def _first_token(model: Model, prompt: str, ids: Sequence[int], text: str) -> int:
    joined = model.encode(prompt + text).ids
    if list(joined[: len(ids)]) == list(ids) and len(joined) > len(ids):
        return int(joined[len(ids)])
    tokens = [token for token in model.encode(text).ids if token != model.bos_id]
    if not tokens:
        raise BadInput(f"outcomes: the continuation {text!r} has no tokens.")
    return int(tokens[0])
