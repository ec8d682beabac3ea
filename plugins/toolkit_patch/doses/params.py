"""The params of `patch.doses`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit_patch.screen.params import PatchOutcomes

DOSES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


class Doses(PatchOutcomes):
    """Which features are set to which doses, and at which decision points."""

    between: tuple[str, str] | None = Field(
        None, description="The two groups whose means are the values; as compared."
    )
    verdicts: tuple[str, ...] = Field(
        ("causal",), description="Features with these verdicts get doses."
    )
    features: tuple[str, ...] = Field(
        (), description="Addresses such as 25/2059: these features instead."
    )
    top: int = Field(12, ge=1, description="Most features: those with the largest effects.")
    doses: tuple[float, ...] = Field(
        DOSES,
        min_length=3,
        description="Doses in multiples of the larger of the two groups' means.",
    )
    points: int = Field(
        120,
        ge=2,
        description="Most decision points; every unit gives one before any gives a second.",
    )
    half: Literal["select", "confirm", "all"] = Field(
        "select",
        description="select: the half of the units that the screen did not use, so that effects "
        "are independent of those that chose the features.",
    )
