"""SAEs with a random decoder, the control of a screen: `control_saes: random_decoder`.

Published tests found that SAEs whose decoder was never trained do as well as trained ones. A
control SAE fires exactly where its SAE does, and each feature writes along a random direction as
long as its trained decoder row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.saes import Sae, Sparse

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.work import Work


class RandomDecoder(Sae):
    """An SAE with its trained encoder and a random decoder. A feature's direction depends on the
    seed, the space and the feature's index alone, so all steps of a screen use the same one.
    """

    def __init__(self, sae: Sae, work: Work, space: str) -> None:
        self._trained, self._work, self._space = sae, work, space
        self.name, self.hookpoint, self.release = sae.name, sae.hookpoint, sae.release
        self.width, self.inputs, self.digest = sae.width, sae.inputs, sae.digest
        self.signed, self.pointwise = sae.signed, sae.pointwise
        self.recipe = f"{sae.recipe}, random decoder"

    @property
    def output_hookpoint(self) -> str:
        return self._trained.output_hookpoint

    @property
    def outputs(self) -> int:
        return self._trained.outputs

    def encode(self, rows: Tensor) -> Tensor:
        return self._trained.encode(rows)

    def active(self, rows: Tensor) -> Sparse:
        return self._trained.active(rows)

    def decode(self, activations: Tensor) -> Tensor:
        """The trained decoder's output, with the row of every active feature replaced."""
        active = activations.any(dim=0).nonzero()[:, 0].tolist()
        changed = self.decoder_rows(active) - self._trained.decoder_rows(active).float()
        decoded: Tensor = self._trained.decode(activations) + activations[:, active] @ changed
        return decoded

    def decoder_rows(self, features: Sequence[int] | Tensor) -> Tensor:
        """Random directions, each as long as the trained row."""
        import torch

        lengths = self._trained.decoder_rows(features).float().norm(dim=1, keepdim=True)
        directions = torch.empty((len(features), self.outputs))
        for number, feature in enumerate(torch.as_tensor(features).tolist()):
            rng = self._work.rng("patch.control_decoder", self._space, feature)
            directions[number] = torch.from_numpy(rng.standard_normal(self.outputs))
        units = torch.nn.functional.normalize(directions, dim=1).to(lengths)
        rows: Tensor = units * lengths
        return rows

    def normalise(self, rows: Tensor) -> Tensor:
        return self._trained.normalise(rows)

    def encoder_columns(self, features: Sequence[int] | Tensor) -> Tensor:
        return self._trained.encoder_columns(features)

    def encoder_bias(self, features: Sequence[int] | Tensor) -> Tensor:
        return self._trained.encoder_bias(features)

    def thresholds(self, features: Sequence[int] | Tensor) -> Tensor:
        return self._trained.thresholds(features)
