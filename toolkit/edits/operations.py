"""Operations: what is done to the chosen tokens of a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolkit.edits.changes import ABLATE, Change, values_of_targets
from toolkit.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.edits.changes import Values
    from toolkit.saes import Sae


class Operation(ABC):
    """What is done to the chosen tokens of a stream."""

    @abstractmethod
    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        """(m, width) -> (m, width), float32. `read` is the stream at the edit's `reads`: `stream`
        itself unless the edit names another hookpoint. Token i belongs to target index[i].
        """


@dataclass(frozen=True)
class OnStream(Operation):
    """Change the stream itself, or the columns first:last of it (one head of attn_z)."""

    change: Change
    columns: tuple[int, int] | None = None

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        if self.columns is None:
            return self.change.new(stream, index)
        first, last = self.columns
        new = stream.clone()
        new[:, first:last] = self.change.new(stream[:, first:last], index)
        return new


@dataclass(frozen=True)
class OnDirections(Operation):
    """Change the stream's coordinates along unit vectors: h' = h + sum (new_k - h.u_k) u_k.
    `directions`: (k, width), or (targets, k, width); their length does not matter.
    """

    directions: Tensor
    change: Change

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        import torch

        units = torch.nn.functional.normalize(self.directions.float(), dim=-1)
        units = values_of_targets(units, index, 2, stream)
        old = _product(stream, units)
        return stream + _combined(self.change.new(old, index) - old, units)


@dataclass(frozen=True)
class Steer(Operation):
    """Move the stream along a direction: h' = h + strength * size * u, where the size is 1 (`raw`),
    the token's own norm (`norm`), or the standard deviation of the activation along u (`sd`, which
    must be given). `direction`: (width,) or (targets, width).
    """

    direction: Tensor
    strength: Values
    unit: Literal["raw", "norm", "sd"] = "raw"
    sd: Values | None = None

    def __post_init__(self) -> None:
        if (self.unit == "sd") != (self.sd is not None):
            raise BadInput("steer: give `sd` with unit 'sd', and with no other unit.")

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        import torch

        unit = torch.nn.functional.normalize(self.direction.float(), dim=-1)
        strength = values_of_targets(self.strength, index, 0, stream)
        size = stream.norm(dim=-1) if self.unit == "norm" else stream.new_ones(len(stream))
        if self.sd is not None:
            size = size * values_of_targets(self.sd, index, 0, stream)
        return stream + (strength * size)[:, None] * values_of_targets(unit, index, 1, stream)


@dataclass(frozen=True)
class OnFeatures(Operation):
    """Change features by rank-one edits that keep what the SAE does not explain: h' = h + sum
    (new_k - f_k) d_k, with f_k = z if z > threshold else 0 and z = read.column + bias.

    `columns`, `decoder_rows`: (k, width) or (targets, k, width); `biases`, `thresholds`: (k,) or
    (targets, k). Each target may edit different features. A threshold of -inf means no gate.
    `normalise` turns rows into what the columns read, if each row is divided by its own norm.
    """

    columns: Tensor
    biases: Tensor
    thresholds: Tensor
    decoder_rows: Tensor
    change: Change
    normalise: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, sae: Sae, features: Sequence[int], change: Change) -> Operation:
        """Edit features of an SAE: by their columns if each feature depends on its own
        pre-activation alone, else (TopK) by encoding the whole row.
        """
        if not sae.pointwise:
            return OnSae(sae, tuple(features), change)
        return cls(
            sae.encoder_columns(features),
            sae.encoder_bias(features),
            sae.thresholds(features),
            sae.decoder_rows(features),
            change,
            sae.normalise,
        )

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        normalised = self.normalise(read) if self.normalise else read
        before = _product(normalised, values_of_targets(self.columns, index, 2, normalised))
        before = before + values_of_targets(self.biases, index, 1, normalised)
        old = before * (before > values_of_targets(self.thresholds, index, 1, normalised))
        change = self.change.new(old, index) - old
        return stream + _combined(change, values_of_targets(self.decoder_rows, index, 2, stream))


@dataclass(frozen=True)
class OnSae(Operation):
    """Edits that need the whole SAE: h' = h + sum (new_k - f_k) d_k, or with `keep_error=False`
    the reconstruction in place of the stream, with the chosen features changed in it. No features:
    the reconstruction alone.
    """

    sae: Sae
    features: tuple[int, ...] = ()
    change: Change = ABLATE
    keep_error: bool = True

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        active = self.sae.encode(read).to(stream.device)
        chosen = list(self.features)
        rows = self.sae.decoder_rows(chosen).to(stream) if chosen else stream.new_empty((0, 1))
        old = active[:, chosen]
        base = stream if self.keep_error else self.sae.reconstruct(read, active).to(stream)
        return base + (self.change.new(old, index) - old) @ rows if chosen else base


def _product(stream: Tensor, vectors: Tensor) -> Tensor:
    """(m, width) with (k, width) or (m, k, width) -> (m, k)."""
    if vectors.ndim == 2:
        return stream @ vectors.T
    return (stream[:, None] @ vectors.transpose(1, 2))[:, 0]


def _combined(weights: Tensor, vectors: Tensor) -> Tensor:
    """(m, k) with (k, width) or (m, k, width) -> (m, width)."""
    return weights @ vectors if vectors.ndim == 2 else (weights[:, None] @ vectors)[:, 0]
