"""A prompt read once, and edited streams pushed from it through the blocks above, to exact
probabilities of the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from toolkit.models import Model, Prefix

    from .outcomes import Outcomes

    Floats = np.ndarray[Any, np.dtype[np.float64]]

LOGITS = 1 << 23
"""Logits of a tile: 64 MB in float64. Nothing of the size of all rows x vocabulary is made."""
ROWS = 4096
"""Streams that are pushed at a time."""


@dataclass(frozen=True)
class Reading:
    """An unedited prompt: what the model keeps for suffixes, the last token's stream at each
    hookpoint in float32, and the next token's distribution.
    """

    prefix: Prefix
    streams: Mapping[str, Tensor]
    logp: Tensor
    chances: Floats


def read_prompt(
    model: Model, outcomes: Outcomes, ids: Sequence[int], hookpoints: Sequence[str]
) -> Reading:
    """The prompt's own pass."""
    prefix = model.prefix(ids, sorted(hookpoints))
    assert prefix.captured is not None
    logp = _log_probabilities(model, prefix.captured[model.last_hookpoint()][None])
    streams = {name: prefix.captured[name].float() for name in hookpoints}
    return Reading(prefix, streams, logp, outcomes.probabilities(logp)[0].cpu().numpy())


def push(
    model: Model, outcomes: Outcomes, reading: Reading, layers: Tensor, streams: Tensor
) -> tuple[Floats, Floats]:
    """(rows, width) streams at the last token, each after its block of `layers` (rows,) ->
    probabilities of the outcomes (rows, outcomes), and the divergence of each next-token
    distribution from the unedited one.
    """
    import numpy as np

    chances, divergences = [], []
    tile = max(1, LOGITS // reading.logp.shape[-1])
    for start in range(0, len(streams), ROWS):
        states = model.suffix(
            reading.prefix,
            list(
                zip(
                    layers[start : start + ROWS].tolist(),
                    streams[start : start + ROWS],
                    strict=True,
                )
            ),
        )
        for first in range(0, len(states), tile):
            logp = _log_probabilities(model, states[first : first + tile])
            chances.append(outcomes.probabilities(logp).cpu().numpy())
            divergence = (reading.logp.exp() * (reading.logp - logp)).sum(-1)
            divergences.append(divergence.cpu().numpy())
    width = len(outcomes.names)
    return (
        np.concatenate(chances) if chances else np.empty((0, width)),
        np.concatenate(divergences) if divergences else np.empty(0),
    )


def _log_probabilities(model: Model, states: Tensor) -> Tensor:
    import torch

    return torch.log_softmax(model.unembed(states).double(), dim=-1)
