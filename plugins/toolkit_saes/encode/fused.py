"""Gates that return active features directly, without a dense copy of activations next to the
pre-activations. Results equal those of `gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from toolkit.saes import Sparse, without_zeros
from toolkit_saes.encode.gates import GATES
from toolkit_saes.encode.weights import Gate, Weights

if TYPE_CHECKING:
    from torch import Tensor


def fused(gate: Gate, products: Tensor, weights: Weights) -> Sparse:
    """Active features of the products x W_enc, in order of rows and features."""
    fused_gate = _FUSED.get(gate)
    return (
        fused_gate(products, weights)
        if fused_gate
        else without_zeros(GATES[gate](products, weights))
    )


def _topk(products: Tensor, weights: Weights) -> Sparse:
    return _largest(products, weights, signed=False)


def _abstopk(products: Tensor, weights: Weights) -> Sparse:
    return _largest(products, weights, signed=True)


def _largest(products: Tensor, weights: Weights, *, signed: bool) -> Sparse:
    before = products.add_(weights.b_enc)
    ranked = before if weights.rank_by is None else before * weights.rank_by
    indices = (
        (ranked.abs() if signed else ranked)
        .topk(weights.k, dim=-1, sorted=False)
        .indices.sort(dim=-1)
        .values
    )
    values = before.gather(-1, indices)
    on = values != 0 if signed else values > 0
    if bool(on.all()):  # the usual case: all of the top k are active
        return Sparse(on.sum(dim=-1), indices.reshape(-1), values.reshape(-1))
    return Sparse(on.sum(dim=-1), indices[on], values[on])


_FUSED: Mapping[Gate, Callable[[Tensor, Weights], Sparse]] = {"topk": _topk, "abstopk": _abstopk}
