"""How an edit turns old numbers into new ones: set, add, scale, clamp."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Values = float | Tensor


class Change(ABC):
    """Compute new values from old ones: of a stream, of coordinates along directions, or of
    features.
    """

    @abstractmethod
    def new(self, old: Tensor, index: Tensor) -> Tensor:
        """(m, k) -> (m, k); token i belongs to target index[i]."""


@dataclass(frozen=True)
class Set(Change):
    """Replace the old value. Setting a stream to its value in another prompt is a patch; setting it
    to values of other samples is a resample.
    """

    values: Values

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        return values_of_targets(self.values, index, 1, old).expand_as(old)


@dataclass(frozen=True)
class Add(Change):
    """Add to the old value."""

    values: Values

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        return old + values_of_targets(self.values, index, 1, old)


@dataclass(frozen=True)
class Scale(Change):
    """Multiply the old value; 0 ablates."""

    factors: Values

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        return old * values_of_targets(self.factors, index, 1, old)


@dataclass(frozen=True)
class Clamp(Change):
    """The old value, moved to the nearest number from `low` to `high`."""

    low: Values = float("-inf")
    high: Values = float("inf")

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        import torch

        low, high = (values_of_targets(side, index, 1, old) for side in (self.low, self.high))
        return torch.minimum(torch.maximum(old, low), high)


ABLATE = Scale(0.0)
"""Set the value to zero."""


def values_of_targets(values: Values, index: Tensor, shared_dims: int, like: Tensor) -> Tensor:
    """Values for m tokens: (m, ...) if there is one entry per target, else unchanged, to be
    broadcast.
    """
    import torch

    tensor = torch.as_tensor(values, dtype=torch.float32).to(like.device)
    if tensor.is_inference() and torch.is_grad_enabled():
        tensor = tensor.clone()  # autograd takes no tensor that was made in inference mode
    if tensor.ndim <= shared_dims:
        return tensor
    return tensor if len(tensor) == 1 else tensor[index.to(tensor.device)]
