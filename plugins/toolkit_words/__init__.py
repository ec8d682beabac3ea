"""What features say in words: tokens that they promote, and words of replies that go with them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, StagePart, Steps

from . import costs, promoted
from .replies import stage as replies


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield StagePart(
        name="words.tokens",
        help="The tokens that each feature's decoder row promotes and suppresses.",
        params=promoted.PromotedTokens,
        run=promoted.promoted_tokens,
        steps=Steps(size="step", features=promoted.feature_count),
        estimates=Estimates(cost=costs.promoted),
        optional=("activations",),
        writes=("promoted_tokens", "spaces"),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="words.replies",
        help="The words of replies that go with each feature, confirmed on the other half.",
        params=replies.ReplyWords,
        run=replies.reply_words,
        estimates=Estimates(cost=costs.replies),
        summary=replies.summary,
        reads=("samples", "activations", "spaces"),
        writes=("feature_words", "feature_contexts"),
    )
