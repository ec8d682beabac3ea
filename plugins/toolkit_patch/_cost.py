"""What a causal screen costs at most: all candidates that were asked for, and every edit through
all blocks above the lowest SAE.
"""

from __future__ import annotations

from toolkit.costs import ROW, Cost, Workload, head_flops, key_bytes, token_bytes, token_flops

from ._params import Delta

ARMS = 6
"""Edits of a candidate beside the random ones: the sham, either value in the stream and in its
reconstruction, and that itself.
"""
WRITTEN = 7
"""Arms with a row for each point: those, and the unedited one."""
SUMMED = 9
"""Rows over all points for each candidate and outcome: those arms, what is specific, and the random
ones.
"""
CHANCES = 40
"""Bytes of a token's probability after an edit: logits and, in float64, their logarithms,
themselves and the divergence.
"""
STATS = 120
"""Bytes of a row of `features` while it is read into Python's own objects, and how many rows a
feature has.
"""
ROWS_READ = 20


def screening(params: Delta, load: Workload) -> Cost:
    """A pass a point, whose keys are kept; from it every edit goes up by its last token alone."""
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean = load.tokens / load.distinct if load.distinct else 0
    edits = params.top * (ARMS + 2 * params.random)
    layers = model.get("layers", 1)
    above = layers - 1 - min(saes.get("layers", None) or [0])
    share = min(1.0, params.top / max(1, saes.get("count", 1)))
    prefix = mean * token_flops(model, mean)
    suffix = edits * token_flops(model, 2 * mean, above)
    readers = 2 * share * saes.get("row_flops", 0.0)
    logits = (edits + 1) * head_flops(model)
    states = edits * (model.get("width", 0) * 8 + model.get("vocabulary", 0) * CHANCES)
    known = saes.get("features", 0) * ROWS_READ * STATS
    point = load.longest * (token_bytes(model, layers) + key_bytes(model))
    return Cost(
        forwards=prompts + 1,
        flops=prompts * (prefix + suffix + readers + logits) + prefix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + saes.get("bytes", 0) + point + states + known),
        disk=params.top * (len(params.outcomes) + 1) * (points * WRITTEN + SUMMED) * ROW,
        exact=False,
    )
