"""Reads a prompt once and pushes edited streams from it through the blocks above, to exact
probabilities of the outcomes.

An edit of the stream between blocks, or of what an MLP adds to it, enters behind its block. Edits
at other sites, such as what attention adds, enter inside their block, which is computed again from
there for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.edits import check_made, set_stream
from toolkit.errors import DataError
from toolkit.hookpoints import Hookpoint, hookpoint

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.edits import Edit
    from toolkit.models import Model, Prefix
    from toolkit.saes import Sae
    from toolkit.statistics.arrays import Floats

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


@dataclass(frozen=True)
class EditedStreams:
    """What a hookpoint has at the edited token after each edit: (rows, width)."""

    hookpoint: str
    streams: Tensor


def hookpoints_of(saes: Iterable[Sae]) -> list[str]:
    """The hookpoints that edits of these SAEs' features need: those that are read and edited, and
    the stream behind each MLP whose output is edited.
    """
    names = set()
    for sae in saes:
        edited = hookpoint(sae.output_hookpoint)
        names |= {sae.hookpoint, sae.output_hookpoint}
        if edited.site == "mlp_out":
            names.add(str(Hookpoint("resid_post", edited.layer)))
    return sorted(names)


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


def push_edits(
    model: Model, outcomes: Outcomes, reading: Reading, edited: Sequence[EditedStreams]
) -> list[tuple[Floats, Floats]]:
    """The results of `push` for each group of edits."""
    import torch

    entering = [_entering(reading, group) for group in edited]
    behind = [rows for rows in entering if rows is not None]
    pushed: list[tuple[Floats, Floats]] = []
    if behind:
        layers = [torch.full((len(rows),), layer) for layer, rows in behind]
        chances, divergences = push(
            model, outcomes, reading, torch.cat(layers), torch.cat([rows for _, rows in behind])
        )
        start = 0
        for _, rows in behind:
            taken = slice(start, start + len(rows))
            pushed.append((chances[taken], divergences[taken]))
            start += len(rows)
    waiting = iter(pushed)
    return [
        _push_inside(model, outcomes, reading, group) if rows is None else next(waiting)
        for group, rows in zip(edited, entering, strict=True)
    ]


def _entering(reading: Reading, group: EditedStreams) -> tuple[int, Tensor] | None:
    """The block behind which edits enter, and the streams there; None where they enter inside a
    block.
    """
    point = hookpoint(group.hookpoint)
    if point.site == "resid_post":
        return point.layer, group.streams
    if point.site == "resid_pre" and point.layer:
        return point.layer - 1, group.streams
    if point.site == "mlp_out":
        behind = reading.streams[str(Hookpoint("resid_post", point.layer))]
        return point.layer, behind + (group.streams - reading.streams[group.hookpoint])
    return None


def _push_inside(
    model: Model, outcomes: Outcomes, reading: Reading, group: EditedStreams
) -> tuple[Floats, Floats]:
    """The results of `push` for edits that enter inside a block."""
    import numpy as np

    chances, divergences = [], []
    for start in range(0, len(group.streams), ROWS):
        streams = group.streams[start : start + ROWS]
        rows, positions = list(range(len(streams))), [reading.position] * len(streams)
        edit = set_stream(group.hookpoint, rows, positions, streams)
        states = _edited_states(model, reading, [edit], len(streams))
        chunk_chances, chunk_divergences = _read_off(model, outcomes, reading, states)
        chances.append(chunk_chances)
        divergences.append(chunk_divergences)
    return np.concatenate(chances), np.concatenate(divergences)


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
        chunk_chances, chunk_divergences = _read_off(model, outcomes, reading, states)
        chances.append(chunk_chances)
        divergences.append(chunk_divergences)
    return np.concatenate(chances), np.concatenate(divergences)


def _read_off(
    model: Model, outcomes: Outcomes, reading: Reading, states: Tensor
) -> tuple[Floats, Floats]:
    readout = model.readout(states, outcomes.listed, reading.state)
    assert readout.kl is not None
    return outcomes.probabilities(readout), readout.kl.cpu().numpy()


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
    return _edited_states(model, reading, edits, len(streams))


def _edited_states(model: Model, reading: Reading, edits: Sequence[Edit], count: int) -> Tensor:
    """States of copies of the prompt, each of which has to be edited once."""
    states = model.edited_states(reading.prefix, edits, count)
    check_made(edits, [len(reading.prefix.ids)] * count)
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
