"""Records of what was planted: the role of each feature, the files of its SAE, and the effect of
ablating it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["wide", "narrow", "lossy"]
Layout = Literal["llama_scope", "gemma_scope"]
Role = Literal["causal", "paired", "inert", "background", "bos", "dead"]


@dataclass(frozen=True)
class FeatureTruth:
    """One feature of one SAE.

    Roles: `causal` features move the decision. `paired` ones move it only when
    both of a pair are ablated. `inert` ones write to a direction that nothing after
    their layer reads. `background` ones live in the filler subspace and move other words' logits,
    not the decision. `bos` ones fire on the BOS token alone. `dead` ones never fire, and forced on
    they leave the decision alone. `effect` is the change of the decision logit difference (stop
    minus bet) that the usual value makes at the last position, 0 unless causal.
    """

    index: int
    direction: str
    role: Role
    dense: bool = False
    effect: float = 0.0

    @property
    def sign(self) -> int:
        """+1 if the feature raises stop over bet, -1 if it lowers it, 0 if it has no effect."""
        return (self.effect > 0) - (self.effect < 0)


@dataclass(frozen=True)
class SaeTruth:
    """One SAE over `resid_post.<layer>`: its files, what it measures without BOS, and its features
    by index.
    """

    name: str
    kind: Kind
    layout: Layout
    layer: int
    path: Path
    l0: float
    explained_variance: float
    l0_bos: float
    explained_variance_with_bos: float
    features: tuple[FeatureTruth, ...]

    def ids(self, role: Role) -> list[int]:
        """Indices of all features in one role."""
        return [feature.index for feature in self.features if feature.role == role]

    @property
    def dense_ids(self) -> list[int]:
        """Indices of features that fire on every word."""
        return [feature.index for feature in self.features if feature.dense]

    def named(self, direction: str) -> FeatureTruth | None:
        """Return the feature of a named direction, or None if this SAE has none."""
        return next((feature for feature in self.features if feature.direction == direction), None)


@dataclass(frozen=True)
class Duplicate:
    """One direction that is a feature of two SAEs of one site, under two indices."""

    direction: str
    layer: int
    first: tuple[str, int]  # SAE name, feature index
    second: tuple[str, int]


@dataclass(frozen=True, eq=False)
class PlantedTruth:
    """Everything that is true by construction."""

    seed: int
    stop_id: int
    bet_id: int
    cause_words: tuple[str, ...]
    shield_words: tuple[str, ...]
    twins: dict[str, str]  # cause or shield word -> the word that differs from it in nothing else
    effect: float  # what the cause adds to the decision logit difference
    shield_effect: float  # what the shield subtracts from it
    drift_effect: float  # what the last word always subtracts from it
    path: tuple[tuple[str, str], ...]  # (hookpoint, direction) from the cause word to the decision
    directions: dict[str, npt.NDArray[np.float64]]  # unit vectors in the residual stream
    saes: tuple[SaeTruth, ...]
    duplicates: tuple[Duplicate, ...]
    pair: tuple[str, ...] = ()  # two directions after the cause, either of which suffices
    pair_effect: float = 0.0  # what both together add to the decision logit difference

    def sae(self, kind: Kind, layer: int, layout: Layout | None = None) -> SaeTruth:
        """The SAE of a kind at a layer; a wide one exists in both layouts, and `layout`
        chooses; by default it is Llama Scope.
        """
        results = [
            s
            for s in self.saes
            if (s.kind, s.layer) == (kind, layer) and layout in (None, s.layout)
        ]
        if not results:
            raise KeyError(
                f"no {kind} SAE at layer {layer}; the SAEs are {[s.name for s in self.saes]}"
            )
        return results[0]


@dataclass(frozen=True, eq=False)
class Planted:
    """Folders of a planted model and its SAEs, with the truth about them."""

    folder: Path
    model: Path
    llama_scope: Path  # release folder, one subfolder per layer
    lossy: Path  # a second Llama Scope release, one layer only
    gemma_scope: Path  # release folder, two sparsities per layer
    truth: PlantedTruth
