"""The edits of a screen: each candidate of a space at one decision point, under every arm.

An edit keeps what the SAE does not explain: h' = h + (v - f) d, in float32, whatever the model
computes in. Shapes: K candidates, W the stream's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, choices
from toolkit.hookpoints import hookpoint

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae

    from .passes import Reading

SHAM = "sham"
SETS = ("set_a", "set_b")
REBUILT = ("reconstruct", "reconstruct_a", "reconstruct_b")
FEATURES = ("random_feature_a", "random_feature_b")
DIRECTIONS = ("random_direction_a", "random_direction_b")
SHUFFLED = ("shuffled_a", "shuffled_b")
MEANS = ("mean_difference_a", "mean_difference_b")
PROMPT_ONLY = "prompt_only"


@dataclass(frozen=True, eq=False)
class MeanDifference:
    """The direction from one group's mean stream to the other's at one hookpoint: `unit` (W,), and
    the position of either mean along it.
    """

    unit: Tensor
    position_a: float
    position_b: float


@dataclass(frozen=True, eq=False)
class SpaceEdits:
    """The candidates of one space and the data of their edits: `rows` (K, W) of the decoder, the
    two `values` (K, 2), and the directions of the random arms, each as long as its candidate's row.
    `members` are the numbers of these candidates in the step. `shuffled` (K, 2): the two values
    after the labels of the compared units are shuffled.
    """

    sae: Sae
    members: np.ndarray[Any, Any]
    features: Tensor
    values: Tensor
    rows: Tensor
    random_features: Tensor | None
    random_directions: Tensor | None
    shuffled: Tensor | None = None
    means: MeanDifference | None = None

    @property
    def hookpoint(self) -> str:
        """The hookpoint that is edited: for a transcoder, that of its output."""
        return self.sae.output_hookpoint

    def own_values(self, reading: Reading) -> Tensor:
        """(K,) activations of the candidates at a decision point."""
        stream = reading.streams[self.sae.hookpoint][None]
        return self.sae.activations_of(stream, self.features)[0]

    def edits(self, reading: Reading, arms: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """(arm, streams): one stream per candidate, or a single one for the arms that are the same
        for all.
        """
        stream, activations = reading.streams[self.hookpoint], self.own_values(reading)
        yield SHAM, (stream + (activations[:1] - activations[:1])[:, None] * self.rows[:1])
        change = self.values - activations[:, None]
        for arm, column in zip(SETS, change.T, strict=True):
            yield arm, stream + column[:, None] * self.rows
        if "reconstruct" in arms:
            rebuilt = self.sae.reconstruct(reading.streams[self.sae.hookpoint][None])[0]
            yield "reconstruct", rebuilt[None]
            for arm, column in zip(REBUILT[1:], change.T, strict=True):
                yield arm, rebuilt + column[:, None] * self.rows
        for names, directions in (
            (FEATURES, self.random_features),
            (DIRECTIONS, self.random_directions),
        ):
            if directions is not None:
                for arm, column in zip(names, change.T, strict=True):
                    yield arm, stream + column[:, None] * directions
        if self.shuffled is not None:
            for arm, column in zip(SHUFFLED, (self.shuffled - activations[:, None]).T, strict=True):
                yield arm, stream + column[:, None] * self.rows
        if self.means is not None:
            unit = self.means.unit.to(stream)
            for arm, target in zip(
                MEANS, (self.means.position_a, self.means.position_b), strict=True
            ):
                yield arm, (stream + (target - stream @ unit) * unit)[None]


def check_sites(model: Model, saes: Sequence[Sae]) -> None:
    """Refuse SAEs whose output is at a hookpoint that the model cannot edit."""
    for sae in saes:
        point = hookpoint(sae.output_hookpoint)
        if point.site not in model.editable or point.layer >= model.layers:
            sites = choices(f"{site}.LAYER" for site in model.editable)
            raise BadInput(
                f"saes: features of {sae.name} write to {sae.output_hookpoint}, which "
                f"{model.identity.name} cannot edit: it has {model.layers} layers and edits "
                f"{sites}. Screen SAEs of these sites."
            )


def rows_of_arms(arms: Sequence[str]) -> tuple[str, ...]:
    """Names of all rows of these control arms, with the sham and both values."""
    names: tuple[str, ...] = (SHAM, *SETS)
    for arm, row_names in (
        ("reconstruct", REBUILT),
        ("random_feature", FEATURES),
        ("random_direction", DIRECTIONS),
        ("shuffled", SHUFFLED),
        ("mean_difference", MEANS),
    ):
        names += row_names if arm in arms else ()
    return names
