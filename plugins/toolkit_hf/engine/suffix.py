"""One prompt, many edits: the prompt is computed once, and edited rows share its keys.

`last_token_rows` is for edits at the last token, given as streams. `edited_rows` is for edits at
any position: positions before the first edited one come from the prompt, blocks below the first
edited one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from toolkit.edits import OPEN_END, Edit, PassRows
from toolkit.hookpoints import hookpoint

from .attention import PLANNED, BehindPrompt
from .decoder import DecoderModules
from .sites import Sites

if TYPE_CHECKING:
    from torch import Tensor

TILE_NUMBERS = 1 << 22
"""How many numbers of a block's widest stream are in memory at a time: 16 MB in float32, which stay
in a CPU's cache for the next operation.
"""
LONGER = 32
"""The factor of that number on a GPU, which small matrices would leave idle: 512 MB."""


@dataclass(frozen=True)
class KeptPrompt:
    """Keys and values of every block for all of a prompt's tokens: (1, key heads, tokens, size)."""

    by_layer: dict[int, tuple[Tensor, Tensor]]


def rows_at_once(decoder: DecoderModules, tokens: int = 1) -> int:
    """How many rows of this many tokens share a pass."""
    inside = int(getattr(decoder.config, "intermediate_size", 0) or 4 * decoder.width)
    numbers = TILE_NUMBERS * (1 if decoder.device.type == "cpu" else LONGER)
    return max(1, numbers // (inside * tokens))


def last_token_rows(
    decoder: DecoderModules,
    prompt: KeptPrompt,
    length: int,
    layers: Tensor,
    rows: Tensor,
    made: Tensor | None = None,
) -> Tensor:
    """Last-token states where the stream behind block `layers[i]` is `rows[i]`. A row joins the
    pass above its own block, so no block computes what an edit cannot reach, and each block runs
    once over all rows of a tile. `made` counts how often each row joined.
    """
    order = torch.argsort(layers, stable=True)
    states = torch.empty((len(rows), decoder.width), dtype=decoder.dtype, device=decoder.device)
    tile = rows_at_once(decoder)
    plan = BehindPrompt(decoder.windows, prompt.by_layer, length - 1)
    for start in range(0, len(order), tile):
        chosen = order[start : start + tile]
        given = rows[chosen.to(rows.device)].to(decoder.device, decoder.dtype)
        stream, joined = _run_blocks(decoder, plan, layers[chosen].cpu(), given)
        states[chosen.to(decoder.device)] = stream
        if made is not None:
            made.index_add_(0, chosen.cpu(), joined)
    return states


def _run_blocks(
    decoder: DecoderModules, plan: BehindPrompt, layers: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """The last block's output of rows in order of their layers, and how often each joined."""
    inputs = decoder.inputs(torch.full((1, 1), plan.past, device=decoder.device))
    counts = torch.bincount(layers, minlength=decoder.layers).cumsum(0).tolist()
    lowest = int(layers[0])
    stream, joined = rows[: counts[lowest]], torch.zeros(len(rows), dtype=torch.long)
    joined[: counts[lowest]] += 1
    with decoder.attention_by(PLANNED):
        for layer in range(lowest + 1, decoder.layers):
            stream = decoder.run_block(layer, stream[:, None], inputs, plan=plan)[:, 0]
            joining = rows[counts[layer - 1] : counts[layer]]
            if len(joining):
                stream = torch.cat((stream, joining.to(stream.device)))
                joined[counts[layer - 1] : counts[layer]] += 1
    return stream.to(decoder.device), joined


# --- edits at any position ------------------------------------------------------------------------


def edited_rows(
    decoder: DecoderModules,
    prompt: KeptPrompt,
    ids: Sequence[int],
    edits: Sequence[Edit],
    count: int,
) -> Tensor:
    """Last-token states of `count` copies of a prompt under their edits. Rows whose edits begin at
    similar blocks share a pass.
    """
    layers, starts = _first_changes(edits, count, decoder.layers, len(ids))
    order = torch.argsort(layers * len(ids) + starts, stable=True)
    states = torch.empty((count, decoder.width), dtype=decoder.dtype, device=decoder.device)
    start = 0
    while start < count:
        first_position = int(starts[order[start:]].min())
        tile = rows_at_once(decoder, len(ids) - first_position)
        chosen = order[start : start + tile]
        states[chosen.to(decoder.device)] = _edited_tile(
            decoder,
            prompt,
            ids,
            edits,
            chosen.tolist(),
            int(layers[chosen].min()),
            int(starts[chosen].min()),
        )
        start += len(chosen)
    return states


def _first_changes(
    edits: Sequence[Edit], count: int, layers: int, length: int
) -> tuple[Tensor, Tensor]:
    """For each row the first block and position that an edit changes or reads; the last ones for
    rows without edits.
    """
    layer = torch.full((count,), layers - 1)
    start = torch.full((count,), length - 1)
    for edit in edits:
        lowest = min(
            hookpoint(name).layer for name in (edit.hookpoint, edit.reads) if name is not None
        )
        rows, starts = edit.targets.rows, edit.targets.starts
        if rows is None:
            layer, start = layer.clamp(max=lowest), start.clamp(max=int(starts.min()))
        elif len(rows):
            layer.scatter_reduce_(0, rows, torch.full_like(rows, lowest), "amin")
            start.scatter_reduce_(0, rows, starts.clamp(max=OPEN_END), "amin")
    return layer, start


def _edited_tile(
    decoder: DecoderModules,
    prompt: KeptPrompt,
    ids: Sequence[int],
    edits: Sequence[Edit],
    rows: Sequence[int],
    lowest: int,
    first_position: int,
) -> Tensor:
    plan = BehindPrompt(decoder.windows, prompt.by_layer, first_position)
    positions = torch.arange(first_position, len(ids), device=decoder.device)[None]
    inputs = decoder.inputs(positions)
    count = len(rows)
    seen = PassRows([first_position] * count, [len(ids)] * count, rows, rows, [len(ids)] * count)
    sites = Sites(decoder, (), edits, seen)
    stream = decoder.embed(torch.tensor([ids[first_position:]], device=decoder.device), positions)
    with decoder.attention_by(PLANNED):
        for layer in range(lowest):
            stream = decoder.run_block(layer, stream, inputs, plan=plan)
        stream = stream.expand(count, -1, -1)
        for layer in range(lowest, decoder.layers):
            stream = sites.before(layer, stream)
            with sites.inside(layer, stream):
                stream = decoder.run_block(layer, stream, inputs, plan=plan)
            stream = sites.after(layer, stream)
    return stream[:, -1].to(decoder.device)
