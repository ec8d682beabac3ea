"""Helpers for checks of loaded models and SAEs: a violation is an error that names its part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.models import Model
from toolkit.parts import Part
from toolkit.saes import Sae
from toolkit.testing.contracts import Broken

if TYPE_CHECKING:
    from torch import Tensor


def kept(of: Part | Model | Sae, holds: object, text: str) -> None:
    """Raise `Broken` unless the promise holds."""
    if not holds:
        raise Broken(f"{_named(of)}: {text}")


def _named(of: Part | Model | Sae) -> str:
    if isinstance(of, Model):
        return f"model '{of.identity.name}'"
    return f"SAE '{of.name}'" if isinstance(of, Sae) else f"{of.kind} part '{of.name}'"


def near(left: Tensor, right: Tensor, tolerance: float) -> bool:
    """Equal within a share of the largest value."""
    left, right = left.detach().cpu().double(), right.detach().cpu().double()
    if left.shape != right.shape or not right.numel():
        return left.shape == right.shape
    return float((left - right).abs().max()) <= tolerance * float(right.abs().max())
