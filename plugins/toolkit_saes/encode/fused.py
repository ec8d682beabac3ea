"""Gates that give active features at once: no dense copy of activations beside the pre-activations.
The numbers are those of `_gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from toolkit.saes import Sparse, without_zeros
from toolkit_saes.encode.gates import GATES, Gate

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit_saes.layouts.canonical import Weights


def fused(gate: Gate, found: Tensor, weights: Weights) -> Sparse:
    """What the gate lets through of x W_enc, in order of rows and features."""
    made = _FUSED.get(gate)
    return made(found, weights) if made else without_zeros(GATES[gate](found, weights))


def _topk(found: Tensor, weights: Weights) -> Sparse:
    return _kept(found, weights, signed=False)


def _abstopk(found: Tensor, weights: Weights) -> Sparse:
    return _kept(found, weights, signed=True)


def _kept(found: Tensor, weights: Weights, *, signed: bool) -> Sparse:
    before = found.add_(weights.b_enc)
    ranked = before if weights.rank_by is None else before * weights.rank_by
    kept = (
        (ranked.abs() if signed else ranked)
        .topk(weights.k, dim=-1, sorted=False)
        .indices.sort(dim=-1)
        .values
    )
    values = before.gather(-1, kept)
    on = values != 0 if signed else values > 0
    if bool(on.all()):  # as nearly always: then there is nothing to pick
        return Sparse(on.sum(dim=-1), kept.reshape(-1), values.reshape(-1))
    return Sparse(on.sum(dim=-1), kept[on], values[on])


_FUSED: Mapping[Gate, Callable[[Tensor, Weights], Sparse]] = {"topk": _topk, "abstopk": _abstopk}
