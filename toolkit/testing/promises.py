"""Helpers of contract checks: a violation raises an error that names the part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.models import Model
from toolkit.parts import Part
from toolkit.saes import Sae

if TYPE_CHECKING:
    from torch import Tensor


class Broken(AssertionError):
    """A part violates its contract."""


def must(holds: object, part: Part, text: str) -> None:
    if not holds:
        raise Broken(f"{part.kind} part '{part.name}': {text}")


def require(of: Part | Model | Sae, holds: object, text: str) -> None:
    """Raise `Broken` unless the promise holds."""
    if not holds:
        raise Broken(f"{_named(of)}: {text}")


def _named(of: Part | Model | Sae) -> str:
    if isinstance(of, Model):
        return f"model '{of.identity.name}'"
    return f"SAE '{of.name}'" if isinstance(of, Sae) else f"{of.kind} part '{of.name}'"


def near(left: Tensor, right: Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal, up to a share of the largest value."""
    left, right = left.detach().cpu().double(), right.detach().cpu().double()
    if left.shape != right.shape or not right.numel():
        return left.shape == right.shape
    return float((left - right).abs().max()) <= tolerance * float(right.abs().max())


def as_json_data(value: Mapping[str, Any]) -> Any:
    """The value after a round trip through JSON; None if it is not plain data."""
    try:
        return json.loads(json.dumps(dict(value)))
    except (TypeError, ValueError):
        return None
