"""What the examination measures of an SAE at one site, and when that fits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import DataError
from toolkit.saes import DENSE, Sae

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 64
"""SAEs are examined on the tokens of this many first samples."""
LOW, HIGH = 1 / 3, 3.0
"""An SAE fits if its L0 is between these multiples of the declared one."""

LEAST_EV = 0.5
"""And if it explains at least this share of the variance."""

CLEARLY = 0.5
"""A layer or recipe fits clearly better if it leaves at most this share of the unexplained
variance, and its L0 is closer.
"""

BY_FAR = 0.2
"""Another site of the same layer fits better only if it leaves at most this share: such sites are
more similar.
"""


@dataclass(frozen=True)
class SaeMeasurement:
    """The measurements of an SAE at one site."""

    l0: float
    explained_variance: float
    cosine: float
    dead_share: float
    tokens: int

    def fits(self, declared: float | None) -> bool:
        """Whether they agree with what the SAE declares."""
        sparse = declared is None or LOW * declared <= self.l0 <= HIGH * declared
        return sparse and self.explained_variance >= LEAST_EV

    def suits_better(self, other: SaeMeasurement, declared: float | None) -> bool:
        """Whether this site is clearly better than another."""
        unexplained, other_unexplained = 1 - self.explained_variance, 1 - other.explained_variance
        nearer = (
            not other.fits(declared)
            or declared is None
            or ratio(self.l0, declared) <= ratio(other.l0, declared)
        )
        return self.fits(declared) and nearer and unexplained <= CLEARLY * other_unexplained

    def suits_by_far(self, other: SaeMeasurement, declared: float | None) -> bool:
        """Whether this other site of the layer is the right one: sites of one layer are more
        similar than layers.
        """
        unexplained, other_unexplained = 1 - self.explained_variance, 1 - other.explained_variance
        return self.suits_better(other, declared) and (
            not other.fits(declared) or unexplained <= BY_FAR * other_unexplained
        )

    def repairs(self, other: SaeMeasurement, declared: float | None) -> bool:
        """Whether running the weights this way makes the SAE fit and explains no less."""
        worse = self.explained_variance < other.explained_variance
        return self.suits_better(other, declared) or (
            self.fits(declared) and not other.fits(declared) and not worse
        )


def measure(
    sae: Sae, rows: Tensor, chunk: int | None = None, targets: Tensor | None = None
) -> SaeMeasurement:
    """L0, explained variance and so on over rows, summed in float64; `targets` are what a
    transcoder should output, else the rows.
    """
    import torch

    expected = rows if targets is None else targets
    mean = expected.double().mean(0)
    active, error, spread, cosine = 0, 0.0, 0.0, 0.0
    fired = torch.zeros(sae.width, dtype=torch.bool, device=rows.device)
    step = chunk or max(1, DENSE // sae.width)
    for start in range(0, len(rows), step):
        left, right = rows[start : start + step].float(), expected[start : start + step].float()
        activations = sae.encode(left)
        rebuilt = sae.reconstruct(left, activations)
        active += int((activations != 0).sum())
        fired |= (activations != 0).any(0)
        error += float((right - rebuilt).double().square().sum())
        spread += float((right.double() - mean).square().sum())
        cosine += float(torch.cosine_similarity(right, rebuilt, dim=-1).double().sum())
    if not spread:
        raise DataError(
            f"examination of SAE {sae.name}: the first {SAMPLES} samples give {len(rows)} tokens, "
            "all with the same stream, so that there is nothing to explain. Give more samples, or "
            "longer ones."
        )
    count = len(rows)
    return SaeMeasurement(
        active / count, 1 - error / spread, cosine / count, 1 - float(fired.double().mean()), count
    )


def ratio(l0: float, declared: float) -> float:
    """The ratio to the declared value, at least 1."""
    return abs(math.log(max(l0, 1e-9) / declared))
