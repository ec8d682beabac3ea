"""Describes features by words: tokens that they promote, and words of replies that go with them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, ReportSection, StagePart, Steps

from . import contexts, costs, labels, promoted, section
from .reference import section as references
from .reference import stage as reference
from .replies import stage as replies
from .replies.params import ReplyWords


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield from _descriptions()
    yield _cross_reference()
    yield from _sections()


def _descriptions() -> Iterator[Part]:
    """Stages that describe features, each from another side."""
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
        help="The words of replies associated with each feature, confirmed on the other half.",
        params=ReplyWords,
        run=replies.reply_words,
        estimates=Estimates(cost=costs.replies),
        summary=replies.summary,
        reads=("samples", "sample_meta", "activations", "spaces"),
        writes=("feature_words", "feature_contexts"),
    )
    yield StagePart(
        name="words.contexts",
        help="Where each described feature fires most strongly: the token and the text around it.",
        params=contexts.FeatureContexts,
        run=contexts.feature_contexts,
        estimates=Estimates(cost=costs.contexts),
        reads=("samples", "activations"),
        optional=contexts.DESCRIBED_BY,
        writes=("feature_contexts",),
    )
    yield StagePart(
        name="words.labels",
        help="Labels of features from files in Neuronpedia's bulk format.",
        params=labels.FeatureLabels,
        run=labels.feature_labels,
        identify=labels.identify,
        estimates=Estimates(cost=costs.labels),
        summary=labels.summary,
        reads=("spaces",),
        writes=("features",),
    )


def _cross_reference() -> Part:
    return StagePart(
        name="words.cross_reference",
        help="Whether a feature's label, words, tokens, effects, spans and attention agree.",
        params=reference.CrossReference,
        version="2",
        run=reference.cross_reference,
        estimates=Estimates(cost=costs.cross_reference),
        reads=("spaces", "samples"),
        optional=(
            "features",
            "feature_words",
            "promoted_tokens",
            "verdicts",
            "activations",
            "attention",
        ),
        writes=("cross_references",),
    )


def _sections() -> Iterator[Part]:
    yield ReportSection(
        name="feature-words",
        title="Words associated with features",
        help="Words of replies where a feature is high, found on one half and confirmed "
        "on the other.",
        reads=("feature_words", "spaces", "feature_contexts"),
        run=section.word_figures,
        findings=section.word_findings,
        order=32,
    )
    yield ReportSection(
        name="promoted-tokens",
        title="Tokens that features promote",
        help="Tokens that decoder rows promote and suppress, on the direct path to the logits, and "
        "where those features fire most strongly.",
        reads=("promoted_tokens", "spaces", "feature_words", "feature_contexts"),
        run=section.token_figures,
        order=33,
    )
    yield ReportSection(
        name="cross-reference",
        title="Do the descriptions agree?",
        help="Labels, words, tokens, effects, spans and attention, compared with shuffles.",
        reads=("cross_references", "spaces"),
        run=references.reference_figures,
        findings=references.reference_findings,
        order=34,
    )
