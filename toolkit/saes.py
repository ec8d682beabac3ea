"""What an SAE part's `load` returns: SAEs, each with its hookpoint and identity, and the space that
an SAE and a model define.

A *space* is model@revision, hookpoint, the hash of the SAE's own files and the recipe by which it
is run. A feature number has a meaning only inside its space, so every row about a feature carries
the space's id.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from toolkit.identity import Identity
    from toolkit.work import Inputs


DENSE = 1 << 24
"""Numbers in one block of dense activations: 64 MB."""
LONGER = 4
"""How many times larger a block is on a GPU, which small blocks would not keep busy."""


@dataclass(frozen=True)
class Sparse:
    """Active features of many rows: row i has the next `counts[i]` entries of `features` and
    `values`.
    """

    counts: Tensor
    features: Tensor
    values: Tensor


@dataclass(frozen=True)
class Decoder:
    """The decoder of an SAE as its files hold it, read without torch: `rows(first, last)` gives a
    range of features, float32.

    Only directions matter: scales and signs of whole matrices depend on the file layout. `digest`
    is that of the SAE, to check that it is the right one.
    """

    digest: str
    width: int
    rows: Callable[[int, int], np.ndarray]


FeatureType = Literal["sae", "transcoder", "cross layer transcoder"]
"""Kinds of features, as attribution graph files name them: of an SAE, which reconstructs the
hookpoint that it reads; of a transcoder, which writes to another one; of a cross-layer transcoder,
which writes at several layers.
"""


class Sae(ABC):
    """One SAE. Encoding and decoding are in the units of the model's own activations, float32."""

    name: str
    hookpoint: str
    release: str
    width: int
    inputs: int
    digest: str
    recipe: str
    declared_l0: float | None = None
    neuronpedia: str | None = None
    """Its id on Neuronpedia, `MODEL/SOURCE`, if it has pages there."""
    signed: bool = False
    """Whether activations may be below zero."""
    pointwise: bool = False
    """Whether each feature depends on its own pre-activation z and threshold t alone: z where z >
    t, else 0 (ReLU, JumpReLU, gated). False where features compete (TopK, BatchTopK). A skip
    connection does not matter here: its output does not depend on the features.
    """

    @abstractmethod
    def encode(self, rows: Tensor) -> Tensor:
        """(n, inputs) -> (n, width): activations, 0 where a feature is off."""

    @abstractmethod
    def decode(self, activations: Tensor) -> Tensor:
        """(n, width) -> (n, outputs): the part of the reconstruction that follows from the
        activations alone.
        """

    @abstractmethod
    def decoder_rows(self, features: Sequence[int] | Tensor) -> Tensor:
        """The vector that one unit of each feature adds to the output: (len(features), outputs)."""

    @property
    def output_hookpoint(self) -> str:
        """The hookpoint that is reconstructed: its own, or another one for a transcoder."""
        return self.hookpoint

    @property
    def feature_type(self) -> FeatureType:
        """The kind of its features in attribution graphs."""
        return "sae" if self.output_hookpoint == self.hookpoint else "transcoder"

    @property
    def outputs(self) -> int:
        """The width of a reconstruction."""
        return self.inputs

    def reconstruct(self, rows: Tensor, activations: Tensor | None = None) -> Tensor:
        """(n, inputs) -> (n, outputs): the reconstruction, including what depends on the rows
        themselves (a skip connection, their norm).

        `activations`: the result of `encode` for these rows, if already computed.
        """
        return self.decode(self.encode(rows) if activations is None else activations)

    @property
    def layer(self) -> int:
        """The layer of the hookpoint."""
        return int(self.hookpoint.rpartition(".")[2])

    def sparse(self, rows: Tensor, chunk: int | None = None) -> Sparse:
        """Active features of rows, a chunk at a time: no dense matrix of all rows is made."""
        size = chunk or max(
            1, (DENSE if rows.device.type == "cpu" else LONGER * DENSE) // self.width
        )
        return _joined(
            [self.active(rows[start : start + size]) for start in range(0, len(rows), size)]
        )

    def active(self, rows: Tensor) -> Sparse:
        """Active features of a few rows: what `encode` gives, without its zeros. Override it if
        there is a faster way.
        """
        return without_zeros(self.encode(rows))

    # --- chosen features, without the others: what an edit of one feature needs ---

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows as `encoder_columns` reads them, float32. Override it if each row is divided by its
        own norm; factors that are the same for all rows belong in columns and biases.
        """
        return rows.float()

    def encoder_columns(self, features: Sequence[int] | Tensor) -> Tensor:
        """The direction that each chosen feature reads: (len(features), inputs), float32, in the
        units of `normalise`, with every constant norm factor folded in.
        """
        raise self._without_columns()

    def encoder_bias(self, features: Sequence[int] | Tensor) -> Tensor:
        """The bias that is added to `normalise(rows) @ encoder_columns(features).T`:
        (len(features),).
        """
        raise self._without_columns()

    def thresholds(self, features: Sequence[int] | Tensor) -> Tensor:
        """The value that a pre-activation must exceed for its feature to fire, at least 0:
        (len(features),). Only a pointwise SAE has thresholds.
        """
        raise self._without_columns()

    def preactivations(self, rows: Tensor, features: Sequence[int] | Tensor) -> Tensor:
        """(n, inputs) -> (n, len(features)): the values that are compared with the thresholds."""
        columns, bias = self.encoder_columns(features), self.encoder_bias(features)
        normalised = self.normalise(rows)
        return normalised @ columns.to(normalised.device).T + bias.to(normalised.device)

    def activations_of(self, rows: Tensor, features: Sequence[int] | Tensor) -> Tensor:
        """(n, inputs) -> (n, len(features)): what `encode` gives for the chosen features. A
        pointwise SAE reads their columns only.
        """
        if not self.pointwise:
            return self.encode(rows)[:, features]
        before = self.preactivations(rows, features)
        return before * (before > self.thresholds(features).to(before.device))

    def _without_columns(self) -> DataError:
        return DataError(
            f"SAE {self.name} has no encoder columns, so single features cannot be edited "
            "without the whole SAE. Its adapter must override encoder_columns, encoder_bias and "
            "thresholds of toolkit.saes.Sae."
        )

    def release_memory(self) -> None:
        """Release the weights; they are read again when needed."""
        return


def without_zeros(dense: Tensor) -> Sparse:
    """The nonzero entries of a dense matrix. On the CPU NumPy takes half the time of torch."""
    import numpy as np
    import torch

    if dense.device.type != "cpu" or dense.dtype != torch.float32:
        indices = dense.nonzero()
        return Sparse(
            torch.bincount(indices[:, 0], minlength=len(dense)),
            indices[:, 1],
            dense[indices[:, 0], indices[:, 1]],
        )
    array = dense.detach().contiguous().numpy()
    there = array != 0
    flat = np.flatnonzero(there)
    parts = there.sum(axis=1), flat % array.shape[1], array.reshape(-1)[flat]
    return Sparse(*(torch.from_numpy(part) for part in parts))


def _joined(parts: Sequence[Sparse]) -> Sparse:
    import torch

    if not parts:
        none = torch.empty(0, dtype=torch.long)
        return Sparse(none, none, torch.empty(0))
    if len(parts) == 1:
        return parts[0]
    columns = zip(*((part.counts, part.features, part.values) for part in parts), strict=True)
    return Sparse(*(torch.cat(column) for column in columns))


def space_id(model: Identity, sae: Sae) -> str:
    """The id of the space of an SAE and a model: equal for equal weights and recipe, wherever the
    files are.
    """
    material = [model.digest, sae.hookpoint, sae.digest, sae.recipe]
    return hashlib.sha256(json.dumps(material).encode()).hexdigest()[:16]


def space_row(model: Identity, sae: Sae) -> dict[str, Any]:
    """The row of table `spaces`."""
    return {
        "space": space_id(model, sae),
        "model": model.name,
        "revision": model.revision,
        "hookpoint": sae.hookpoint,
        "sae": sae.name,
        "sae_hash": sae.digest,
        "recipe": sae.recipe,
        "width": sae.width,
        "address": f"{model.name}/{sae.hookpoint}/{sae.name}",
    }


def average_l0s(inputs: Inputs) -> dict[str, float]:
    """The L0 of each space: the one that its SAE declares if it was examined, else the one in its
    name; spaces with neither are left out.
    """
    named = {
        row["space"]: _NAMED_L0.search(str(row["sae"])) for row in inputs.read("spaces").to_pylist()
    }
    examined = inputs.read("saes").to_pylist() if "saes" in inputs.tables() else []
    declared = {
        row["space"]: row["declared_l0"] for row in examined if row["declared_l0"] is not None
    }
    return {space: float(match[1]) for space, match in named.items() if match} | declared


_NAMED_L0 = re.compile(r"average_l0_(\d+)")

RAW_RECIPE = "raw residual"
"""The recipe of a space that has no SAE: its features are the numbers of the stream itself."""


def raw_space_row(model: Identity, hookpoint: str, width: int) -> dict[str, Any]:
    """The row of table `spaces` for the raw stream at a hookpoint.

    Its id is made with this recipe and without an SAE, so it differs from the id of every SAE's
    space: dimension 7 of the stream is never mistaken for feature 7.
    """
    material = [model.digest, hookpoint, None, RAW_RECIPE]
    return {
        "space": hashlib.sha256(json.dumps(material).encode()).hexdigest()[:16],
        "model": model.name,
        "revision": model.revision,
        "hookpoint": hookpoint,
        "sae": None,
        "sae_hash": None,
        "recipe": RAW_RECIPE,
        "width": width,
        "address": f"{model.name}/{hookpoint}/raw",
    }
