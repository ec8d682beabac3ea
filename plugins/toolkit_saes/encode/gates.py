"""The gates: which features fire, and with what activation.

Each takes x W_enc, before the bias. A threshold is strict, and values at or below zero are off
whatever the threshold. A top-k with ties keeps exactly k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from toolkit_saes.encode.weights import Gate, Weights

if TYPE_CHECKING:
    from torch import Tensor


def _relu(products: Tensor, weights: Weights) -> Tensor:
    return (products + weights.b_enc).relu()


def _jumprelu(products: Tensor, weights: Weights) -> Tensor:
    before = products + weights.b_enc
    assert weights.threshold is not None
    return before * (_ranked(before, weights) > weights.threshold.clamp(min=0))


def _topk(products: Tensor, weights: Weights) -> Tensor:
    import torch

    before = products + weights.b_enc
    indices = _ranked(before, weights).topk(weights.k, dim=-1, sorted=False).indices
    return torch.zeros_like(before).scatter_(-1, indices, before.gather(-1, indices).relu())


def _abstopk(products: Tensor, weights: Weights) -> Tensor:
    import torch

    before = products + weights.b_enc
    indices = _ranked(before, weights).abs().topk(weights.k, dim=-1, sorted=False).indices
    return torch.zeros_like(before).scatter_(-1, indices, before.gather(-1, indices))


def _gated(products: Tensor, weights: Weights) -> Tensor:
    """`b_enc` is the bias of the gate, `b_mag` that of the magnitude."""
    assert weights.r_mag is not None
    assert weights.b_mag is not None
    return (products * weights.r_mag.exp() + weights.b_mag).relu() * (products + weights.b_enc > 0)


def _ranked(before: Tensor, weights: Weights) -> Tensor:
    return before if weights.rank_by is None else before * weights.rank_by


GATES: Mapping[Gate, Callable[[Tensor, Weights], Tensor]] = {
    "relu": _relu,
    "jumprelu": _jumprelu,
    "topk": _topk,
    "abstopk": _abstopk,
    "gated": _gated,
}
BY_FEATURE = ("relu", "jumprelu", "gated")
"""Gates that treat each feature independently, so that a block of features can be run by itself."""
