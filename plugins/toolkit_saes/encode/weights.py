"""The weights of an SAE in the canonical form, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from toolkit_saes.encode.matrix import Matrix

if TYPE_CHECKING:
    from torch import Tensor

Gate = Literal["relu", "jumprelu", "topk", "abstopk", "gated"]
Norm = Literal["none", "row", "layer"]


@dataclass(frozen=True)
class Weights:
    """W_enc (inputs of each feature), b_enc (width), W_dec (outputs of each feature), b_dec
    (outputs), and how they are run.

    `threshold`: one number or one per feature; `rank_by` (width): what the gate multiplies
    pre-activations by before it decides (decoder norms); `r_mag`, `b_mag` (width): of a gated SAE;
    `skip` (inputs of each output). Inputs are multiplied by `scale_in`, the result divided by
    `scale_out`. `norm`: each row by itself, to length sqrt(inputs) or as layer norm does; undone at
    the end if `undo_norm`.
    """

    w_enc: Matrix
    b_enc: Tensor
    w_dec: Matrix
    b_dec: Tensor
    threshold: Tensor | None = None
    gate: Gate = "jumprelu"
    k: int = 0
    rank_by: Tensor | None = None
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None
    skip: Matrix | None = None
    subtract_b_dec: bool = False
    scale_in: float = 1.0
    scale_out: float = 1.0
    norm: Norm = "none"
    undo_norm: bool = True

    def on(self, device: object) -> Weights:
        """The same on a device."""
        weights: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        weights |= {
            name: value.on(device) for name, value in weights.items() if isinstance(value, Matrix)
        }
        return replace(
            self,
            **weights
            | {name: value.to(device) for name, value in weights.items() if hasattr(value, "to")},
        )

    def features(self, part: slice | Tensor) -> Weights:
        """The weights of the gate for some features only."""
        weights: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("b_enc", "threshold", "rank_by", "r_mag", "b_mag")
        }
        return replace(
            self,
            **{
                name: value[part]
                for name, value in weights.items()
                if value is not None and value.ndim
            },
        )
