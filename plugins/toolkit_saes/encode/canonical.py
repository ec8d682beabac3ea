"""The form that every adapter converts to: z = (x - b_dec if asked) W_enc + b_enc, f = gate(z), x^
= f W_dec + b_dec (+ x S).

Raw activations in, raw activations out, float32. A fixed scale (a data set's average norm) is kept
next to the weights, so that arithmetic is done in the order that the authors' code has it; a norm
of each row by itself is undone by `reconstruct` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import DataError
from toolkit.saes import Sae, Sparse
from toolkit_saes.encode.fused import fused
from toolkit_saes.encode.gates import BY_FEATURE, GATES
from toolkit_saes.encode.weights import Norm, Weights

if TYPE_CHECKING:
    from torch import Tensor

DENSE = 1 << 22
"""Numbers of a block of features over some rows that `sparse` computes at a time: 16 MB."""
DENSE_ON_GPU = 1 << 26
"""The same on a GPU: 256 MB."""


@dataclass(frozen=True)
class Facts:
    """What is known of an SAE before its weights are read. `output` is where a transcoder writes,
    and its width.
    """

    name: str
    release: str
    hookpoint: str
    width: int
    inputs: int
    digest: str
    recipe: str
    declared_l0: float | None
    output: tuple[str, int] | None = None
    neuronpedia: str | None = None
    signed: bool = False
    pointwise: bool = True


class CanonicalSae(Sae):
    """An SAE that reads its weights when they are first used, on the device of its inputs."""

    def __init__(self, facts: Facts, read: Callable[[], Weights]) -> None:
        self.name, self.release, self.hookpoint = facts.name, facts.release, facts.hookpoint
        self.width, self.inputs, self.digest = facts.width, facts.inputs, facts.digest
        self.recipe, self.declared_l0 = facts.recipe, facts.declared_l0
        self.neuronpedia, self.signed = facts.neuronpedia, facts.signed
        self.pointwise = facts.pointwise
        self._facts, self._read = facts, read
        self._loaded: Weights | None = None
        self._mapped: Weights | None = None

    @property
    def output_hookpoint(self) -> str:
        """The hookpoint of its reconstruction."""
        return self._facts.output[0] if self._facts.output else self.hookpoint

    @property
    def outputs(self) -> int:
        """The width of a reconstruction."""
        return self._facts.output[1] if self._facts.output else self.inputs

    def subtracts_b_dec(self) -> bool:
        """Whether b_dec is subtracted from the inputs."""
        return self._in_file().subtract_b_dec

    def run_as(self, change: Callable[[Weights], Weights]) -> CanonicalSae:
        """The same weights, run in another way."""
        return CanonicalSae(self._facts, lambda: change(self._in_file()))

    def encode(self, rows: Tensor) -> Tensor:
        """Activations: the output of the gate."""
        weights = self._for(rows)
        prepared, _ = _prepared(weights, rows)
        return GATES[weights.gate](weights.w_enc.into(prepared), weights)

    def active(self, rows: Tensor) -> Sparse:
        """The same as sparse rows."""
        weights = self._for(rows)
        prepared, _ = _prepared(weights, rows)
        return fused(weights.gate, weights.w_enc.into(prepared), weights)

    def sparse(self, rows: Tensor, chunk: int | None = None) -> Sparse:
        """Active features of rows. Where the gate treats features independently, each block of
        features is read once for all rows.
        """
        weights = self._for(rows)
        if weights.gate not in BY_FEATURE:
            return super().sparse(rows, chunk)
        return _sparse(weights, rows, chunk)

    def _for(self, rows: Tensor) -> Weights:
        """The weights, after checking the width of the rows."""
        if rows.shape[-1] != self.inputs:
            raise DataError(
                f"SAE {self.name} has the input width {self.inputs}, but the model's "
                f"{self.hookpoint} is {rows.shape[-1]} wide: the SAE belongs to another "
                "model. Name SAEs of this model."
            )
        return self.weights(rows)

    def decode(self, activations: Tensor) -> Tensor:
        """The reconstruction in stream units; without the skip connection of a transcoder, which
        needs the rows (see `reconstruct`).
        """
        weights = self._linear(self.weights(activations))
        return _divide(weights.w_dec.out_of(activations) + weights.b_dec, weights.scale_out)

    def decoder_rows(self, features: Sequence[int] | Tensor) -> Tensor:
        """Rows of W_dec, in the stream's units."""
        weights = self._linear(self._in_file())
        return _divide(weights.w_dec.rows(self._checked(features)), weights.scale_out)

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows divided by their own norm, where the SAE does that; constant factors are in the
        columns.
        """
        weights, rows = self._in_file(), rows.float()
        if weights.norm == "none":
            return rows
        return _normed(rows * weights.scale_in, weights.norm)[0]

    def encoder_columns(self, features: Sequence[int] | Tensor) -> Tensor:
        """Columns of W_enc, read from the file alone."""
        weights, chosen = self._in_file(), self._checked(features)
        columns = weights.w_enc.rows(chosen)
        if weights.norm == "none":  # otherwise `normalise` has applied it
            columns = columns * weights.scale_in
        if weights.gate == "gated":
            columns = columns * _magnitude(weights, chosen)[:, None]
        return columns

    def encoder_bias(self, features: Sequence[int] | Tensor) -> Tensor:
        """Encoder biases, with a subtracted b_dec folded in."""
        weights, chosen = self._in_file(), self._checked(features)
        selected = weights.features(chosen.to(weights.b_enc.device))
        taken = weights.w_enc.rows(chosen) @ weights.b_dec if weights.subtract_b_dec else 0.0
        if weights.gate != "gated":
            return selected.b_enc - taken
        assert selected.b_mag is not None
        return selected.b_mag - taken * _magnitude(weights, chosen)

    def thresholds(self, features: Sequence[int] | Tensor) -> Tensor:
        """Thresholds in units of pre-activations, whatever the gate ranks by."""
        weights, chosen = self._in_file(), self._checked(features)
        if weights.gate not in BY_FEATURE:
            raise DataError(
                f"SAE {self.name} has no thresholds: its gate ({weights.gate}) lets features "
                "compete. Use `activations_of`, which encodes whole rows."
            )
        selected = weights.features(chosen.to(weights.b_enc.device))
        if weights.gate == "relu":
            return selected.b_enc.new_zeros(len(chosen))
        if weights.gate == "gated":
            assert selected.b_mag is not None
            return (selected.b_mag - selected.b_enc * _magnitude(weights, chosen)).clamp(min=0)
        assert selected.threshold is not None
        lowest = selected.threshold.clamp(min=0).expand(len(chosen))
        if selected.rank_by is None:
            return lowest
        return (lowest / selected.rank_by).nan_to_num(nan=float("inf"), posinf=float("inf"))

    def activations_of(self, rows: Tensor, features: Sequence[int] | Tensor) -> Tensor:
        """Activations of some features, by the arithmetic of `encode`: equal up to the rounding of
        a product.
        """
        weights, chosen = self._in_file(), self._checked(features)
        if weights.gate not in BY_FEATURE:
            return self.encode(rows)[:, chosen.to(rows.device)]
        prepared, _ = _prepared(weights, rows.to(weights.b_enc.device))
        selected = weights.features(chosen.to(weights.b_enc.device))
        return GATES[weights.gate](prepared @ weights.w_enc.rows(chosen).T, selected).to(
            rows.device
        )

    def reconstruct(self, rows: Tensor, activations: Tensor | None = None) -> Tensor:
        """Encode and decode, with the skip connection and each row's norm restored."""
        weights = self.weights(rows)
        result = self.encode(rows) if activations is None else activations
        rebuilt = weights.w_dec.out_of(result) + weights.b_dec
        if weights.undo_norm:
            rebuilt = _prepared(weights, rows)[1](rebuilt)
        if weights.skip is not None:
            rebuilt = rebuilt + weights.skip.into(rows.float())
        return _divide(rebuilt, weights.scale_out)

    def release_memory(self) -> None:
        """Release the weights."""
        self._loaded = self._mapped = None

    def weights(self, like: Tensor) -> Weights:
        """The weights on the device of `like`."""
        loaded = self._loaded
        if loaded is None or loaded.b_dec.device != like.device:
            loaded = self._loaded = (self._mapped or self._read()).on(like.device)
            self._mapped = None
        return loaded

    def _in_file(self) -> Weights:
        """The loaded weights, else weights mapped from their file."""
        if self._loaded is not None:
            return self._loaded
        if self._mapped is None:
            self._mapped = self._read()
        return self._mapped

    def _checked(self, features: Sequence[int] | Tensor) -> Tensor:
        """Feature indices as a tensor; one out of range is an error."""
        import torch

        chosen = torch.as_tensor(features if hasattr(features, "device") else list(features))
        chosen = chosen.to(torch.long)
        wrong = chosen[(chosen < 0) | (chosen >= self.width)]
        if len(wrong):
            raise DataError(
                f"SAE {self.name} has no feature {int(wrong[0])}; its features are 0 to "
                f"{self.width - 1}."
            )
        return chosen

    def _linear(self, weights: Weights) -> Weights:
        """The weights, if their output is in stream units for any row; an SAE that restores row
        norms is refused.
        """
        if weights.norm != "none" and weights.undo_norm:
            raise DataError(
                f"SAE {self.name} restores the norm of each row ({weights.norm} norm), so what a "
                "feature adds to the stream differs from row to row. It can be extracted and "
                "examined, but not decoded or edited with by itself: choose another SAE."
            )
        return weights


def _magnitude(weights: Weights, features: Tensor) -> Tensor:
    """The magnitude factor of a gated SAE's columns."""
    assert weights.r_mag is not None
    return weights.r_mag[features.to(weights.r_mag.device)].exp()


def _divide(rows: Tensor, by: float) -> Tensor:
    return rows if by == 1 else rows / by


def _sparse(weights: Weights, rows: Tensor, chunk: int | None) -> Sparse:
    """Computes blocks of features, each for so few rows at a time that no matrix is large."""
    entries, max_numbers = (
        _ActiveFeatures(rows),
        DENSE if rows.device.type == "cpu" else DENSE_ON_GPU,
    )
    for part, block in weights.w_enc.blocks():
        selected, step = (
            weights.features(part),
            min(chunk or max_numbers, max(1, max_numbers // len(block))),
        )
        for start in range(0, len(rows), step):
            prepared, _ = _prepared(weights, rows[start : start + step])
            entries.add(GATES[weights.gate](prepared @ block.T, selected), start, part.start)
    return entries.by_row()


class _ActiveFeatures:
    """Collects active features in growing arrays; many small arrays between large ones would
    fragment the heap.
    """

    def __init__(self, rows: Tensor) -> None:
        import torch

        self._rows, self._count, room = len(rows), 0, 1024 + 128 * len(rows)
        self._arrays = [
            torch.empty(room, dtype=kind, device=rows.device)
            for kind in (torch.long, torch.long, torch.float32)
        ]

    def add(self, active: Tensor, row: int, feature: int) -> None:
        """Add the non-zero entries of a matrix whose corner is at a row and feature."""
        import torch

        rows, features = _nonzero(active)
        end = self._count + len(rows)
        if end > len(self._arrays[0]):
            self._arrays = [
                torch.cat([array, torch.empty_like(array), array.new_empty(len(rows))])
                for array in self._arrays
            ]
        for array, new in zip(
            self._arrays, (rows + row, features + feature, active[rows, features]), strict=True
        ):
            array[self._count : end] = new
        self._count = end

    def by_row(self) -> Sparse:
        """The entries sorted by row, then feature."""
        import torch

        row, feature, value = (array[: self._count] for array in self._arrays)
        order = row.argsort(stable=True)
        return Sparse(torch.bincount(row, minlength=self._rows), feature[order], value[order])


def _nonzero(active: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of non-zero entries. NumPy does it on the CPU, in half the time."""
    import numpy as np
    import torch

    if active.device.type != "cpu":
        rows, features = active.nonzero(as_tuple=True)
        return rows, features
    flat = torch.from_numpy(np.flatnonzero(active.contiguous().numpy() != 0))
    return flat // active.shape[1], flat % active.shape[1]


def _prepared(weights: Weights, rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Rows in the encoder's form, and the inverse."""
    rows = rows.float()
    normed, undo = _normed(rows if weights.scale_in == 1 else rows * weights.scale_in, weights.norm)
    return (normed - weights.b_dec if weights.subtract_b_dec else normed), undo


def _normed(rows: Tensor, norm: Norm) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    if norm == "row":
        factor = rows.shape[-1] ** 0.5 / rows.norm(dim=-1, keepdim=True).clamp(min=1e-20)
        return rows * factor, lambda rebuilt: rebuilt / factor
    if norm == "layer":
        mean = rows.mean(dim=-1, keepdim=True)
        spread = (rows - mean).std(dim=-1, keepdim=True)
        return (rows - mean) / (spread + 1e-5), lambda rebuilt: rebuilt * spread + mean
    return rows, lambda rebuilt: rebuilt
