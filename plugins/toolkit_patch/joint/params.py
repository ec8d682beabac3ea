"""The params of `patch.joint`."""

from __future__ import annotations

from pydantic import Field

from toolkit_patch.screen.params import FollowUp


class Joint(FollowUp):
    """Which features are changed together, and at which decision points."""

    verdicts: tuple[str, ...] = Field(
        ("causal", "unspecific"), description="Features with these verdicts make up the set."
    )
    features: tuple[str, ...] = Field(
        (),
        description="Addresses such as 25/2059: use these features as the set instead of those "
        "with a verdict.",
    )
    top: int = Field(
        16,
        ge=2,
        description="Maximum number of features in the set: those with the largest effects.",
    )
    pairs: int = Field(
        5,
        ge=0,
        description="Number of features, the strongest ones, that are also changed in pairs.",
    )
    sets: int = Field(
        99,
        ge=19,
        description="Number of random sets, in which each feature's change is applied along the "
        "decoder row of another feature.",
    )
