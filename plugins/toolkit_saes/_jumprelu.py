"""The canonical form that every adapter here converts to: f = z where z > threshold, z = x W_enc + b_enc; x^ = f W_dec + b_dec.

Raw activations in, raw activations out, float32; what a layout does besides (norms, folds) is done once, when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import DataError
from toolkit.saes import Sae

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """W_enc (inputs, width), b_enc (width), W_dec (width, inputs), b_dec (inputs), threshold: one number or one a feature."""

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class Facts:
    """What is known of an SAE before its weights are read."""

    name: str
    release: str
    hookpoint: str
    width: int
    inputs: int
    digest: str
    recipe: str
    declared_l0: float | None


class JumpRelu(Sae):
    """An SAE whose weights are read when they are first needed, and moved to where its inputs are."""

    def __init__(self, facts: Facts, read: Callable[[], Weights]) -> None:
        self.name, self.release, self.hookpoint = facts.name, facts.release, facts.hookpoint
        self.width, self.inputs, self.digest = facts.width, facts.inputs, facts.digest
        self.recipe, self.declared_l0 = facts.recipe, facts.declared_l0
        self._read = read
        self._held: Weights | None = None

    def _weights(self, like: Tensor) -> Weights:
        held = self._held
        if held is None or held.w_enc.device != like.device:
            read = held or self._read()
            held = Weights(*(getattr(read, name).to(like.device) for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")))
            self._held = held
        return held

    def encode(self, rows: Tensor) -> Tensor:
        """Strictly above the threshold, and above zero."""
        if rows.shape[-1] != self.inputs:
            raise DataError(
                f"SAE {self.name} reads {self.inputs} numbers, the model's {self.hookpoint} has {rows.shape[-1]}: it belongs to "
                f"another model. Name SAEs of this model."
            )
        weights = self._weights(rows)
        before = rows.float() @ weights.w_enc + weights.b_enc
        return before * (before > weights.threshold.clamp(min=0))

    def decode(self, activations: Tensor) -> Tensor:
        """Back into the stream."""
        weights = self._weights(activations)
        return activations @ weights.w_dec + weights.b_dec

    def decoder_rows(self, features: Sequence[int]) -> Tensor:
        """Rows of W_dec."""
        import torch

        return self._weights(torch.empty(0) if self._held is None else self._held.w_dec).w_dec[list(features)]

    def release_memory(self) -> None:
        """Forget the weights."""
        self._held = None
