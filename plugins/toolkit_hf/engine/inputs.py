"""The inputs of blocks besides the stream: positions, rotations, and which keys each query sees.

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
"""How many positions back a block sees, including the query's; None for all."""


@dataclass(frozen=True)
class PassInputs:
    """`masks` has one for each window among the model's blocks, `rotations` one for each kind of
    block that the model's rotary positions tell apart (Gemma 3), else one under None.
    """

    positions: Tensor
    rotations: Mapping[str | None, tuple[Tensor, ...]]
    masks: Mapping[Window, Tensor | None]
    _copies: dict[torch.device, PassInputs] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> PassInputs:
        """The same on a device; copied once per pass."""
        if device == self.positions.device:
            return self
        if device not in self._copies:
            rotations = {
                kind: tuple(part.to(device) for part in parts)
                for kind, parts in self.rotations.items()
            }
            masks = {
                window: mask if mask is None else mask.to(device)
                for window, mask in self.masks.items()
            }
            self._copies[device] = PassInputs(self.positions.to(device), rotations, masks)
        return self._copies[device]

    def arguments(self, window: Window, kind: str | None = None) -> dict[str, Any]:
        """The keyword arguments of a block."""
        keywords: dict[str, Any] = {
            "attention_mask": self.masks[window],
            "position_ids": self.positions,
        }
        if self.rotations:
            keywords["position_embeddings"] = self.rotations[kind]
        return keywords


def window_of(attention: Any, config: Any) -> Window:
    """A block's attention window: that of its attention module, else the config's."""
    window = getattr(attention, "sliding_window", getattr(config, "sliding_window", None))
    return int(window) if window else None


def causal(positions: Tensor, window: Window) -> Tensor:
    """(T, T): each position sees itself and those before it, as far back as its window reaches."""
    return seen(positions, positions, window)


def seen(queries: Tensor, keys: Tensor, window: Window) -> Tensor:
    """(..., Q, K): whether a query at a position sees a key at a position."""
    distance = queries[..., :, None] - keys[..., None, :]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask to add to scores: 0 where a key is seen, the lowest number where it is not."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )
