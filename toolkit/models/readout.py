"""Logits of chosen tokens and statistics of the distribution over the whole vocabulary, without a
matrix of rows x vocabulary in memory.

The vocabulary comes in tiles. Sums of exponentials are kept with their running maximum (online
log-sum-exp), so that the result does not depend on the number of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TILE_NUMBERS = 1 << 24
"""Logits of one tile: 64 MB."""

Tiles = Iterator[tuple[int, "Tensor"]]
"""(first token, logits (n, tokens of the tile)), in order of the vocabulary."""


@dataclass(frozen=True)
class Readout:
    """Next-token statistics of last-token states, one entry per row, float64."""

    logits: Tensor
    """(n, tokens): logits of the chosen tokens, exactly as `unembed` returns them."""
    normaliser: Tensor
    """(n,): log of the sum of exponentials over the vocabulary."""
    kl: Tensor | None
    """(n,): KL(base || row), if a base was given."""

    def probabilities(self) -> Tensor:
        """(n, tokens): probabilities of the chosen tokens."""
        return (self.logits - self.normaliser[:, None]).exp()


def read_out(
    tiles: Callable[[Tensor], Tiles],
    states: Tensor,
    tokens: Sequence[int] | Tensor,
    base: Tensor | None = None,
    tile_rows: int | None = None,
) -> Readout:
    """Compute the readout in tiles of rows, each in tiles of the vocabulary. `tiles` gives the
    logits of some states, a range of the vocabulary at a time.
    """
    import torch

    chosen = torch.as_tensor(tokens, dtype=torch.long, device=states.device)
    reference = None if base is None else _Base.of(tiles, base)
    parts, start = [], 0
    while start < len(states):
        rows = tile_rows or _rows_that_fit(tiles, states, start)
        parts.append(_read_rows(tiles, states[start : start + rows], chosen, reference))
        start += rows
    if not parts:
        none = torch.empty(0, dtype=torch.float64, device=states.device)
        return Readout(none.reshape(0, len(chosen)), none, None if base is None else none)
    return Readout(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.normaliser for part in parts]),
        None
        if reference is None
        else torch.cat([part.kl for part in parts if part.kl is not None]),
    )


@dataclass(frozen=True)
class _Base:
    """The logits of one state, tile by tile, and their normaliser."""

    tiles: dict[int, Tensor]
    normaliser: Tensor

    @classmethod
    def of(cls, tiles: Callable[[Tensor], Tiles], state: Tensor) -> _Base:
        tiles_of_state = {
            first: logits[0].double() for first, logits in tiles(state.reshape(1, -1))
        }
        everything = [tiles_of_state[first] for first in sorted(tiles_of_state)]
        import torch

        return cls(tiles_of_state, torch.cat(everything).logsumexp(0))


def _rows_that_fit(tiles: Callable[[Tensor], Tiles], states: Tensor, start: int) -> int:
    """As many rows as one tile of the vocabulary allows."""
    _, logits = next(iter(tiles(states[start : start + 1])))
    return max(1, TILE_NUMBERS // logits.shape[1])


def _read_rows(
    tiles: Callable[[Tensor], Tiles], states: Tensor, chosen: Tensor, base: _Base | None
) -> Readout:
    import torch

    count = len(states)
    logits = torch.zeros((count, len(chosen)), dtype=torch.float64, device=states.device)
    highest = torch.full((count,), -torch.inf, dtype=torch.float64, device=states.device)
    total, moved = torch.zeros_like(highest), torch.zeros_like(highest)
    for first, tile in tiles(states):
        last = first + tile.shape[1]
        inside = (chosen >= first) & (chosen < last)
        logits[:, inside] = tile[:, chosen[inside] - first].double()
        peak = torch.maximum(highest, tile.amax(1).double())
        sums = (tile - peak[:, None].to(tile)).exp().sum(1, dtype=torch.float64)
        total = total * (highest - peak).exp() + sums
        highest = peak
        if base is not None:
            base_tile = base.tiles[first]
            shares = (base_tile - base.normaliser).exp()
            moved += ((base_tile.to(tile) - tile) @ shares.to(tile)).double()
    normaliser = highest + total.log()
    if base is None:
        return Readout(logits, normaliser, None)
    kl = moved - base.normaliser + normaliser
    return Readout(logits, normaliser, kl.clamp(min=0))
