"""A prompt read once, and edited streams pushed from it through the blocks above, to exact
probabilities of the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.edits import check_made, set_stream

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.arrays import Floats
    from toolkit.models import Model, Prefix

    from .outcomes import Outcomes


ROWS = 8192
"""Streams that are pushed at a time."""


@dataclass(frozen=True)
class Reading:
    """An unedited prompt: what the model keeps for suffixes, the stream at each hookpoint in
    float32 at the token that is edited, the last block's state at the last token, and the
    probabilities of the outcomes. `position`: of the edited token.
    """

    prefix: Prefix
    streams: Mapping[str, Tensor]
    state: Tensor
    chances: Floats
    position: int

    @property
    def at_last(self) -> bool:
        """Whether the edited token is the last one."""
        return self.position == len(self.prefix.ids) - 1


def read_prompt(
    model: Model,
    outcomes: Outcomes,
    ids: Sequence[int],
    hookpoints: Sequence[str],
    position: int | None = None,
) -> Reading:
    """The prompt's own pass, for edits at a position: by default at the last token."""
    place = len(ids) - 1 if position is None else position
    prefix = model.prefix(ids, sorted(hookpoints))
    assert prefix.captured is not None
    state = prefix.captured[model.last_hookpoint()]
    streams = {name: prefix.captured[name].float() for name in hookpoints}
    if place != len(ids) - 1 and hookpoints:
        seen = model.run([ids], sorted(hookpoints))
        streams = {name: seen[name][0, place].float() for name in hookpoints}
    chances = outcomes.probabilities(model.readout(state[None], outcomes.listed))
    return Reading(prefix, streams, state, chances[0], place)


def push(
    model: Model, outcomes: Outcomes, reading: Reading, layers: Tensor, streams: Tensor
) -> tuple[Floats, Floats]:
    """(rows, width) streams at the edited token, each after its block of `layers` (rows,) ->
    probabilities of the outcomes (rows, outcomes), and the divergence of each next-token
    distribution from the unedited one. Nothing of the size of rows x vocabulary is held.
    """
    import numpy as np

    chances, divergences = [], []
    for start in range(0, len(streams), ROWS):
        chunk = slice(start, start + ROWS)
        states = _states(model, reading, layers[chunk], streams[chunk])
        out = model.readout(states, outcomes.listed, reading.state)
        assert out.kl is not None
        chances.append(outcomes.probabilities(out))
        divergences.append(out.kl.cpu().numpy())
    return np.concatenate(chances), np.concatenate(divergences)


def _states(model: Model, reading: Reading, layers: Tensor, streams: Tensor) -> Tensor:
    """Last-token states. Behind an edit of an earlier token all later tokens are computed anew."""
    if reading.at_last:
        return model.suffix(reading.prefix, layers, streams)
    edits, made = [], layers.cpu()
    for layer in sorted(set(made.tolist())):
        rows = (made == layer).nonzero()[:, 0]
        places = [reading.position] * len(rows)
        values = streams[rows.to(streams.device)]
        edits.append(set_stream(f"resid_post.{layer}", rows.tolist(), places, values))
    states = model.edited_states(reading.prefix, edits, len(streams))
    check_made(edits, [len(reading.prefix.ids)] * len(streams))
    return states
