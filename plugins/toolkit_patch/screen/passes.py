"""Reads a prompt once and pushes edited streams from it through the blocks above, to exact
probabilities of the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.edits import check_made, set_stream
from toolkit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.arrays import Floats
    from toolkit.models import Model, Prefix

    from .outcomes import Outcomes


ROWS = 8192
"""Streams that are pushed in one batch."""


@dataclass(frozen=True)
class Reading:
    """An unedited prompt: the prefix that suffixes continue, the stream at each hookpoint in
    float32 at the edited token, the last block's state at the last token, the probabilities of the
    outcomes, and the position of the edited token.
    """

    prefix: Prefix
    streams: Mapping[str, Tensor]
    state: Tensor
    chances: Floats
    position: int

    @property
    def edits_last_token(self) -> bool:
        """Whether the edited token is the last one."""
        return self.position == len(self.prefix.ids) - 1


def read_prompt(
    model: Model,
    outcomes: Outcomes,
    ids: Sequence[int],
    hookpoints: Sequence[str],
    position: int | None = None,
) -> Reading:
    """Read a prompt for edits at a position, by default at its last token."""
    edited_position = len(ids) - 1 if position is None else position
    prefix = model.prefix(ids, sorted(hookpoints))
    assert prefix.captured is not None
    state = prefix.captured[model.last_hookpoint()]
    streams = {name: prefix.captured[name].float() for name in hookpoints}
    if edited_position != len(ids) - 1 and hookpoints:
        captured = model.run([ids], sorted(hookpoints))
        streams = {name: captured[name][0, edited_position].float() for name in hookpoints}
    chances = outcomes.probabilities(model.readout(state[None], outcomes.listed))
    return Reading(prefix, streams, state, chances[0], edited_position)


def push(
    model: Model, outcomes: Outcomes, reading: Reading, layers: Tensor, streams: Tensor
) -> tuple[Floats, Floats]:
    """(rows, width) streams at the edited token, each after its block of `layers` (rows,) ->
    probabilities of the outcomes (rows, outcomes), and the divergence of each next-token
    distribution from the unedited one. No array of size rows x vocabulary is kept in memory.
    """
    import numpy as np

    chances, divergences = [], []
    for start in range(0, len(streams), ROWS):
        chunk = slice(start, start + ROWS)
        states = _states(model, reading, layers[chunk], streams[chunk])
        readout = model.readout(states, outcomes.listed, reading.state)
        assert readout.kl is not None
        chances.append(outcomes.probabilities(readout))
        divergences.append(readout.kl.cpu().numpy())
    return np.concatenate(chances), np.concatenate(divergences)


def _states(model: Model, reading: Reading, layers: Tensor, streams: Tensor) -> Tensor:
    """Last-token states. After an edit of an earlier token, all later tokens are computed again."""
    if reading.edits_last_token:
        return _suffix(model, reading.prefix, layers, streams)
    edits, edited_layers = [], layers.cpu()
    for layer in sorted(set(edited_layers.tolist())):
        rows = (edited_layers == layer).nonzero()[:, 0]
        positions = [reading.position] * len(rows)
        values = streams[rows.to(streams.device)]
        edits.append(set_stream(f"resid_post.{layer}", rows.tolist(), positions, values))
    states = model.edited_states(reading.prefix, edits, len(streams))
    check_made(edits, [len(reading.prefix.ids)] * len(streams))
    return states


def _suffix(model: Model, prefix: Prefix, layers: Tensor, streams: Tensor) -> Tensor:
    """States behind edits of the last token, each of which has to be made once."""
    import torch

    made = torch.zeros(len(streams), dtype=torch.long)
    states = model.suffix(prefix, layers, streams, made)
    wrong = (made != 1).nonzero()[:, 0].tolist()
    if wrong:
        row = wrong[0]
        raise DataError(
            f"edit after block {int(layers[row])}: 1 token of row {row} was planned in its prompt, "
            f"and {int(made[row])} were edited ({len(wrong)} of {len(streams)} rows differ from "
            f"the plan). {model.identity.name}'s `suffix` is at fault."
        )
    return states
