"""Upper bounds of the cost of the word stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.costs import ENTRY, Cost
from toolkit.costs import ROW as ACTIVATION_ROW

if TYPE_CHECKING:
    from toolkit.costs import Workload

    from .contexts import FeatureContexts
    from .labels import FeatureLabels
    from .promoted import PromotedTokens
    from .reference.stage import CrossReference
    from .replies.params import ReplyWords

NUMBER = 4
TILES = 1 << 25
"""Numbers per tile of the product."""
PIECE = 10
"""Bytes of the text of a token in a row."""
ROW = 60
"""Bytes of a row besides its lists: space, feature and method."""


def promoted(params: PromotedTokens, load: Workload) -> Cost:
    """One product of all decoder rows and the (un)embedding for each method."""
    width, vocabulary = load.model.get("width", 0), load.model.get("vocabulary", 0)
    features = len(params.features) or load.saes.get("features", 0)
    rows = features * len(params.methods)
    listed_bytes = 2 * params.top * (2 * NUMBER + PIECE)
    return Cost(
        flops=2.0 * rows * width * vocabulary,
        read=int(load.model.get("bytes", 0) + load.saes.get("bytes", 0)),
        memory=int(
            load.model.get("bytes", 0)
            + load.saes.get("bytes", 0) / max(1, load.saes.get("count", 1))
            + NUMBER * 2 * width * vocabulary
            + NUMBER * 3 * TILES
            + min(features, params.step) * (listed_bytes * 8 + ROW)
        ),
        disk=rows * (listed_bytes + ROW),
        exact=False,
    )


WORDS_TESTED = 2000
"""The assumed number of words that enough replies have."""
PAIR = 64
"""Bytes of a pair of a feature and a word while it is tested."""
BLOCK_PAIRS = 4_000_000
SAMPLE = 2000
"""Bytes of a sample and its words as Python objects."""
WORD_ROW = 120


def replies(params: ReplyWords, load: Workload) -> Cost:
    """A sparse product of clusters by features and clusters by words for each space."""
    features = min(load.saes.get("features", 0), load.entries)
    pairs = features * WORDS_TESTED
    rows = features * params.top * (2 + params.tf_idf)
    return Cost(
        flops=2.0 * load.entries * WORDS_TESTED + 40.0 * pairs,
        read=int(load.rows * ACTIVATION_ROW + load.entries * ENTRY),
        memory=int(
            load.samples * SAMPLE
            + (load.rows * ACTIVATION_ROW + 8 * load.entries * ENTRY)
            + min(pairs, BLOCK_PAIRS) * PAIR
            + pairs * params.alpha * PAIR / 2
        ),
        disk=rows * WORD_ROW,
        exact=False,
    )


CONTEXT = 260
"""Bytes of a context: some forty tokens of text."""
BLOCK_CONTEXTS = 4096
"""Features whose contexts are in memory at once."""


def contexts(params: FeatureContexts, load: Workload) -> Cost:
    """The entries of one space at a time, sorted."""
    count = max(1, load.saes.get("count", 1))
    features = min(load.saes.get("features", 0), load.entries)
    rows = min(features * params.top, load.entries)
    return Cost(
        flops=0.0,
        read=int(load.rows * ACTIVATION_ROW + load.entries * ENTRY),
        memory=int(
            load.samples * SAMPLE
            + (load.rows * ACTIVATION_ROW + 8 * load.entries * ENTRY) / count
            + min(rows, BLOCK_CONTEXTS * params.top) * CONTEXT * 8
        ),
        disk=int(rows * CONTEXT),
        exact=False,
    )


LABEL = 120
"""Bytes of a label in a row, and its key."""


def labels(params: FeatureLabels, load: Workload) -> Cost:
    """One row per label, if every feature has a label."""
    features = 0 if params.path is None else load.saes.get("features", 0)
    return Cost(
        flops=0.0,
        read=features * LABEL,
        memory=features * LABEL * 8,
        disk=features * LABEL,
        exact=False,
    )


DESCRIPTION = 1500
"""Bytes of the descriptions of a feature as Python objects."""
REFERENCE_ROW = 90
RELATIONS, SPANS = 3, 8
"""Pairs of descriptions, and the assumed number of spans of a prompt."""


def cross_reference(params: CrossReference, load: Workload) -> Cost:
    """Comparisons of the descriptions of a space, and shuffles of the entries in spans."""
    count = max(1, load.saes.get("count", 1))
    features = load.saes.get("features", 0)
    described = min(features, count * params.max_features)
    spans = len(params.spans) if params.spans is not None else SPANS
    entries = load.entries * (described / features if features else 0.0)
    shuffled = params.permutations * (RELATIONS * features * 10.0 + spans * entries * 10.0)
    return Cost(
        flops=RELATIONS * 20.0 * features**2 / count + shuffled,
        read=int(load.rows * ACTIVATION_ROW + load.entries * ENTRY),
        memory=int(
            features * DESCRIPTION
            + load.samples * SAMPLE
            + (load.rows * ACTIVATION_ROW + 6 * load.entries * ENTRY) / count
        ),
        disk=(RELATIONS * features + spans * 2 * described) * REFERENCE_ROW,
        exact=False,
    )
