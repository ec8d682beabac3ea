"""A prompt read once, and edited streams pushed from it through the blocks above, to exact
probabilities of the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.arrays import Floats
    from toolkit.models import Model, Prefix

    from .outcomes import Outcomes


ROWS = 8192
"""Streams that are pushed at a time."""


@dataclass(frozen=True)
class Reading:
    """An unedited prompt: what the model keeps for suffixes, the last token's stream at each
    hookpoint in float32, the last block's state, and the probabilities of the outcomes.
    """

    prefix: Prefix
    streams: Mapping[str, Tensor]
    state: Tensor
    chances: Floats


def read_prompt(
    model: Model, outcomes: Outcomes, ids: Sequence[int], hookpoints: Sequence[str]
) -> Reading:
    """The prompt's own pass."""
    prefix = model.prefix(ids, sorted(hookpoints))
    assert prefix.captured is not None
    state = prefix.captured[model.last_hookpoint()]
    streams = {name: prefix.captured[name].float() for name in hookpoints}
    chances = outcomes.probabilities(model.readout(state[None], outcomes.listed))
    return Reading(prefix, streams, state, chances[0])


def push(
    model: Model, outcomes: Outcomes, reading: Reading, layers: Tensor, streams: Tensor
) -> tuple[Floats, Floats]:
    """(rows, width) streams at the last token, each after its block of `layers` (rows,) ->
    probabilities of the outcomes (rows, outcomes), and the divergence of each next-token
    distribution from the unedited one. Nothing of the size of rows x vocabulary is held.
    """
    import numpy as np

    chances, divergences = [], []
    for start in range(0, len(streams), ROWS):
        chunk = slice(start, start + ROWS)
        states = model.suffix(reading.prefix, layers[chunk], streams[chunk])
        out = model.readout(states, outcomes.listed, reading.state)
        assert out.kl is not None
        chances.append(outcomes.probabilities(out))
        divergences.append(out.kl.cpu().numpy())
    return np.concatenate(chances), np.concatenate(divergences)
