"""Correlations between features of different layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.work import Work
from toolkit_stats.pathway.spaces import (
    PathwaySpace,
    layer_number,
)
from toolkit_stats.samples.labelled import Labelled

if TYPE_CHECKING:
    from toolkit_stats.math.correlate import Columns

SPACES_IN_MEMORY = 4
"""Spaces whose scaled features are in memory at a time."""


def link_rows(
    work: Work, data: Labelled, spaces: Sequence[PathwaySpace], withheld: str | None
) -> Iterator[dict[str, Any]]:
    """The strongest correlations between features of different layers, over clusters."""
    from toolkit_stats.math.correlate import Strongest, columns, interval, means

    params, strongest = work.params, Strongest(work.params.keep)
    space_pairs = _pairs(spaces, params.links)
    scaled: dict[str, Columns] = {}
    features: dict[str, Any] = {}
    for number, pair in enumerate(space_pairs):
        for space in pair:
            if space.id not in scaled:
                while (
                    len(scaled) >= SPACES_IN_MEMORY
                ):  # drop the oldest space that is not in this pair
                    del scaled[next(id for id in scaled if id not in (pair[0].id, pair[1].id))]
                observed = means(space.fired.matrix, data.cluster)
                scaled[space.id] = columns(
                    observed, space.fired.features, params.method, params.min_count
                )
                features[space.id] = scaled[space.id].features
        strongest.add(number, scaled[pair[0].id], scaled[pair[1].id])
        work.report.progress(number + 1, len(space_pairs))
    observations = int(data.cluster.max()) + 1
    pairs, p, q = strongest.strongest(observations, max(strongest.tested, 1))
    low, high = interval(pairs.r, observations, params.method)
    method = f"{params.method} over {observations} clusters; " + (
        withheld or f"bh over {strongest.tested} pairs"
    )
    for index in range(len(pairs.r)):
        a, b = space_pairs[int(pairs.spaces[index])]
        yield {
            "space": a.id,
            "feature": int(features[a.id][pairs.first[index]]),
            "other_space": b.id,
            "other_feature": int(features[b.id][pairs.second[index]]),
            "r": float(pairs.r[index]),
            "low": float(low[index]),
            "high": float(high[index]),
            "p": None if withheld else float(p[index]),
            "q": None if withheld else float(q[index]),
            "units": observations,
            "text": method,
        }


def _pairs(spaces: Sequence[PathwaySpace], which: str) -> list[tuple[PathwaySpace, PathwaySpace]]:
    """Pairs of spaces of different layers, the lower first; `adjacent`: of a layer and the next one
    that there is.
    """
    layers = sorted({layer_number(space.facts) for space in spaces})
    following = dict(itertools.pairwise(layers))
    return [
        (a, b)
        for a in spaces
        for b in spaces
        if (
            layer_number(a.facts) < layer_number(b.facts)
            if which == "all"
            else following.get(layer_number(a.facts)) == layer_number(b.facts)
        )
    ]
