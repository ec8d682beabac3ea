"""What a norm does, taken apart: it is linear in its input but for one factor a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def gain_of(norm: Any) -> tuple[Tensor, Tensor | None]:
    """What a norm multiplies by, and what it adds, float32."""
    if isinstance(norm, torch.nn.LayerNorm):
        bias = None if norm.bias is None else norm.bias.detach().float()
        return norm.weight.detach().float(), bias
    weight = norm.weight.detach()
    ones = torch.ones_like(weight, dtype=torch.float32)
    # Some add 1 to what their files hold, so the norm is asked; hooks on it are not.
    with torch.no_grad():
        answered = norm.forward(ones).float()
    return answered * (1 + epsilon_of(norm)) ** 0.5, None


def epsilon_of(norm: Any) -> float:
    """What keeps a norm from dividing by nothing."""
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def centred(norm: Any, value: Tensor) -> Tensor:
    """Without its mean, where the norm takes it away."""
    is_layer_norm = isinstance(norm, torch.nn.LayerNorm)
    return value - value.mean(-1, keepdim=True) if is_layer_norm else value


def factor_of(norm: Any, value: Tensor) -> Tensor:
    """The one factor a row: (..., 1)."""
    wide = centred(norm, value.float())
    return (wide.square().mean(-1, keepdim=True) + epsilon_of(norm)).rsqrt()


def linear_part(norm: Any, parts: Tensor, whole: Tensor) -> Tensor:
    """What a norm makes of parts of a stream, by the factor that the whole stream gets; its bias
    left out.
    """
    gain, _ = gain_of(norm)
    return centred(norm, parts.float()) * factor_of(norm, whole) * gain
