"""The params of `patch.steer`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.parts import Params

DOSES = (-3.0, -2.0, -1.0, 0.5, 1.0, 2.0, 3.0)


class Steering(Params):
    """Which axis, at which layers, by which doses, and what counts as an outcome."""

    outcomes: dict[str, tuple[str, ...]] = Field(
        description="For each outcome, the continuations of the prompt that count as it; their "
        "first tokens must differ.",
        min_length=1,
    )
    by: str = Field(description="The metadata key that holds a sample's group.")
    between: tuple[str, str] = Field(
        description="The two groups: the axis points from the mean of the second to the mean of "
        "the first."
    )
    layers: tuple[int, ...] = Field(
        (), description="Layers after which the stream is moved, all in the same pass."
    )
    depth: tuple[float, float] = Field(
        (0.5, 0.66),
        description="Without `layers`: the first and the last steered layer, as shares of the "
        "model's depth.",
    )
    doses: tuple[float, ...] = Field(
        DOSES,
        min_length=3,
        description="Doses in standard deviations of the samples along the axis.",
    )
    directions: int = Field(
        20,
        ge=19,
        description="Number of random directions, along which the stream is moved as far as along "
        "the axis.",
    )
    axis_samples: int = Field(
        400,
        ge=2,
        description="Maximum number of samples of the select half from which the axis is "
        "computed, half of them per group.",
    )
    points: int = Field(
        200,
        ge=2,
        description="Maximum number of decision points; every unit contributes one before any "
        "contributes a second.",
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
