"""What the stages of words ask for at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.costs import Cost

if TYPE_CHECKING:
    from toolkit.costs import Workload

    from .promoted import PromotedTokens

NUMBER = 4
TILES = 1 << 25
"""Numbers of a tile of the product."""
PIECE = 10
"""Bytes of the text of a token in a row."""
ROW = 60
"""Bytes of a row beside its lists: space, feature and method."""


def promoted(params: PromotedTokens, load: Workload) -> Cost:
    """One product of all decoder rows and the (un)embedding for each method."""
    width, vocabulary = load.model.get("width", 0), load.model.get("vocabulary", 0)
    features = len(params.features) or load.saes.get("features", 0)
    rows = features * len(params.methods)
    kept = 2 * params.top * (2 * NUMBER + PIECE)
    return Cost(
        flops=2.0 * rows * width * vocabulary,
        read=int(load.model.get("bytes", 0) + load.saes.get("bytes", 0)),
        memory=int(
            load.model.get("bytes", 0)
            + load.saes.get("bytes", 0) / max(1, load.saes.get("count", 1))
            + NUMBER * 2 * width * vocabulary
            + NUMBER * 3 * TILES
            + min(features, params.step) * (kept * 8 + ROW)
        ),
        disk=rows * (kept + ROW),
        exact=False,
    )
