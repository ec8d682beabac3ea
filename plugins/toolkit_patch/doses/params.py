"""The params of `patch.doses`."""

from __future__ import annotations

from pydantic import Field

from toolkit_patch.screen.params import FollowUp

DOSES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


class Doses(FollowUp):
    """Which features are set to which doses, and at which decision points."""

    verdicts: tuple[str, ...] = Field(
        ("causal",), description="Features with these verdicts are set to doses."
    )
    features: tuple[str, ...] = Field(
        (),
        description="Addresses such as 25/2059: use these features instead of those with a "
        "verdict.",
    )
    top: int = Field(
        12, ge=1, description="Maximum number of features: those with the largest effects."
    )
    doses: tuple[float, ...] = Field(
        DOSES,
        min_length=3,
        description="Doses in multiples of the larger of the two groups' means.",
    )
