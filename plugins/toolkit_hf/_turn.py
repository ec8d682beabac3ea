"""What the blocks of one pass are told besides the stream: positions, rotations, and which keys
each query sees.

Shapes: R rows, T positions, Q queries, K keys. A mask is added to the scores; None is plain causal
attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

Window = int | None
"""How many positions back a block sees, its own included; None: all."""


@dataclass(frozen=True)
class Turn:
    """`masks` has one for each window among the model's blocks, `rotations` one for each kind of
    block that the model's rotary positions tell apart (Gemma 3), else one under None.
    """

    positions: Tensor
    rotations: Mapping[str | None, tuple[Tensor, ...]]
    masks: Mapping[Window, Tensor | None]
    _copies: dict[torch.device, Turn] = field(default_factory=dict, repr=False, compare=False)

    def at(self, place: torch.device) -> Turn:
        """The same on a device; copied there once a pass."""
        if place == self.positions.device:
            return self
        if place not in self._copies:
            rotations = {
                kind: tuple(part.to(place) for part in parts)
                for kind, parts in self.rotations.items()
            }
            masks = {
                window: mask if mask is None else mask.to(place)
                for window, mask in self.masks.items()
            }
            self._copies[place] = Turn(self.positions.to(place), rotations, masks)
        return self._copies[place]

    def first(self, rows: int, keys: int) -> Turn:
        """Of the first queries and keys only."""
        masks = {
            window: mask if mask is None else mask[:, :, :rows, :keys]
            for window, mask in self.masks.items()
        }
        rotations = {
            kind: tuple(part[:, :rows] for part in parts) for kind, parts in self.rotations.items()
        }
        return Turn(self.positions[:, :rows], rotations, masks)

    def arguments(self, window: Window, kind: str | None = None) -> dict[str, Any]:
        """As a block takes them."""
        found: dict[str, Any] = {
            "attention_mask": self.masks[window],
            "position_ids": self.positions,
        }
        if self.rotations:
            found["position_embeddings"] = self.rotations[kind]
        return found


def window_of(attention: Any, config: Any) -> Window:
    """A block's window: its attention's own, or the config's where attention has none to itself."""
    window = getattr(attention, "sliding_window", getattr(config, "sliding_window", None))
    return int(window) if window else None


def causal(positions: Tensor, window: Window) -> Tensor:
    """(T, T): each position sees those before it and itself, as far back as its window goes."""
    distance = positions[:, None] - positions
    return (distance >= 0) & _near(distance, window)


def own_column(rows: int, past: int, window: Window, device: torch.device) -> Tensor:
    """(R, past + R): each row stands at position `past`, and sees what is before it and its own
    column.
    """
    before = _near(past - torch.arange(past, device=device), window).expand(rows, past)
    return torch.cat((before, torch.eye(rows, dtype=torch.bool, device=device)), dim=1)


def grown(lengths: Tensor, wide: int, step: int, window: Window) -> Tensor:
    """(R, wide + step + 1): rows of `lengths` tokens, padded to `wide`, that have grown by one
    token a step since.
    """
    columns = torch.arange(wide + step + 1, device=lengths.device)
    ends = lengths[:, None]
    positions = torch.where(columns < wide, columns, ends + columns - wide)
    return ((columns < ends) | (columns >= wide)) & _near(ends + step - positions, window)


def _near(distance: Tensor, window: Window) -> Tensor:
    return torch.ones_like(distance, dtype=torch.bool) if window is None else distance < window


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: nothing where a key is seen, the lowest number where it is not."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )
