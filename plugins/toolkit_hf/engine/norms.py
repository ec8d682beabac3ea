"""Norms in parts: a norm is linear in its input except for one factor per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from toolkit_hf._structure import epsilon_of

if TYPE_CHECKING:
    from torch import Tensor


def gain_of(norm: Any) -> tuple[Tensor, Tensor | None]:
    """The gain and bias of a norm, float32."""
    if isinstance(norm, torch.nn.LayerNorm):
        bias = None if norm.bias is None else norm.bias.detach().float()
        return norm.weight.detach().float(), bias
    weight = norm.weight.detach()
    ones = torch.ones_like(weight, dtype=torch.float32)
    # Some norms add 1 to the stored gain, so it is read from the norm's output, without its hooks.
    with torch.no_grad():
        answered = norm.forward(ones).float()
    return answered * (1 + epsilon_of(norm)) ** 0.5, None


def centred(norm: Any, value: Tensor) -> Tensor:
    """The input without its mean, where the norm subtracts it."""
    is_layer_norm = isinstance(norm, torch.nn.LayerNorm)
    return value - value.mean(-1, keepdim=True) if is_layer_norm else value


def factor_of(norm: Any, value: Tensor) -> Tensor:
    """The factor of each row: (..., 1)."""
    wide = centred(norm, value.float())
    return (wide.square().mean(-1, keepdim=True) + epsilon_of(norm)).rsqrt()


def linear_part(norm: Any, parts: Tensor, stream: Tensor) -> Tensor:
    """A norm applied to parts of a stream with the factor of the whole stream, without the bias."""
    gain, _ = gain_of(norm)
    return centred(norm, parts.float()) * factor_of(norm, stream) * gain
