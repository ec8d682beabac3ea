"""The params of `patch.steer`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.parts import Params

DOSES = (-3.0, -2.0, -1.0, 0.5, 1.0, 2.0, 3.0)


class Steering(Params):
    """Which axis, at which layers, by which doses, and what counts as an outcome."""

    outcomes: dict[str, tuple[str, ...]] = Field(
        description="Outcome -> the continuations of the prompt that mean it; they must differ "
        "from their first token on.",
        min_length=1,
    )
    by: str = Field(description="The metadata key that names the groups.")
    between: tuple[str, str] = Field(
        description="The two groups: the axis points from the second one's mean to the first one's."
    )
    layers: tuple[int, ...] = Field(
        (), description="Layers after which the stream is moved, all of them together."
    )
    depth: tuple[float, float] = Field(
        (0.5, 0.66),
        description="Without `layers`: first and last moved layer, as shares of the "
        "model's blocks.",
    )
    doses: tuple[float, ...] = Field(
        DOSES,
        min_length=3,
        description="Doses in standard deviations of the samples along the axis.",
    )
    directions: int = Field(
        20, ge=19, description="Random directions, each moved as far as the axis."
    )
    axis_samples: int = Field(
        400, ge=2, description="Samples of the half that selects from which the axis is made."
    )
    points: int = Field(
        200,
        ge=2,
        description="Most decision points; every unit gives one before any gives a second.",
    )
    half: Literal["confirm", "all"] = Field(
        "confirm", description="confirm: the half of the units that the axis did not see."
    )

    def chosen_layers(self, count: int) -> list[int]:
        """The steered layers of a model with `count` blocks."""
        if self.layers:
            return sorted(set(self.layers))
        first, last = (min(count - 1, int(share * count)) for share in sorted(self.depth))
        return list(range(first, last + 1))
