"""Keys and values of past positions, in the form that blocks ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Keys:
    """Keys and values of past positions, in the form the blocks ask for (`update`), kept apart from
    what a pass adds.

    `grow` says whether what a pass adds is kept for the next one.
    """

    def __init__(self, held: dict[int, tuple[Tensor, Tensor]] | None = None, *, grow: bool) -> None:
        self.held, self._grow = held or {}, grow

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Past and new together, for one block."""
        if layer_idx in self.held:
            key = torch.cat((self.held[layer_idx][0], key), dim=2)
            value = torch.cat((self.held[layer_idx][1], value), dim=2)
        if self._grow:
            self.held[layer_idx] = key, value
        return key, value

    def rows(self, chosen: Tensor) -> Keys:
        """Some rows, in a new object; a row may be taken several times."""
        held = {
            layer: (key[chosen.to(key.device)], value[chosen.to(key.device)])
            for layer, (key, value) in self.held.items()
        }
        return Keys(held, grow=True)
